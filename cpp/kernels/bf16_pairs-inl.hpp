// Vectors of words of bf16 values: conversion from float32, and products of words that are added to a sum. HR_BF16_DOT
// enables instructions for conversion and for products. P is the number of parts (core/bf16.hpp).
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

// Adds the products of words to a sum: of words of two values, with the product of the upper halves first, or of words
// of one value.
#ifdef HR_BF16_DOT

struct TwoValues {
    Words words;
    TwoValues() = default;
    HR_FN explicit TwoValues(Words given) : words(given) {}
    HR_FN static TwoValues splat(const uint32_t* p) { return TwoValues(*p - Words{}); }
};

HR_FN V dot(V sum, TwoValues a, TwoValues b) {
    return V(_mm512_dpbf16_ps(__m512(sum), (__m512bh)a.words, (__m512bh)b.words));
}

#else

struct TwoValues {
    V lower, upper;
    TwoValues() = default;
    HR_FN explicit TwoValues(Words given) : lower(bit_cast<V>(given << 16)), upper(bit_cast<V>(given & 0xffff0000u)) {}
    HR_FN TwoValues(Words first, Words second) : lower(bit_cast<V>(first)), upper(bit_cast<V>(second)) {}
};

HR_FN V dot(V sum, TwoValues a, TwoValues b) {
    sum += a.upper * b.upper;
    sum += a.lower * b.lower;
    return sum;
}

struct OneValue {
    V value;
    OneValue() = default;
    HR_FN explicit OneValue(Words given) : value(bit_cast<V>(given)) {}
    // Reads a float32, because compilers do not let multiply-adds broadcast an integer.
    HR_FN static OneValue splat(const uint32_t* p) {
        OneValue made;
        float value;
        __builtin_memcpy(&value, p, sizeof value);
        made.value = value - V{};
        return made;
    }
};

HR_FN V dot(V sum, OneValue a, OneValue b) {
    return sum + a.value * b.value;
}

#endif

HR_FN Words splat_word(const uint32_t* p) {
    return *p - Words{};
}

// ---- rounding -------------------------------------------------------------------------------------------------------

#ifdef HR_BF16_DOT

// A mask of the values that stay nonzero: a value of at least 2^-63 has one of the two highest bits of its exponent
// set.
template <int32_t Least>
HR_FN __mmask16 kept(V x) {
    static_assert(least_bf16_value == 0x20000000);
    const __m512i bits = _mm512_castps_si512(__m512(x));
    if constexpr (Least == least_bf16_value) return _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x60000000));
    const __m512i size = _mm512_and_si512(bits, _mm512_set1_epi32(INT32_MAX));
    return _mm512_cmpge_epi32_mask(size, _mm512_set1_epi32(Least));
}

// Rounds the 2 W adjacent values in `low` and `high` to words of two values.
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

// Converts a step of adjacent values to the order of words of VDPBF16PS.
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

HR_FN Halves rounded_halves(V x) {
    return __builtin_convertvector(bf16_rounded(x) >> 16, Halves);
}

#endif

HR_FN V widened(Halves halves) {
    return bit_cast<V>(__builtin_convertvector(halves, Words) << 16);
}

// Splits values into parts. The remainder of a part is exact in float32. All parts of an infinite value are NaN,
// because its remainders are not finite.
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

// ---- formats of words
// ------------------------------------------------------------------------------------------------

// A format makes words from `unit` values at once; each word holds `values` values.

// The index of a lane of a word's part among lines [word][part][lane].
template <int P>
HR_FN int64_t lines_apart(int64_t word, int part, int64_t stride, int64_t lane) {
    return (word * P + part) * stride + lane;
}

// The format of words with two adjacent values. The number of values in a product is a multiple of `Whole`.
template <int Whole>
struct AdjacentWords {
    using Factor = TwoValues;
    static constexpr int values = 2, unit = 2, whole = Whole;

    HR_FN static constexpr int lower(int) { return 0; }
    HR_FN static constexpr int upper(int) { return 1; }
    HR_FN static Halves in_order(Halves adjacent) { return adjacent; }

    // Lines of words are stored tile by tile, [step][vector][part][word][lane], where a product reads whole steps.
    template <int P>
    HR_FN static int64_t line_place(int64_t word, int part, int64_t stride, int64_t lane) {
        if constexpr (Whole == 2) return lines_apart<P>(word, part, stride, lane);
        const int64_t tile = (word / 16 * (stride / 16) + lane / 16) * P + part;
        return (tile * 16 + word % 16) * 16 + lane % 16;
    }

    // A vector of words from the n values at p.
    template <int P, int32_t Least>
    HR_FN static void adjacent(const float* p, int n, Words (&parts)[P]) {
        if (n >= 2 * W) return split_adjacent<P, Least>(load(p), load(p + W), parts);
        split_adjacent<P, Least>(load_up_to(p, n > 0 ? n : 0), n > W ? load_up_to(p + W, n - W) : V{}, parts);
    }
};

using PairWords = AdjacentWords<2>;
using TileWords = AdjacentWords<bf16_step>;

// The format of words of a quad: first the even values, with the first value in the upper half, then the odd values.
// For multiply-adds each value is a word.
#ifdef HR_BF16_DOT

using PairLines = PairWords;

struct VectorWords {
    using Factor = TwoValues;
    static constexpr int values = 2, unit = bf16_quad, whole = bf16_quad;

    HR_FN static constexpr int lower(int word) { return word + 2; }
    HR_FN static constexpr int upper(int word) { return word; }
    template <int P>
    HR_FN static int64_t line_place(int64_t word, int part, int64_t stride, int64_t lane) {
        return lines_apart<P>(word, part, stride, lane);
    }
    HR_FN static Halves in_order(Halves adjacent) {
        return __builtin_shufflevector(adjacent, adjacent, 2, 0, 3, 1, 6, 4, 7, 5, 10, 8, 11, 9, 14, 12, 15, 13);
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
    using Factor = OneValue;
    static constexpr int values = 1, unit = 1, whole = bf16_quad;

    HR_FN static constexpr int lower(int) { return 0; }
    HR_FN static constexpr int upper(int) { return 0; }
    template <int P>
    HR_FN static int64_t line_place(int64_t word, int part, int64_t stride, int64_t lane) {
        return lines_apart<P>(word, part, stride, lane);
    }

    template <int P, int32_t Least>
    HR_FN static void adjacent(const float* p, int n, Words (&parts)[P]) {
        split_values<P, Least>(load_up_to(p, n > 0 ? n : 0), parts);
    }
};

// The format for lines of tiles: one value in a word, the second value of a pair first, because taking a word of two
// values apart is as much work as two multiply-adds.
struct PairLines : VectorWords {
    static constexpr int unit = 2, whole = 2;

    HR_FN static constexpr int lower(int word) { return 1 - word; }

    template <int P, int32_t Least>
    HR_FN static void adjacent(const float* p, int n, Words (&parts)[P]) {
        VectorWords::adjacent<P, Least>(p, n, parts);
        for (int i = 0; i < P; ++i) parts[i] = swapped(parts[i], typename MakeIndices<W>::type{});
    }

  private:
    template <int... I>
    HR_FN static Words swapped(Words v, Indices<I...>) {
        return __builtin_shufflevector(v, v, (I ^ 1)...);
    }
};

#endif

// Makes the words of lines [k, k + unit), and passes them to put(word, parts).
template <class F, int P, int32_t Least, class Line, class G>
HR_FN void words_of_lines(const Line& line, int64_t k, const G& put) {
    for (int i = 0; i < F::unit / F::values; ++i) {
        Words parts[P];
        if constexpr (F::values == 2) {
            split_pair<P, Least>(line(k + F::lower(i)), line(k + F::upper(i)), parts);
        } else {
            split_values<P, Least>(line(k + F::lower(i)), parts);
        }
        put(k / F::values + i, parts);
    }
}

// ---- rows of small batches: [step][part][word] ----------------------------------------------------------------------

template <class F>
constexpr int step_words = bf16_step / F::values;

// The index of the first part of value k of a row; further parts follow at distances of step_words.
template <class F, int P>
HR_FN uint64_t row_place(uint64_t k) {
    return k / bf16_step * (P * step_words<F>)+k % bf16_step / F::values;
}

// Stores the words of a unit of values.
template <class F, int P>
HR_FN void store_unit(uint32_t* place, const float (&given)[F::unit]) {
    for (int word = 0; word < F::unit / F::values; ++word) {
        float lower = F::values == 2 ? given[F::lower(word)] : 0, upper = given[F::upper(word)];
        for (int i = 0; i < P; ++i) {
            const uint32_t low = bf16_rounded(lower), high = bf16_rounded(upper);
            place[word + i * step_words<F>] = low >> 16 | high;
            lower -= bit_cast<float>(low);
            upper -= bit_cast<float>(high);
        }
    }
}

// Stores the words of a vector of adjacent values.
template <class F, int P>
HR_FN void store_values(uint32_t* place, V x) {
    if constexpr (F::values == 2) {
        for (int i = 0; i < P; ++i) {
            const Halves halves = rounded_halves(x), words = F::in_order(halves);
            __builtin_memcpy(place + i * step_words<F>, &words, sizeof words);
            x -= widened(halves);
        }
    } else {
        Words parts[P];
        split_values<P, least_bf16_value>(x, parts);
        for (int i = 0; i < P; ++i) store_words(place + i * step_words<F>, parts[i]);
    }
}

}  // namespace
}  // namespace headrace
