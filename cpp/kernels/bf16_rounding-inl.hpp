// Inputs of the products in bf16 (bf16_products-inl.hpp), from values, gradients and weights in float32. P is the
// number of parts, Step the number of pairs that sums take at once (core/bf16.hpp).
#pragma once

#include "bf16_pairs-inl.hpp"
#include "transpose-inl.hpp"

namespace headrace {
namespace {

// ---- values and gradients -------------------------------------------------------------------------------------------

// Pairs of each two lines from pair j on; line(k, i) is element i of line k.
template <int P, class F>
HR_FN void store_lines(const F& line, int64_t stride, int64_t j, int vectors, uint32_t* pairs) {
    for (int64_t i = 0; i < int64_t(vectors) * W; i += W) {
        Pairs parts[P];
        split_pair<P>(line(2 * j, i), line(2 * j + 1, i), parts);
        for (int p = 0; p < P; ++p) store_pairs(pairs + (j * P + p) * stride + i, parts[p]);
    }
}

template <int P, int Step>
void round_lines(const float* lines, int64_t stride, int first, int end, int vectors, uint32_t* pairs) noexcept {
    const auto line = [&](int64_t k, int64_t i) { return k < end ? load(lines + k * stride + i) : V{}; };
    for (int64_t j = first; j % Step || 2 * j < end; ++j) store_lines<P>(line, stride, j, vectors, pairs);
}

template <int P, int Step>
void round_row(const float* numbers, int first, int end, uint32_t* pairs) noexcept {
    for (int k = 2 * first; k % (2 * Step) || k < end; k += 2) {
        for (; (P == 1 || k % W == 0) && k + W <= end; k += W)
            store_split<P>(pairs + row_place<P>(k / 2), load(numbers + k));
        if (k >= end && k % (2 * Step) == 0) return;
        float even = k < end ? numbers[k] : 0, odd = k + 1 < end ? numbers[k + 1] : 0;
        for (int i = 0; i < P; ++i) {
            const uint32_t low = bf16_rounded(even), high = bf16_rounded(odd);
            pairs[row_place<P>(k / 2) + i * pair_group] = low >> 16 | high;
            even -= bit_cast<float>(low);
            odd -= bit_cast<float>(high);
        }
    }
}

template <int P, int Step>
void round_gradients(const float* lines, int64_t stride, int first, int end, bool has_next, int vectors,
                     uint32_t* pairs) noexcept {
    const auto line = [&](int64_t k, int64_t i) {
        return k >= first && k < end + has_next ? load(lines + k * stride + i) : V{};
    };
    for (int64_t j = first / (2 * Step) * Step; 2 * j < end || (!has_next && j % Step); ++j)
        store_lines<P>(line, stride, j, vectors, pairs);
}

template <int P>
void row_pairs(const float* lines, int n, int64_t height, int rows, uint32_t* pairs) noexcept {
    for (int64_t m = 0; m < n; ++m)
        for (int r = 0; r < rows; r += 2 * W) {
            Pairs parts[P];
            split_adjacent<P, least_bf16_value>(lines + m * height + r, rows - r, parts);
            for (int i = 0; i < P; ++i) store_pairs(pairs + ((m * P + i) * height + r) / 2, parts[i]);
        }
}

// W lines of pairs, which parts_of_line(line, parts) gives, to W vectors across them, for each part.
template <int P, class F>
HR_FN void across(const F& parts_of_line, Pairs (&out)[P][W]) {
    V v[P][W];
    for (int i = 0; i < W; ++i) {
        Pairs parts[P];
        parts_of_line(i, parts);
        for (int p = 0; p < P; ++p) v[p][i] = bit_cast<V>(parts[p]);
    }
    for (int p = 0; p < P; ++p) {
        transpose(v[p]);
        for (int i = 0; i < W; ++i) out[p][i] = bit_cast<Pairs>(v[p][i]);
    }
}

// Values are rounded like weights, so that products with gradients are multiples of the same unit.
template <int P>
void pair_panels(const float* lines, int n, int64_t height, int rows, uint32_t* panels) noexcept {
    for (int64_t k = 0; k < n; k += W)
        for (int r = 0; r < rows; r += 2 * W) {
            Pairs v[P][W];
            across<P>(
                [&](int i, Pairs(&parts)[P]) {
                    const int count = k + i < n ? rows - r : 0;  // past the last line there are zeros
                    split_adjacent<P, least_bf16_weight>(lines + (k + i) * height + r, count, parts);
                },
                v);
            uint32_t* const place = panels + (k * height + r * W) / 2 * P;
            for (int p = 0; p < P; ++p)
                for (int i = 0; i < W; ++i) store_pairs(place + (i * P + p) * W, v[p][i]);
        }
}

// ---- weights --------------------------------------------------------------------------------------------------------

// W pairs of weights of a unit from pair j on; zero beyond the unit's inputs, and for units that do not exist.
template <int P>
HR_FN void unit_pairs(const Bf16Layer& a, int unit, int j, Pairs (&parts)[P]) {
    const int n = unit < a.out ? a.visible[unit] - 2 * j : 0;
    split_adjacent<P, least_bf16_weight>(a.weights + (n > 0 ? a.row[unit] + 2 * j : 0), n > 0 ? n : 0, parts);
}

// Likewise two units' weights of W inputs from k on.
template <int P>
HR_FN void column_pairs(const Bf16Layer& a, int unit, int k, Pairs (&parts)[P]) {
    const auto weights_of_unit = [&](int u) {
        const int n = u < a.out ? a.visible[u] - k : 0;
        return n > 0 ? load_up_to(a.weights + a.row[u] + k, n) : V{};
    };
    split_pair<P, least_bf16_weight>(weights_of_unit(unit), weights_of_unit(unit + 1), parts);
}

template <int P>
void round_weights(const Bf16Layer& a, uint32_t* pairs) noexcept {
    for (int b = 0; b * bf16_units < a.out; ++b) {
        uint32_t* const block = pairs + int64_t(P) * a.block[b];
        const int length = int(a.block[b + 1] - a.block[b]) / bf16_units;
        for (int u = 0; u < bf16_units; u += W)
            for (int j = 0; j < length; j += W) {
                Pairs v[P][W];
                across<P>([&](int i, Pairs(&parts)[P]) { unit_pairs<P>(a, b * bf16_units + u + i, j, parts); }, v);
                for (int p = 0; p < P; ++p)
                    for (int i = 0; i < W && j + i < length; ++i)
                        store_pairs(block + ((j + i) * P + p) * bf16_units + u, v[p][i]);
            }
    }
}

template <int P>
void round_columns(const Bf16Layer& a, uint32_t* pairs) noexcept {
    int first = 0;
    for (int k = 0; k < a.in; k += bf16_units) {
        while (first < a.out && a.visible[first] <= k) ++first;
        uint32_t* const block = pairs + P * a.back[k / bf16_units];
        for (int64_t j = first / 2; 2 * j < a.out; ++j)
            for (int i = 0; i < bf16_units; i += W) {
                Pairs parts[P];
                column_pairs<P>(a, int(2 * j), k + i, parts);
                for (int p = 0; p < P; ++p) store_pairs(block + (j * P + p) * bf16_units + i, parts[p]);
            }
    }
}

}  // namespace
}  // namespace headrace
