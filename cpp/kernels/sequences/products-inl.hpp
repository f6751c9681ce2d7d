// The products of causal networks with weights [input][unit]: by lines, with lanes of positions or streams, and by
// units, with lanes of units. Both kinds of products add the terms of a sum in the order of taps and inputs, and so
// give the same bits.
#pragma once

#include "../../core/sequences/calls.hpp"
#include "../product-inl.hpp"
#include "../register_block-inl.hpp"

namespace headrace {
namespace {

// to[unit][lane] = start + sum over taps and inputs of weights[tap][input][unit] x[tap][input][lane], + add[unit][lane]
template <class T>
struct LineProduct {
    const T* weights;
    int64_t stride;  // distance of the weights of adjacent inputs
    int taps, inputs;
    const T* x[most_causal_taps];
    int64_t row;     // distance of the lanes of adjacent inputs
    const T* start;  // a value for each unit, or lines that are start_row apart; null: zeros
    int64_t start_row = 0;
    T* to;
    int64_t to_row;
    const T* add = nullptr;
    int64_t add_row = 0;
    bool relu = false;
};

template <int U, int N, class T>
void line_block(const LineProduct<T>& a, int unit, int lane) {
    using V = Pack<T>;
    V sum[U][N] = {};
    if (a.start && a.start_row) {
        const T* const start = a.start + unit * a.start_row + lane;
        for_sums<U, N>([&](int u, int n) { sum[u][n] = load(start + u * a.start_row + n * width<T>); });
    } else if (a.start) {
        for_sums<U, N>([&](int u, int n) { sum[u][n] = splat<V>(a.start[unit + u]); });
    }
    const int64_t row = a.row, stride = a.stride;
    const T* w = a.weights + unit;
    for (int tap = 0; tap < a.taps; ++tap) {
        const T* x = a.x[tap] + lane;
        for (int i = 0; i < a.inputs; ++i, x += row, w += stride) {
            V input[N];
            for_sums<1, N>([&](int, int n) { input[n] = load(x + n * width<T>); });
            for_sums<U, N>([&](int u, int n) { sum[u][n] += w[u] * input[n]; });
        }
    }
    if (a.add) {
        const T* const add = a.add + unit * a.add_row + lane;
        for_sums<U, N>([&](int u, int n) { sum[u][n] = load(add + u * a.add_row + n * width<T>) + sum[u][n]; });
    }
    if (a.relu) for_sums<U, N>([&](int u, int n) { sum[u][n] = max(sum[u][n], T(0)); });
    T* const to = a.to + unit * a.to_row + lane;
    for_sums<U, N>([&](int u, int n) { store(to + u * a.to_row + n * width<T>, sum[u][n]); });
}

// Computes any number of units, rounded up to half a block, for any number of vectors of lanes.
template <class T>
HR_FN void line_product(const LineProduct<T>& a, int units, int vectors) {
    constexpr int half = block_units / 2;
    for (int v = 0; v < vectors;) {
        const int n = part(vectors - v, block_vectors), lane = v * width<T>;
        with_sizes<1, block_vectors>(1, n, [&]<int, int N>() {
            int u = 0;
            for (; units - u > half; u += block_units) line_block<block_units, N>(a, u, lane);
            if (u < units) line_block<half, N>(a, u, lane);
        });
        v += n;
    }
}

// to[row][unit] = start[row] + sum over taps and inputs of weights[tap][input][unit] x[tap][row][input], +
// to[row][unit]. Rows are streams, or steps of one stream. Weight is T, or uint32_t for pairs in bf16
// (steps/causal.hpp).
template <class T, class Weight = T>
struct UnitProduct {
    const Weight* weights;
    int64_t stride;  // distance of the weights of adjacent inputs, or pairs of inputs
    int taps = 1, inputs, rows = 1;
    const T* x[most_causal_taps][most_unit_rows];
    const T* start[most_unit_rows];  // initial values of sums; null (for all rows): zeros
    T* to[most_unit_rows];
    bool adds = false, relu = false;
};

// Adds the products of a tap's inputs to the sums, and returns the weights of the next tap.
template <int R, int N, class T>
HR_FN const T* add_inputs(Pack<T> (&sum)[R][N], const T* w, int64_t stride, const T* const* x, int64_t inputs) {
    for (int64_t i = 0; i < inputs; ++i, w += stride) {
        Pack<T> weight[N];
        for_sums<1, N>([&](int, int n) { weight[n] = load(w + n * width<T>); });
        for_sums<R, N>([&](int r, int n) { sum[r][n] += x[r][i] * weight[n]; });
    }
    return w;
}

// Adds the products of a tap's inputs with pairs in bf16, each of whose weights is the upper half of a float32.
template <int R, int N>
HR_FN const uint32_t* add_inputs(PackF (&sum)[R][N], const uint32_t* w, int64_t stride, const float* const* x,
                                 int64_t inputs) {
    for (int64_t i = 0; i < inputs; i += 2, w += stride) {
        PackU32 pair[N];
        for_sums<1, N>([&](int, int n) { __builtin_memcpy(&pair[n], w + n * width<float>, sizeof pair[n]); });
        for_sums<R, N>([&](int r, int n) { sum[r][n] += x[r][i] * bit_cast<PackF>(pair[n] << 16); });
        if (i + 1 == inputs) return w + stride;
        for_sums<R, N>([&](int r, int n) { sum[r][n] += x[r][i + 1] * bit_cast<PackF>(pair[n] & 0xffff0000u); });
    }
    return w;
}

template <int R, int N, class T, class Weight>
void unit_block(const UnitProduct<T, Weight>& a, int row, int unit) {
    Pack<T> sum[R][N] = {};
    if (a.start[row]) for_sums<R, N>([&](int r, int n) { sum[r][n] = load(a.start[row + r] + unit + n * width<T>); });
    const Weight* w = a.weights + unit;
    for (int tap = 0; tap < a.taps; ++tap) {
        const T* x[R];
        for (int r = 0; r < R; ++r) x[r] = a.x[tap][row + r];
        w = add_inputs<R, N>(sum, w, a.stride, x, a.inputs);
    }
    if (a.adds)
        for_sums<R, N>([&](int r, int n) { sum[r][n] = load(a.to[row + r] + unit + n * width<T>) + sum[r][n]; });
    if (a.relu) for_sums<R, N>([&](int r, int n) { sum[r][n] = max(sum[r][n], T(0)); });
    for_sums<R, N>([&](int r, int n) { store(a.to[row + r] + unit + n * width<T>, sum[r][n]); });
}

// Computes R rows and N vectors of units at a time, and the remaining units by blocks of half as many vectors.
template <int R, int N, class T, class Weight>
HR_FN void unit_blocks(const UnitProduct<T, Weight>& a, int row, int unit, int units) {
    for (; unit + N * width<T> <= units; unit += N * width<T>) unit_block<R, N>(a, row, unit);
    if constexpr (N > 1) unit_blocks<R, N / 2>(a, row, unit, units);
}

template <int R, class T, class Weight>
HR_FN void unit_rows(const UnitProduct<T, Weight>& a, int row, int units) {
    if constexpr (R == block_units) {
        for (int v = 0, vectors = units / width<T>; v < vectors;) {
            const int n = part(vectors - v, block_vectors);
            with_sizes<1, block_vectors>(1, n, [&]<int, int N>() { unit_block<R, N>(a, row, v * width<T>); });
            v += n;
        }
    } else {
        unit_blocks<R, R == 1 ? 8 : 4>(a, row, 0, units);
    }
}

// Computes units, padded to whole vectors.
template <class T, class Weight>
HR_FN void unit_product(const UnitProduct<T, Weight>& a, int units) {
    int row = 0;
    for (; row + block_units <= a.rows; row += block_units) unit_rows<block_units>(a, row, units);
    if constexpr (block_units > 4)
        if (row + 4 <= a.rows) unit_rows<4>(a, row, units), row += 4;
    if (row + 2 <= a.rows) unit_rows<2>(a, row, units), row += 2;
    if (row < a.rows) unit_rows<1>(a, row, units);
}

}  // namespace
}  // namespace headrace
