// Products of small matrices by the tensor cores, in TF32: factors of 11 significant bits with float32's range, sums in
// float32, rounded as the hardware does. Compute capability 8.0 has them.
//
// A warp holds its matrices in fragments. With g = lane / 4 and t = lane % 4 a lane has, for half h of the terms,
//
//   a[2 h + i]   the left one (16, 8): row g + 8 i, column t + 4 h
//   b[h]         the right one (8, 8): row t + 4 h, column g
//   c[2 i + j]   the sums (16, 8): row g + 8 i, column 2 t + j
//
// as PTX's mma.m16n8k8 wants them ("Matrix Fragments for mma.m16n8k8", .tf32).
#pragma once

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

#ifdef HR_EMULATE

// To the nearest, ties away from zero.
inline uint32_t to_tf32(float x) {
    const uint32_t bits = bits_of(x);
    constexpr uint32_t magnitude = 0x7fffffff, infinity = 0x7f800000, dropped = 0x1fff;
    return (bits & magnitude) >= infinity ? bits : (bits + (dropped + 1) / 2) & ~dropped;
}

// c += a b, term by term.
inline void add_product(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&c)[4]) {
    const auto number = [](uint32_t bits) {
        float x;
        std::memcpy(&x, &bits, sizeof(x));
        return x;
    };
    const int lane = int(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
    for (int h = 0; h < 2; ++h)
        for (int s = 0; s < 4; ++s) {
            float right[2];
            for (int j = 0; j < 2; ++j) right[j] = number(__shfl_sync(~0u, b[h], (2 * t + j) * 4 + s));
            for (int i = 0; i < 2; ++i) {
                const float left = number(__shfl_sync(~0u, a[2 * h + i], g * 4 + s));
                for (int j = 0; j < 2; ++j) c[2 * i + j] += left * right[j];
            }
        }
}

#else

__device__ __forceinline__ uint32_t to_tf32(float x) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

__device__ __forceinline__ void add_product(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&c)[4]) {
    asm volatile(  // stays where it is: all lanes of a warp are to be there
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif

// As a number: its own factor in a product.
__device__ inline float rounded_to_tf32(float x) {
    const uint32_t bits = to_tf32(x);
    memcpy(&x, &bits, sizeof(x));
    return x;
}

}  // namespace
}  // namespace headrace
