// bf16: a float32 without its lower 16 bits. The functions here give the same bits on every processor.
//
// A product of two bf16 values is exact in float32. Sums of such products are computed by multiply-adds with one
// rounding each, as in AVX512_BF16 and AMX, in the order of core/bf16.hpp. AVX512_BF16 and AMX treat denormal inputs
// and results as zero. The functions here make values below 2^-63 and weights below 2^-47 zero, so that each product
// and each sum is a multiple of 2^-124. With these limits denormal numbers never occur, and an ordinary multiply-add
// gives the same bits.
//
// A value of P parts is a0 + a1 + ..., where each part is the bf16 value nearest to the remainder after the parts
// before, or zero by the limits above. For a pair of values a and b, the products a_i b_k with 0 < i + k < P are summed
// from zero, the smallest first, and added before a_0 b_0; a step adds these products for one (i, k) after another. The
// omitted products are as small as the rounding errors of values of P parts.
#pragma once

#include "lane.hpp"

namespace headrace {
namespace {

// The bits in float32 of the least value and of the least weight that stay nonzero.
constexpr int32_t least_bf16_value = (127 - 63) << 23, least_bf16_weight = (127 - 47) << 23;
constexpr int32_t bf16_nan = 0x7fc00000, float_infinity = 0x7f800000;

// The bits of a float32 lane rounded to the nearest bf16, ties to even, with a lower half of zeros. `least`: the bits
// of the smallest value that does not become zero.
template <class V>
HR_FN typename Lane<V>::U32 bf16_rounded(V x, int32_t least = least_bf16_value) {
    static_assert(is_single<V>);
    using U = typename Lane<V>::U32;
    const U bits = bit_cast<U>(x);
    const Int<V> size = bit_cast<Int<V>>(x) & INT32_MAX;
    const U nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
    const U kept = select(size >= least, nearest, U{});
    return select(size > float_infinity, U{} + uint32_t(bf16_nan), kept);
}

}  // namespace
}  // namespace headrace
