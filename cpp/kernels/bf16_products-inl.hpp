// Products of pairs, added to sums by bf16_pairs-inl.hpp: of tiles (lanes are rows), of small batches (lanes are
// units), and of the backward pass. P is the number of parts (core/bf16.hpp).
#pragma once

#include "../core/views.hpp"
#include "../math/activations.hpp"
#include "bf16_pairs-inl.hpp"
#include "gradient_product-inl.hpp"

namespace headrace {
namespace {

// The first part of a unit's first pair; the next one is P * bf16_units on.
template <int P>
HR_FN const uint32_t* weights_of(const uint32_t* weights, const uint32_t* block, int unit) {
    return weights + int64_t(P) * block[unit / bf16_units] + unit % bf16_units;
}

// ---- tiles ----------------------------------------------------------------------------------------------------------

// Pairs [pair0, pair1) of each weight by lines of pairs, added to sums.
template <int P, int M, int N>
HR_FN void add_products(V (&sum)[M][N], const uint32_t* const* weights, const uint32_t* lines, int64_t stride,
                        int64_t pair0, int64_t pair1) {
    const uint32_t* x = lines + pair0 * P * stride;
    for (int64_t j = pair0; j < pair1; ++j, x += P * stride) {
        Factors<P> input[N];
        for (int n = 0; n < N; ++n) input[n] = Factors<P>([&](int i) { return load_pairs(x + i * stride + n * W); });
        for (int m = 0; m < M; ++m) {
            const uint32_t* const w = weights[m] + j * P * bf16_units;
            const Factors<P> weight([&](int i) { return splat_pair(w + i * bf16_units); });
            for (int n = 0; n < N; ++n) sum[m][n] = dot(sum[m][n], weight, input[n]);
        }
    }
}

template <int P, int M, int N>
void pair_block(const Bf16Product& a, const uint32_t* const* weights, float* y, const float* bias, int column) {
    V sum[M][N];
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) sum[m][n] = a.from_zero ? V{} : load(y + m * a.stride + n * W);
    add_products<P, M, N>(sum, weights, a.input + column, a.stride, a.pair0, a.pair1);
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) {
            if (bias) sum[m][n] += bias[m];
            if (a.relu) sum[m][n] = max(sum[m][n], 0.0f);
            store(y + m * a.stride + n * W, sum[m][n]);
        }
}

template <int P>
void pair_product(const Bf16Product& a, int vectors) noexcept {
    const uint32_t* weights[dot_units];
    for (int done = 0; done < a.units;) {
        const int units = part(a.units - done, dot_units);
        for (int m = 0; m < units; ++m) weights[m] = weights_of<P>(a.weights, a.block, a.unit + done + m);
        float* const y = a.output + done * a.stride;
        const float* const bias = a.bias ? a.bias + done : nullptr;
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, dot_vectors<P>);
            with_sizes<dot_units, dot_vectors<P>>(
                units, n, [&]<int M, int N>() { pair_block<P, M, N>(a, weights, y + v * W, bias, v * W); });
            v += n;
        }
        done += units;
    }
}

// ---- small batches: lanes are units ---------------------------------------------------------------------------------

constexpr int block_vectors_of = bf16_units / W;  // vectors of a block
constexpr int most_blocks = 8 / block_vectors_of > 0 ? 8 / block_vectors_of : 1;
template <int P>
constexpr int most_rows = HR_VECTOR_BYTES < 64 ? 1
                          : P < 3              ? 3
                                               : 2;

HR_FN int pairs_of(const uint32_t* block, int i) {
    return int(block[i + 1] - block[i]) / bf16_units;
}

// Of W units the weights of a pair, and that pair of a row.
template <int P>
HR_FN Factors<P> unit_weights(const uint32_t* weights, int64_t pair, int unit) {
    return Factors<P>([&](int i) { return load_pairs(weights + (pair * P + i) * bf16_units + unit); });
}

template <int P>
HR_FN Factors<P> row_pair(const uint32_t* row, int64_t pair) {
    return Factors<P>([&](int i) { return splat_pair(row + row_place<P>(pair) + i * pair_group); });
}

// Blocks are no shorter than those before: each rise adds pairs to all from First on.
template <int P, int First, int B, int R>
HR_FN void rise(const Bf16Sums& a, const uint32_t* const* weights, const uint32_t* x, int begin,
                V (&sum)[R][B][block_vectors_of], int first) {
    const int length = pairs_of(a.block, first + First), end = length < a.pair1 ? length : a.pair1;
    for (int64_t j = begin; j < end; ++j)
        for (int b = First; b < B; ++b)
            for (int q = 0; q < block_vectors_of; ++q) {
                const Factors<P> weight = unit_weights<P>(weights[b], j, q * W);
                for (int r = 0; r < R; ++r) sum[r][b][q] = dot(sum[r][b][q], weight, row_pair<P>(x + r * a.stride, j));
            }
    if constexpr (First + 1 < B) rise<P, First + 1, B, R>(a, weights, x, end > begin ? end : begin, sum, first);
}

template <int P, int B, int R>
void add_blocks(const Bf16Sums& a, int first, int row) {
    V sum[R][B][block_vectors_of];
    const uint32_t* weights[B];
    float* const sums = a.sums + row * a.stride + first * bf16_units;
    for (int b = 0; b < B; ++b) weights[b] = a.weights + int64_t(P) * a.block[first + b];
    for (int r = 0; r < R; ++r)
        for (int b = 0; b < B; ++b)
            for (int q = 0; q < block_vectors_of; ++q)
                sum[r][b][q] = load(sums + r * a.stride + b * bf16_units + q * W);
    rise<P, 0, B, R>(a, weights, a.input + row * a.stride, a.pair0, sum, first);
    for (int r = 0; r < R; ++r)
        for (int b = 0; b < B; ++b)
            for (int q = 0; q < block_vectors_of; ++q)
                store(sums + r * a.stride + b * bf16_units + q * W, sum[r][b][q]);
}

// N pairs to all blocks, which have them all.
template <int P, int N>
void add_pairs_unrolled(const Bf16Sums& a) {
    for (int r = 0; r < a.rows; ++r) {
        Factors<P> x[N];
        for (int j = 0; j < N; ++j) x[j] = row_pair<P>(a.input + r * a.stride, a.pair0 + j);
        float* const sums = a.sums + r * a.stride;
        for (int b = a.first; b < a.end; ++b) {
            const uint32_t* const weights = a.weights + int64_t(P) * a.block[b];
            for (int q = 0; q < block_vectors_of; ++q) {
                float* const place = sums + b * bf16_units + q * W;
                V sum = load(place);
                for (int j = 0; j < N; ++j) sum = dot(sum, unit_weights<P>(weights, a.pair0 + j, q * W), x[j]);
                store(place, sum);
            }
        }
    }
}

constexpr int most_unrolled_pairs = 4;

template <int P>
void add_pairs(const Bf16Sums& a) noexcept {
    const int n = a.pair1 - a.pair0;
    if (n <= 0) return;
    if (n <= most_unrolled_pairs && pairs_of(a.block, a.first) >= a.pair1)  // the contribution of a narrow level
        return with_sizes<most_unrolled_pairs, 1>(n, 1, [&]<int N, int>() { add_pairs_unrolled<P, N>(a); });
    for (int first = a.first; first < a.end;) {
        const int blocks = part(a.end - first, most_blocks);
        for (int row = 0; row < a.rows;) {
            const int rows = part(a.rows - row, most_rows<P>);
            with_sizes<most_blocks, most_rows<P>>(blocks, rows,
                                                  [&]<int B, int R>() { add_blocks<P, B, R>(a, first, row); });
            row += rows;
        }
        first += blocks;
    }
}

// Adds pairs [pair0, pair1) to the sums of a vector of a row's units; returns the sums with the later pairs and the
// bias.
template <int P>
HR_FN V finished(const Bf16Ends& a, int pair0, int64_t row, int unit) {
    const uint32_t *const weights = weights_of<P>(a.add.weights, a.add.block, unit), *const x = a.add.input + row;
    const int length = pairs_of(a.add.block, unit / bf16_units);
    float* const place = a.add.sums + row + unit;
    V sum = load(place);
    const auto add = [&](int first, int end) {
        for (int64_t j = first; j < (length < end ? length : end); ++j)
            sum = dot(sum, unit_weights<P>(weights, j, 0), row_pair<P>(x, j));
    };
    if (pair0 < a.add.pair1) {
        add(pair0, a.add.pair1);
        store(place, sum);
    }
    add(a.add.pair1, a.pair_end);
    return sum + load(a.bias + unit);
}

// A vector of units of a row whose sums are complete.
template <int P, class A>
HR_FN void settle_vector(const Bf16Ends& a, int64_t row, int u, V sum) {
    const V value = A::value(sum);
    if (a.product != a.value) store(a.product + row + u, sum);
    store(a.value + row + u, value);
    if (a.pairs) store_split<P>(a.pairs + row + row_place<P>(u / 2), value);
}

// Terms are still added to some of a vector's units, in place.
HR_FN void settle_alone(const Bf16Ends& a, int64_t row, int u, V sum) {
    float lanes[W];
    store(lanes, sum);
    const int low = a.unit > u ? a.unit - u : 0, high = a.end - u < W ? a.end - u : W;
    if (low < high) __builtin_memcpy(a.product + row + u + low, lanes + low, (high - low) * sizeof(float));
}

// settle(row, unit, sums) for each vector of units of each row.
template <int P, class F>
HR_FN void finish_blocks(const Bf16Ends& a, int pair0, const F& settle) {
    for (int r = 0; r < a.add.rows; ++r) {
        const int64_t row = r * a.add.stride;
        for (int u = a.add.first * bf16_units; u < a.add.end * bf16_units; u += W)
            settle(row, u, finished<P>(a, pair0, row, u));
    }
}

// The arguments are not copied, because they were just written in small parts, for which a vector load would wait.
template <int P>
void finish_units(const Bf16Ends& a) noexcept {
    int pair0 = a.add.pair0;
    if (a.add.pair1 - pair0 > most_unrolled_pairs) {
        add_pairs<P>(a.add);
        pair0 = a.add.pair1;
    }
    if (a.alone) return finish_blocks<P>(a, pair0, [&](int64_t row, int u, V sum) { settle_alone(a, row, u, sum); });
    with_activation(a.activation, [&]<class A>() {
        finish_blocks<P>(a, pair0, [&](int64_t row, int u, V sum) { settle_vector<P, A>(a, row, u, sum); });
    });
}

// ---- back -----------------------------------------------------------------------------------------------------------

template <int P, int M, int N>
void column_block(const Bf16Columns& a, const uint32_t* const* weights, int64_t line, int lane) {
    V sum[M][N] = {};
    add_products<P, M, N>(sum, weights, a.grad + lane, a.stride, a.pair0, a.pair1);
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) {
            const int64_t place = (line + m) * a.stride + lane + n * W;
            store_gated(a.kind, sum[m][n], a.output + place, a.gate + place);
        }
}

template <int P>
void column_product(const Bf16Columns& a, int vectors) noexcept {
    const uint32_t* weights[dot_units];
    for (int done = 0; done < a.columns;) {
        const int columns = part(a.columns - done, dot_units);
        for (int m = 0; m < columns; ++m) {
            const int k = a.column + done + m;
            weights[m] = a.weights + P * a.back[k / bf16_units] + k % bf16_units;
        }
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, dot_vectors<P>);
            with_sizes<dot_units, dot_vectors<P>>(
                columns, n, [&]<int M, int N>() { column_block<P, M, N>(a, weights, done, v * W); });
            v += n;
        }
        done += columns;
    }
}

template <int P, int M, int N>
void weight_pairs(const Bf16Weights& a) {
    V sum[M][N] = {};
    for (int m = 0; m < M; ++m)  // they lie beyond L2, and are due once the sums are done
        for (int n = 0; n < N; ++n) __builtin_prefetch(a.output + a.row[m] + a.input + n * W, 1);
    const uint32_t *grad = a.grad, *x = a.panels;
    const int64_t half = a.height / 2;
    for (int left = a.rows; left > 0; left -= a.height, grad += a.size, x += a.size) {
        const int64_t pairs = left < a.height ? (left + 1) / 2 : half;
        for (int64_t b = 0; b < pairs; ++b) {
            Factors<P> input[N];
            for (int n = 0; n < N; ++n)
                input[n] = Factors<P>([&](int i) { return load_pairs(x + ((n * half + b) * P + i) * W); });
            for (int m = 0; m < M; ++m) {
                const Factors<P> g([&](int i) { return splat_pair(grad + (m * P + i) * half + b); });
                for (int n = 0; n < N; ++n) sum[m][n] = dot(sum[m][n], input[n], g);
            }
        }
    }
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) {
            float* p = a.output + a.row[m] + a.input + n * W;
            store(p, a.add ? load(p) + sum[m][n] : sum[m][n]);
        }
}

template <int P>
void weight_pair_product(const Bf16Weights& a, int units, int vectors) noexcept {
    for (int u = 0; u < units;) {
        const int m = part(units - u, dot_units);
        Bf16Weights b = a;
        b.grad += int64_t(u) * P * a.height / 2;
        b.row += u;
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, dot_vectors<P>);
            with_sizes<dot_units, dot_vectors<P>>(m, n, [&]<int M, int N>() { weight_pairs<P, M, N>(b); });
            b.panels += int64_t(n) * P * a.height / 2 * W;
            b.input += n * W;
            v += n;
        }
        u += m;
    }
}

}  // namespace
}  // namespace headrace
