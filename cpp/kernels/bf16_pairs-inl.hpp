// Pairs of bf16 values in vectors: their conversion from float32, and the product of pairs that is added to a sum.
// HR_BF16_DOT enables the instructions for both. P is the number of parts (core/bf16.hpp).
#pragma once

#include "../core/bf16.hpp"

#include "../math/bf16.hpp"
#include "../math/pack.hpp"

#ifdef HR_BF16_DOT
#include <immintrin.h>
#endif

namespace headrace {
namespace {

using V = PackF;
using Pairs = PackU32;
typedef uint16_t Halves __attribute__((vector_size(HR_VECTOR_BYTES / 2)));
constexpr int W = width<float>;

HR_FN Pairs load_pairs(const void* p) {
    Pairs v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

HR_FN void store_pairs(uint32_t* p, Pairs v) {
    __builtin_memcpy(p, &v, sizeof v);
}

HR_FN Pairs splat_pair(const uint32_t* p) {
    return *p - Pairs{};
}

// ---- a pair of products ---------------------------------------------------------------------------------------------

#ifdef HR_BF16_DOT

// Register use of the other products: 8 x 3 sums, 3 inputs and a broadcast; the inputs of three parts take more.
constexpr int dot_units = 8;
template <int P>
constexpr int dot_vectors = P < 3 ? 3 : 2;

struct Factor {
    Pairs pair;
    Factor() = default;
    HR_FN explicit Factor(Pairs given) : pair(given) {}
};

HR_FN V dot(V sum, Factor a, Factor b) {
    return V(_mm512_dpbf16_ps(__m512(sum), (__m512bh)a.pair, (__m512bh)b.pair));
}

#else

// Both members of a pair take registers.
constexpr int dot_units = HR_VECTOR_BYTES == 64 ? 8 : 4;
template <int P>
constexpr int dot_vectors = P < 3 ? 2 : 1;

struct Factor {
    V even, odd;
    Factor() = default;
    HR_FN explicit Factor(Pairs given) : even(bit_cast<V>(given << 16)), odd(bit_cast<V>(given & 0xffff0000u)) {}
};

HR_FN V dot(V sum, Factor a, Factor b) {
    sum += a.odd * b.odd;
    sum += a.even * b.even;
    return sum;
}

#endif

// All parts of a pair.
template <int P>
struct Factors {
    Factor part[P];
    Factors() = default;
    // parts(i): the pairs of part i.
    template <class F>
    HR_FN explicit Factors(const F& parts) {
        for (int i = 0; i < P; ++i) part[i] = Factor(parts(i));
    }
};

template <int P>
HR_FN V dot(V sum, const Factors<P>& a, const Factors<P>& b) {
    if constexpr (P > 1) {
        V rest{};
        for (int k = P - 1; k > 0; --k)
            for (int i = k; i >= 0; --i) rest = dot(rest, a.part[i], b.part[k - i]);
        sum += rest;
    }
    return dot(sum, a.part[0], b.part[0]);
}

// ---- rounding -------------------------------------------------------------------------------------------------------

#ifdef HR_BF16_DOT

// A value is kept if it is at least 2^-63: if one of the two highest bits of its exponent is set.
template <int32_t Least>
HR_FN __mmask16 kept(V x) {
    static_assert(least_bf16_value == 0x20000000);
    const __m512i bits = _mm512_castps_si512(__m512(x));
    if constexpr (Least == least_bf16_value) return _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x60000000));
    const __m512i size = _mm512_and_si512(bits, _mm512_set1_epi32(INT32_MAX));
    return _mm512_cmpge_epi32_mask(size, _mm512_set1_epi32(Least));
}

// Values of which the first ones are in `low`, two by two.
template <int32_t Least>
HR_FN Pairs rounded_adjacent(V low, V high) {
    const __mmask32 mask = _mm512_kunpackw(kept<Least>(high), kept<Least>(low));
    return Pairs((__m512i)_mm512_maskz_cvtne2ps_pbh(mask, __m512(high), __m512(low)));
}

template <int32_t Least>
HR_FN Pairs rounded_pair(V even, V odd) {
    const __m512i apart = (__m512i)rounded_adjacent<Least>(even, odd);
    typedef uint16_t Order __attribute__((vector_size(64)));
    constexpr Order order = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                             8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return Pairs(_mm512_permutexvar_epi16((__m512i)order, apart));
}

HR_FN Halves rounded_halves(V x) {
    return (Halves)_mm512_maskz_cvtneps_pbh(kept<least_bf16_value>(x), __m512(x));
}

#else

template <int32_t Least>
HR_FN Pairs rounded_pair(V even, V odd) {
    return bf16_rounded(even, Least) >> 16 | bf16_rounded(odd, Least);
}

template <int32_t Least>
HR_FN Pairs rounded_adjacent(V low, V high) {
    const Pairs first = bf16_rounded(low, Least) >> 16, second = bf16_rounded(high, Least) >> 16;
    uint16_t halves[2 * W];
    for (int i = 0; i < W; ++i) {
        halves[i] = uint16_t(first[i]);
        halves[W + i] = uint16_t(second[i]);
    }
    return load_pairs(halves);
}

HR_FN Halves rounded_halves(V x) {
    return __builtin_convertvector(bf16_rounded(x) >> 16, Halves);
}

#endif

HR_FN V widened(Halves halves) {
    return bit_cast<V>(__builtin_convertvector(halves, Pairs) << 16);
}

// The remainder of a part is exact in float32. A value that became infinite gives only NaN, because no remainder of it
// is finite.
template <int P, int32_t Least = least_bf16_value>
HR_FN void split_pair(V even, V odd, Pairs (&parts)[P]) {
    for (int i = 0; i < P; ++i) {
        parts[i] = rounded_pair<Least>(even, odd);
        even -= bit_cast<V>(parts[i] << 16);
        odd -= bit_cast<V>(parts[i] & 0xffff0000u);
    }
}

template <int P, int32_t Least>
HR_FN void split_adjacent(V low, V high, Pairs (&parts)[P]) {
    for (int i = 0; i < P; ++i) {
        parts[i] = rounded_adjacent<Least>(low, high);
        Halves halves[2];
        __builtin_memcpy(halves, &parts[i], sizeof halves);
        low -= widened(halves[0]);
        high -= widened(halves[1]);
    }
}

// Loads the n values from p on: a vector of 2 W, two by two.
template <int P, int32_t Least>
HR_FN void split_adjacent(const float* p, int n, Pairs (&parts)[P]) {
    if (n >= 2 * W) return split_adjacent<P, Least>(load(p), load(p + W), parts);
    split_adjacent<P, Least>(load_up_to(p, n > 0 ? n : 0), n > W ? load_up_to(p + W, n - W) : V{}, parts);
}

// ---- where parts lie ------------------------------------------------------------------------------------------------

// The first part of a row's pair; the others follow at distances of pair_group.
template <int P>
HR_FN int64_t row_place(int64_t pair) {
    return P == 1 ? pair : pair / pair_group * pair_group * P + pair % pair_group;
}

// Adjacent values, two to a pair.
template <int P>
HR_FN void store_split(uint32_t* place, V x) {
    for (int i = 0; i < P; ++i) {
        const Halves halves = rounded_halves(x);
        __builtin_memcpy(place + i * pair_group, &halves, sizeof halves);
        x -= widened(halves);
    }
}

}  // namespace
}  // namespace headrace
