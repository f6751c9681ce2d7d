// Words of bf16 values in vectors: their conversion from float32, and the product of words that is added to a sum.
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
using Words = PackU32;
typedef uint16_t Halves __attribute__((vector_size(HR_VECTOR_BYTES / 2)));
constexpr int W = width<float>;

HR_FN Words load_words(const void* p) {
    Words v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

HR_FN void store_words(uint32_t* p, Words v) {
    __builtin_memcpy(p, &v, sizeof v);
}

// ---- a product of words ---------------------------------------------------------------------------------------------

// Register use of blocks of units by vectors: the two sums of a step, the values, and a weight.
#if HR_VECTOR_BYTES == 64 || defined(__aarch64__)
constexpr int chain_units = 4, chain_vectors = 3;
#else
constexpr int chain_units = 3, chain_vectors = 2;
#endif

#ifdef HR_BF16_DOT

using Factor = Words;
constexpr int factor_values = 2;

HR_FN Factor splat_factor(const uint32_t* p) {
    return *p - Words{};
}

HR_FN V dot(V sum, Factor a, Factor b) {
    return V(_mm512_dpbf16_ps(__m512(sum), (__m512bh)a, (__m512bh)b));
}

#else

using Factor = V;
constexpr int factor_values = 1;

HR_FN Factor splat_factor(const uint32_t* p) {
    return bit_cast<float>(*p) - V{};
}

HR_FN V dot(V sum, Factor a, Factor b) {
    return sum + a * b;
}

#endif

// The index in a step of word i of the even inputs, and of the odd ones.
HR_FN constexpr int even_word(int i) {
    return 2 * i;
}
HR_FN constexpr int odd_word(int i) {
    return 2 * i + 1;
}

HR_FN Factor load_factor(const uint32_t* p) {
    return bit_cast<Factor>(load_words(p));
}

constexpr int step_words = bf16_step / factor_values;
constexpr int quad_words = bf16_quad / 2 / factor_values;  // of the even inputs of a quad, or of its odd ones

// In a step the quads before input k.
HR_FN constexpr int quads_before(int64_t k) {
    return int(k % bf16_step) / bf16_quad;
}

// The kinds of products of parts, in their order: those of a weight and of a value.
struct Kind {
    int weight, value;
};

template <int P>
struct Kinds {
    Kind all[bf16_kinds(P)] = {};
    constexpr Kinds() {
        int n = 0;
        for (int order = P - 1; order >= 0; --order)
            for (int i = order; i >= 0; --i) all[n++] = {i, order - i};
    }
};

template <int P>
constexpr Kinds<P> kinds{};

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
HR_FN Words rounded_adjacent(V low, V high) {
    const __mmask32 mask = _mm512_kunpackw(kept<Least>(high), kept<Least>(low));
    return Words((__m512i)_mm512_maskz_cvtne2ps_pbh(mask, __m512(high), __m512(low)));
}

template <int32_t Least>
HR_FN Words rounded_pair(V lower, V upper) {
    const __m512i apart = (__m512i)rounded_adjacent<Least>(lower, upper);
    typedef uint16_t Order __attribute__((vector_size(64)));
    constexpr Order order = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                             8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return Words(_mm512_permutexvar_epi16((__m512i)order, apart));
}

// A step of adjacent values in the order of words of VDPBF16PS.
HR_FN Words of_step(Words adjacent) {
    typedef uint16_t Order __attribute__((vector_size(64)));
    constexpr Order order = {2,  0,  3,  1,  6,  4,  7,  5,  10, 8,  11, 9,  14, 12, 15, 13,
                             18, 16, 19, 17, 22, 20, 23, 21, 26, 24, 27, 25, 30, 28, 31, 29};
    return Words(_mm512_permutexvar_epi16((__m512i)order, (__m512i)adjacent));
}

HR_FN Halves rounded_halves(V x) {
    return (Halves)_mm512_maskz_cvtneps_pbh(kept<least_bf16_value>(x), __m512(x));
}

#else

template <int32_t Least>
HR_FN Words rounded_pair(V lower, V upper) {
    return bf16_rounded(lower, Least) >> 16 | bf16_rounded(upper, Least);
}

template <int32_t Least>
HR_FN Words rounded_adjacent(V low, V high) {
    const Words first = bf16_rounded(low, Least) >> 16, second = bf16_rounded(high, Least) >> 16;
    uint16_t halves[2 * W];
    for (int i = 0; i < W; ++i) {
        halves[i] = uint16_t(first[i]);
        halves[W + i] = uint16_t(second[i]);
    }
    return load_words(halves);
}

#endif

HR_FN V widened(Halves halves) {
    return bit_cast<V>(__builtin_convertvector(halves, Words) << 16);
}

// The remainder of a part is exact in float32. A value that became infinite gives only NaN, because no remainder of it
// is finite.
template <int P, int32_t Least = least_bf16_value>
HR_FN void split_pair(V lower, V upper, Words (&parts)[P]) {
    for (int i = 0; i < P; ++i) {
        parts[i] = rounded_pair<Least>(lower, upper);
        lower -= bit_cast<V>(parts[i] << 16);
        upper -= bit_cast<V>(parts[i] & 0xffff0000u);
    }
}

template <int P, int32_t Least>
HR_FN void split_adjacent(V low, V high, Words (&parts)[P]) {
    for (int i = 0; i < P; ++i) {
        parts[i] = rounded_adjacent<Least>(low, high);
        Halves halves[2];
        __builtin_memcpy(halves, &parts[i], sizeof halves);
        low -= widened(halves[0]);
        high -= widened(halves[1]);
    }
}

template <int P, int32_t Least>
HR_FN void split_values(V x, Words (&parts)[P]) {
    for (int i = 0; i < P; ++i) {
        parts[i] = bf16_rounded(x, Least);
        x -= bit_cast<V>(parts[i]);
    }
}

// Two adjacent values a word, as AMX reads them.
struct TileWords {
    static constexpr int values = 2;
    static constexpr int whole = bf16_step;  // of what a product reads a multiple

    // The words of lines [k, k + 4), as put(word, parts).
    template <int P, int32_t Least, class F, class G>
    HR_FN static void quad(const F& line, int64_t k, const G& put) {
        for (int i = 0; i < 4; i += 2) {
            Words parts[P];
            split_pair<P, Least>(line(k + i), line(k + i + 1), parts);
            put((k + i) / 2, parts);
        }
    }

    // The n values from p on: a vector of words.
    template <int P, int32_t Least>
    HR_FN static void adjacent(const float* p, int n, Words (&parts)[P]) {
        if (n >= 2 * W) return split_adjacent<P, Least>(load(p), load(p + W), parts);
        split_adjacent<P, Least>(load_up_to(p, n > 0 ? n : 0), n > W ? load_up_to(p + W, n - W) : V{}, parts);
    }
};

#ifdef HR_BF16_DOT

struct VectorWords {
    static constexpr int values = 2;
    static constexpr int whole = bf16_quad;

    template <int P, int32_t Least, class F, class G>
    HR_FN static void quad(const F& line, int64_t k, const G& put) {
        for (int i = 0; i < 2; ++i) {
            Words parts[P];
            split_pair<P, Least>(line(k + i + 2), line(k + i), parts);
            put(k / 2 + i, parts);
        }
    }

    template <int P, int32_t Least>
    HR_FN static void adjacent(const float* p, int n, Words (&parts)[P]) {
        static_assert(2 * W == bf16_step);
        TileWords::adjacent<P, Least>(p, n, parts);
        for (int i = 0; i < P; ++i) parts[i] = of_step(parts[i]);
    }
};

#else

struct VectorWords {
    static constexpr int values = 1;
    static constexpr int whole = bf16_quad;

    template <int P, int32_t Least, class F, class G>
    HR_FN static void quad(const F& line, int64_t k, const G& put) {
        for (int i = 0; i < 4; ++i) {
            Words parts[P];
            split_values<P, Least>(line(k + i), parts);
            put(k + i, parts);
        }
    }

    template <int P, int32_t Least>
    HR_FN static void adjacent(const float* p, int n, Words (&parts)[P]) {
        split_values<P, Least>(load_up_to(p, n > 0 ? n : 0), parts);
    }
};

#endif

static_assert(VectorWords::values == factor_values);

// ---- rows of small batches: [step][part][word] ----------------------------------------------------------------------

// The first part of the step of value k.
template <int P>
HR_FN int64_t row_step(int64_t k) {
    return k / bf16_step * (P * step_words);
}

#ifdef HR_BF16_DOT

// Value k of a row.
template <int P>
HR_FN void store_value(uint32_t* row, int64_t k, float x) {
    const int64_t word = 2 * quads_before(k) + k % 2, upper = k % 4 < 2;
    uint16_t* const half = reinterpret_cast<uint16_t*>(row + row_step<P>(k) + word) + upper;
    for (int i = 0; i < P; ++i) {
        const uint32_t bits = bf16_rounded(x);
        const uint16_t bf16 = uint16_t(bits >> 16);
        __builtin_memcpy(half + int64_t(i) * 2 * step_words, &bf16, sizeof bf16);
        x -= bit_cast<float>(bits);
    }
}

// Values [k, k + W) of a row; k is a multiple of W.
template <int P>
HR_FN void store_values(uint32_t* row, int64_t k, V x) {
    uint32_t* place = row + row_step<P>(k) + 2 * quads_before(k);
    for (int i = 0; i < P; ++i, place += step_words) {
        const Halves halves = rounded_halves(x);
        const Halves words =
            __builtin_shufflevector(halves, halves, 2, 0, 3, 1, 6, 4, 7, 5, 10, 8, 11, 9, 14, 12, 15, 13);
        __builtin_memcpy(place, &words, sizeof words);
        x -= widened(halves);
    }
}

#else

template <int P>
HR_FN void store_value(uint32_t* row, int64_t k, float x) {
    uint32_t* const place = row + row_step<P>(k) + k % bf16_step;
    for (int i = 0; i < P; ++i) {
        place[i * step_words] = bf16_rounded(x);
        x -= bit_cast<float>(place[i * step_words]);
    }
}

template <int P>
HR_FN void store_values(uint32_t* row, int64_t k, V x) {
    Words parts[P];
    split_values<P, least_bf16_value>(x, parts);
    for (int i = 0; i < P; ++i) store_words(row + row_step<P>(k) + k % bf16_step + i * step_words, parts[i]);
}

#endif

}  // namespace
}  // namespace headrace
