// Conversion of values, gradients and weights in float32 to factors of the products in bf16 (bf16_products-inl.hpp). P
// is the number of parts, F the format of words (bf16_pairs-inl.hpp).
#pragma once

#include "bf16_pairs-inl.hpp"
#include "transpose-inl.hpp"

namespace headrace {
namespace {

// ---- values and gradients -------------------------------------------------------------------------------------------

// Stores the words of lines [first, end), from the start of the first line's unit; line(k, i) is element i of line k.
template <class F, int P, class Line>
HR_FN void store_lines(const Line& line, int64_t stride, int64_t first, int64_t end, int vectors, uint32_t* words) {
    for (int64_t k = first / F::unit * F::unit; k < end; k += F::unit)
        for (int64_t i = 0; i < int64_t(vectors) * W; i += W)
            words_of_lines<F, P, least_bf16_value>(
                [&](int64_t l) { return line(l, i); }, k,
                [&](int64_t word, const Words(&parts)[P]) {
                    for (int p = 0; p < P; ++p)
                        store_words(words + F::template line_place<P>(word, p, stride, i), parts[p]);
                });
}

HR_FN int64_t up_to_whole(int64_t n, int whole) {
    return (n + whole - 1) / whole * whole;
}

template <class F, int P>
void round_lines(const float* lines, int64_t stride, int first, int end, int vectors, uint32_t* words) noexcept {
    const auto line = [&](int64_t k, int64_t i) { return k < end ? load(lines + k * stride + i) : V{}; };
    store_lines<F, P>(line, stride, first, up_to_whole(end, F::whole), vectors, words);
}

template <class F, int P>
void round_gradients(const float* lines, int64_t stride, int first, int end, int live, int vectors,
                     uint32_t* words) noexcept {
    const auto line = [&](int64_t k, int64_t i) { return k >= first && k < live ? load(lines + k * stride + i) : V{}; };
    store_lines<F, P>(line, stride, first / F::whole * F::whole, end < live ? end : up_to_whole(live, F::whole),
                      vectors, words);
}

template <class F, int P>
void round_row(const float* values, int first, int end, uint32_t* words) noexcept {
    for (int k = first / F::unit * F::unit; k < end;) {
        uint32_t* const place = words + row_place<F, P>(k);
        if ((P == 1 || k % W == 0) && k + W <= end) {
            store_values<F, P>(place, load(values + k));
            k += W;
        } else {
            float given[F::unit];
            for (int i = 0; i < F::unit; ++i) given[i] = k + i < end ? values[k + i] : 0;
            store_unit<F, P>(place, given);
            k += F::unit;
        }
    }
}

template <class F, int P>
void row_words_of(const float* lines, int n, int64_t height, int rows, uint32_t* words) noexcept {
    for (int64_t m = 0; m < n; ++m)
        for (int r = 0; r < rows; r += F::values * W) {
            Words parts[P];
            F::template adjacent<P, least_bf16_value>(lines + m * height + r, rows - r, parts);
            for (int i = 0; i < P; ++i) store_words(words + ((m * P + i) * height + r) / F::values, parts[i]);
        }
}

// Transposes W lines of words, which parts_of_line(line, parts) returns, to W vectors across the lines, for each part.
template <int P, class Line>
HR_FN void across(const Line& parts_of_line, Words (&out)[P][W]) {
    V v[P][W];
    for (int i = 0; i < W; ++i) {
        Words parts[P];
        parts_of_line(i, parts);
        for (int p = 0; p < P; ++p) v[p][i] = bit_cast<V>(parts[p]);
    }
    for (int p = 0; p < P; ++p) {
        transpose(v[p]);
        for (int i = 0; i < W; ++i) out[p][i] = bit_cast<Words>(v[p][i]);
    }
}

// Stores panels of values for the gradient of weights. Values are rounded with the limit of weights, so that all
// products with gradients are multiples of 2^-124.
template <class F, int P>
void word_panels(const float* lines, int n, int64_t height, int rows, uint32_t* panels) noexcept {
    for (int64_t k = 0; k < n; k += W)
        for (int r = 0; r < rows; r += F::values * W) {
            Words v[P][W];
            across<P>(
                [&](int i, Words(&parts)[P]) {
                    const int count = k + i < n ? rows - r : 0;  // zeros after the last line
                    F::template adjacent<P, least_bf16_weight>(lines + (k + i) * height + r, count, parts);
                },
                v);
            uint32_t* const place = panels + (k * height + r * W) / F::values * P;
            for (int p = 0; p < P; ++p)
                for (int i = 0; i < W; ++i) store_words(place + (i * P + p) * W, v[p][i]);
        }
}

// ---- weights --------------------------------------------------------------------------------------------------------

// W words of a unit's weights from input k on, with zeros beyond the unit's inputs, and for units that do not exist.
template <class F, int P>
HR_FN void unit_words(const Bf16Layer& a, int unit, int k, Words (&parts)[P]) {
    const int n = unit < a.out ? a.visible[unit] - k : 0;
    F::template adjacent<P, least_bf16_weight>(a.weights + (n > 0 ? a.row[unit] + k : 0), n > 0 ? n : 0, parts);
}

// Words of the weights of W inputs from k on, for units [unit, unit + F::unit).
template <class F, int P, class G>
HR_FN void column_words(const Bf16Layer& a, int unit, int k, const G& put) {
    const auto weights_of_unit = [&](int64_t u) {
        const int n = u < a.out ? a.visible[u] - k : 0;
        return n > 0 ? load_up_to(a.weights + a.row[u] + k, n) : V{};
    };
    words_of_lines<F, P, least_bf16_weight>(weights_of_unit, unit, put);
}

template <class F, int P>
void round_weights(const Bf16Layer& a, uint32_t* words) noexcept {
    for (int b = 0; b * bf16_units < a.out; ++b) {
        uint32_t* const block = words + int64_t(P) * a.block[b] * (2 / F::values);
        const int length = int(a.block[b + 1] - a.block[b]) / bf16_units * (2 / F::values);
        for (int u = 0; u < bf16_units; u += W)
            for (int j = 0; j < length; j += W) {
                Words v[P][W];
                across<P>(
                    [&](int i, Words(&parts)[P]) { unit_words<F, P>(a, b * bf16_units + u + i, j * F::values, parts); },
                    v);
                for (int p = 0; p < P; ++p)
                    for (int i = 0; i < W && j + i < length; ++i)
                        store_words(block + ((j + i) * P + p) * bf16_units + u, v[p][i]);
            }
    }
}

// Rounds weights for the backward pass, whose sums add `Step` units at once.
template <class F, int P, int Step>
void round_columns(const Bf16Layer& a, uint32_t* words) noexcept {
    int first = 0;
    for (int k = 0; k < a.in; k += bf16_units) {
        while (first < a.out && a.visible[first] <= k) ++first;
        uint32_t* const block = words + P * a.back[k / bf16_units] * (2 / F::values);
        for (int unit = first / Step * Step; unit < up_to_whole(a.out, Step); unit += F::unit)
            for (int i = 0; i < bf16_units; i += W)
                column_words<F, P>(a, unit, k + i, [&](int64_t word, const Words(&parts)[P]) {
                    for (int p = 0; p < P; ++p) store_words(block + (word * P + p) * bf16_units + i, parts[p]);
                });
    }
}

}  // namespace
}  // namespace headrace
