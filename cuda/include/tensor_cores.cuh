// Products of small matrices by tensor cores, from compute capability 8.0 on. Factors are TF32, with 11 significant
// bits and float32's range; sums are float32, rounded toward zero.
//
// A warp holds its matrices in fragments. With g = lane / 4, t = lane % 4 and h the half of the terms, a lane has
//
// - a[2 h + i] of the left factor (16, 8) in row g + 8 i and column t + 4 h,
// - b[h] of the right factor (8, 8) in row t + 4 h and column g,
// - c[2 i + j] of the sums (16, 8) in row g + 8 i and column 2 t + j.
//
// The layout of fragments is that of PTX's mma.m16n8k8 ("Matrix Fragments for mma.m16n8k8", .tf32).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "device.cuh"

namespace headrace {
namespace {

__device__ inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

__device__ inline float number_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

constexpr uint32_t tf32_dropped = 0x1fff;  // bits of a float32 that a factor in TF32 lacks

#ifdef HR_EMULATE

// The bits of a float32 rounded to TF32, to nearest, ties away from zero.
inline uint32_t to_tf32(float x) {
    const uint32_t bits = bits_of(x);
    constexpr uint32_t magnitude = 0x7fffffff, infinity = 0x7f800000;
    return (bits & magnitude) >= infinity ? bits : (bits + (tf32_dropped + 1) / 2) & ~tf32_dropped;
}

// 2^exponent, for exponents of normal numbers. A product with a power of two is exact, and takes a fraction of
// std::scalbn's time.
inline double power_of_two(int exponent) {
    const uint64_t bits = uint64_t(1023 + exponent) << 52;
    double power;
    memcpy(&power, &bits, sizeof(power));
    return power;
}

// The sum of n values as tensor cores are known to compute it. Each value is truncated two bits below the last bit that
// float32 would have for the largest value; the sum of the truncated values is exact, and is rounded toward zero.
// Values are products of float32, whose exponents, -298 to 256, are far from the limits of double.
inline float sum_of_tensor_core(const double* terms, int n) {
    double largest = 0, plain = 0;
    for (int i = 0; i < n; ++i) {
        const double size = std::fabs(terms[i]);
        largest = size > largest ? size : largest;  // a NaN stays in `plain`
        plain += terms[i];
    }
    if (largest == 0 || !std::isfinite(plain)) return float(plain);
    uint64_t bits;
    memcpy(&bits, &largest, sizeof(bits));
    const int last = int(bits >> 52) - 1023 - 25;
    const double unit = power_of_two(-last);
    int64_t sum = 0;
    for (int i = 0; i < n; ++i) sum += int64_t(terms[i] * unit);
    const double exact = double(sum) * power_of_two(last);
    const float nearest = float(exact);
    return std::fabs(double(nearest)) > std::fabs(exact) && std::isfinite(nearest) ? std::nextafter(nearest, 0.0f)
                                                                                   : nearest;
}

// Computes c = a b or c += a b, four terms at a time. Bits of a factor beyond TF32 are not read, as on the device.
inline void add_product(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&c)[4], bool is_first = false) {
    struct Factors {
        float a[4], b[2];
    };
    static Factors warps[32][32];  // the threads of a block are fibers of one thread
    Factors* const lanes = warps[threadIdx.x / 32];
    const int lane = int(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) lanes[lane].a[i] = number_of(a[i] & ~tf32_dropped);
    for (int i = 0; i < 2; ++i) lanes[lane].b[i] = number_of(b[i] & ~tf32_dropped);
    __syncwarp();
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) {
            float& sum = c[2 * i + j];
            if (is_first) sum = 0;
            for (int h = 0; h < 2; ++h) {
                double terms[5] = {double(sum)};
                for (int s = 0; s < 4; ++s)
                    terms[s + 1] = double(lanes[4 * g + s].a[2 * h + i]) * double(lanes[4 * (2 * t + j) + s].b[h]);
                sum = sum_of_tensor_core(terms, 5);
            }
        }
    __syncwarp();
}

#else

__device__ __forceinline__ uint32_t to_tf32(float x) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

// Computes c = a b or c += a b.
__device__ __forceinline__ void add_product(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&c)[4],
                                            bool is_first = false) {
    const float before[4] = {is_first ? 0.0f : c[0], is_first ? 0.0f : c[1], is_first ? 0.0f : c[2],
                             is_first ? 0.0f : c[3]};
    asm volatile(  // volatile, so that the compiler does not move the product to a branch that some lanes skip
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %11, %12, %13};"
        : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(before[0]), "f"(before[1]),
          "f"(before[2]), "f"(before[3]));
}

#endif

// A value in the form in which a product in TF32 reads it.
__device__ inline float rounded_to_tf32(float x) {
    return number_of(to_tf32(x));
}
__device__ inline double rounded_to_tf32(double x) {  // unused: no kernel has products of doubles in TF32
    return x;
}

// A float32 that is split into two factors: the nearest TF32 value, and the remainder, whose bits beyond TF32 a product
// ignores. The two factors together have at least 23 bits. The remainder of a value that is not finite is NaN.
struct SplitNumber {
    uint32_t nearest, rest;
};

__device__ inline SplitNumber split(float x) {
    const uint32_t nearest = (bits_of(x) + (tf32_dropped + 1) / 2) & ~tf32_dropped;
    return {nearest, bits_of(x - number_of(nearest))};
}

}  // namespace
}  // namespace headrace
