// Counter-based random values: Philox-4x32-10 (Salmon, Moraes, Dror, Shaw 2011) with a seed as key and (row, block of
// four columns) as counter. A value depends only on (seed, row, column), not on tile, thread or device.
//
// A float64 value has the 32 bits of the float32 value and 32 lower bits from a second stream, so that a sample in
// float64 is the sample in float32 with more digits.
#pragma once

#include "lane.hpp"

namespace headrace {
namespace {

// The two halves of a 32 x 32 -> 64 bit product.
template <class U>
struct Product64 {
    U high, low;
};

HR_FN Product64<uint32_t> multiply64(uint32_t a, uint32_t b) {
    const uint64_t product = uint64_t(a) * b;
    return {uint32_t(product >> 32), uint32_t(product)};
}

template <class U>
HR_FN Product64<U> multiply64(U a, uint32_t b) {
    typedef uint64_t Wide __attribute__((vector_size(2 * sizeof(U))));
    const Wide product = __builtin_convertvector(a, Wide) * uint64_t(b);
    return {__builtin_convertvector(product >> 32, U), a * b};
}

template <class U>
struct Words {
    U w[4];
};

// Random words of a block; `stream` is 0 for the leading bits and 1 for the lower bits of float64.
template <class U>
HR_FN Words<U> philox(uint64_t seed, U row_low, U row_high, uint32_t block, uint32_t stream) {
    U c0 = row_low, c1 = row_high, c2 = U{} + block, c3 = U{} + stream;
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const Product64<U> a = multiply64(c0, 0xD2511F53u), b = multiply64(c2, 0xCD9E8D57u);
        const U n0 = b.high ^ c1 ^ k0, n2 = a.high ^ c3 ^ k1;
        c1 = b.low;
        c3 = a.low;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// A uniform value in (0, 1], never 0, from 32 bits (float32) or 64 bits (float64).
template <class V>
HR_FN V uniform(typename Lane<V>::U32 high, typename Lane<V>::U32 low) {
    using T = Scalar<V>;
    if constexpr (is_single<V>) {
        return fma(convert<V>(bit_cast<Int<V>>(high >> 1)), T(0x1p-31), T(0x1p-33));
    } else {
        return fma(convert<V>(high), T(0x1p-32), fma(convert<V>(low), T(0x1p-64), T(0x1p-65)));
    }
}

// Four columns of one block of a row, from a standard base.
template <class V>
struct Columns {
    V column[4];
};

// Normal values by Box and Muller's method: two words give two independent values; |value| < 6.8 in float32, < 9.6 in
// float64.
template <class V>
HR_FN Columns<V> normal_columns(const Words<typename Lane<V>::U32>& high, const Words<typename Lane<V>::U32>& low) {
    Columns<V> out;
    for (int i = 0; i < 4; i += 2) {
        const V radius = sqrt(log(uniform<V>(high.w[i], low.w[i])) * Scalar<V>(-2));
        const SinCos<V> angle = sincos_turns(uniform<V>(high.w[i + 1], low.w[i + 1]));
        out.column[i] = radius * angle.cos;
        out.column[i + 1] = radius * angle.sin;
    }
    return out;
}

// Values of the standard logistic distribution, log(u / (1 - u)): the leading bit is the sign and the other bits are
// min(u, 1 - u), so that both tails have the same resolution.
template <class V>
HR_FN Columns<V> logistic_columns(const Words<typename Lane<V>::U32>& high, const Words<typename Lane<V>::U32>& low) {
    Columns<V> out;
    for (int i = 0; i < 4; ++i) {
        const V tail = uniform<V>((high.w[i] << 1) | (low.w[i] >> 31), low.w[i] << 1) * Scalar<V>(0.5);
        const V value = log1p(-tail) - log(tail);
        const V sign = fma(convert<V>(high.w[i] >> 31), Scalar<V>(2), Scalar<V>(-1));
        out.column[i] = value * sign;
    }
    return out;
}

// Four columns of a block from a standard base; the second stream is read for float64 alone.
template <class V>
HR_FN Columns<V> base_columns(bool logistic, uint64_t seed, typename Lane<V>::U32 row_low,
                              typename Lane<V>::U32 row_high, uint32_t block) {
    const auto high = philox(seed, row_low, row_high, block, 0u);
    auto low = high;
    if constexpr (!is_single<V>) low = philox(seed, row_low, row_high, block, 1u);
    return logistic ? logistic_columns<V>(high, low) : normal_columns<V>(high, low);
}

}  // namespace
}  // namespace headrace
