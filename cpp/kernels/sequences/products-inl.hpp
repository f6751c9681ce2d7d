// The products of causal networks on weights [input][unit]: by lines, whose lanes are positions or streams, and by
// units, whose lanes are these. Every sum is one chain from its start over taps and inputs, so both have the same bits.
#pragma once

#include "../../core/sequences/calls.hpp"
#include "../product-inl.hpp"

namespace headrace {
namespace {

// to[unit][lane] = start + sum over taps and inputs of weights[tap][input][unit] x[tap][input][lane], + add[unit][lane]
template <class T>
struct LineProduct {
    const T* weights;
    int64_t stride;  // of an input's weights
    int taps, inputs;
    const T* x[most_causal_taps];
    int64_t row;     // of an input's lanes
    const T* start;  // of each unit; or lines, start_row apart; null: zero
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
    V sum[U][N];
    for (int u = 0; u < U; ++u)
        for (int n = 0; n < N; ++n)
            sum[u][n] = !a.start      ? V{}
                        : a.start_row ? load(a.start + (unit + u) * a.start_row + lane + n * width<T>)
                                      : splat<V>(a.start[unit + u]);
    const int64_t row = a.row, stride = a.stride;
    const T* w = a.weights + unit;
    for (int tap = 0; tap < a.taps; ++tap) {
        const T* x = a.x[tap] + lane;
        for (int i = 0; i < a.inputs; ++i, x += row, w += stride) {
            V input[N];
            for (int n = 0; n < N; ++n) input[n] = load(x + n * width<T>);
            for (int u = 0; u < U; ++u) {
                const T weight = w[u];
                for (int n = 0; n < N; ++n) sum[u][n] += weight * input[n];
            }
        }
    }
    for (int u = 0; u < U; ++u)
        for (int n = 0; n < N; ++n) {
            const int64_t at = lane + n * width<T>;
            V value = sum[u][n];
            if (a.add) value = load(a.add + (unit + u) * a.add_row + at) + value;
            if (a.relu) value = max(value, T(0));
            store(a.to + (unit + u) * a.to_row + at, value);
        }
}

// Any number of units, which are rounded up to half a block, and any number of vectors of lanes.
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

// to[unit] = start + sum over taps and inputs of weights[tap][input][unit] x[tap][input], + add[unit]
template <class T>
struct UnitProduct {
    const T* weights;
    int64_t stride;
    int taps, inputs;
    const T* x[most_causal_taps];
    const T* start;
    T* to;
    const T* add = nullptr;
    bool relu = false;
};

template <int N, class T>
void unit_block(const UnitProduct<T>& a, int unit) {
    using V = Pack<T>;
    V sum[N];
    for (int n = 0; n < N; ++n) sum[n] = a.start ? load(a.start + unit + n * width<T>) : V{};
    const T* w = a.weights + unit;
    const int64_t stride = a.stride;
    for (int tap = 0; tap < a.taps; ++tap) {
        const T* const x = a.x[tap];
        for (int i = 0; i < a.inputs; ++i, w += stride) {
            const T input = x[i];
            for (int n = 0; n < N; ++n) sum[n] += input * load(w + n * width<T>);
        }
    }
    for (int n = 0; n < N; ++n) {
        V value = sum[n];
        if (a.add) value = load(a.add + unit + n * width<T>) + value;
        if (a.relu) value = max(value, T(0));
        store(a.to + unit + n * width<T>, value);
    }
}

// Padded units: whole vectors.
template <class T>
HR_FN void unit_product(const UnitProduct<T>& a, int units) {
    int u = 0;
    for (; u + 8 * width<T> <= units; u += 8 * width<T>) unit_block<8>(a, u);
    if (u + 4 * width<T> <= units) unit_block<4>(a, u), u += 4 * width<T>;
    if (u + 2 * width<T> <= units) unit_block<2>(a, u), u += 2 * width<T>;
    if (u < units) unit_block<1>(a, u);
}

// The same sums without the newest tap, for several steps at once: lines of the steps start as their sums do.
template <class T>
struct AheadProduct {
    const T* weights;
    int64_t stride;
    int taps, inputs;
    const T* x[most_causal_taps][causal_ahead];
    T* to;
    int64_t to_row;
};

template <int S, int N, class T>
void ahead_block(const AheadProduct<T>& a, int step, int unit) {
    using V = Pack<T>;
    V sum[S][N];
    T* const to = a.to + step * a.to_row + unit;
    for (int s = 0; s < S; ++s)
        for (int n = 0; n < N; ++n) sum[s][n] = load(to + s * a.to_row + n * width<T>);
    const T* w = a.weights + unit;
    const int64_t stride = a.stride;
    for (int tap = 0; tap < a.taps; ++tap) {
        const T* x[S];
        for (int s = 0; s < S; ++s) x[s] = a.x[tap][step + s];
        for (int64_t i = 0; i < a.inputs; ++i, w += stride) {
            V weight[N];
            for (int n = 0; n < N; ++n) weight[n] = load(w + n * width<T>);
            for (int s = 0; s < S; ++s) {
                const T input = x[s][i];
                for (int n = 0; n < N; ++n) sum[s][n] += input * weight[n];
            }
        }
    }
    for (int s = 0; s < S; ++s)
        for (int n = 0; n < N; ++n) store(to + s * a.to_row + n * width<T>, sum[s][n]);
}

template <class T>
HR_FN void ahead_product(const AheadProduct<T>& a, int units) {
    for (int v = 0, vectors = units / width<T>; v < vectors;) {
        const int n = part(vectors - v, block_vectors);
        with_sizes<1, block_vectors>(1, n, [&]<int, int N>() {
            for (int s = 0; s < causal_ahead; s += block_units) ahead_block<block_units, N>(a, s, v * width<T>);
        });
        v += n;
    }
}

}  // namespace
}  // namespace headrace
