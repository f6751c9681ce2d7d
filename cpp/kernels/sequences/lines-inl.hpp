// Products and sums of the backward pass of a causal network, on the weights [input][unit] of the forward pass.
//
//   lines:  X'[m][positions] = sum over taps and k of  W[tap][m][k] Y'[k][positions + tap shift]
//           Lanes are positions.
//   sums:   W'[m][inputs] += sum over positions of  Y'[m][position] X[position][inputs]
//   Lanes are inputs; X is stored in panels [input / width][position][width].
#pragma once

#include "../product-inl.hpp"
#include "../register_block-inl.hpp"
#include "../transpose-inl.hpp"

namespace headrace {
namespace {

template <class T>
struct BackLines {
    const T* weights;
    int64_t unit, tap;   // distances of units and of taps; weights of a unit's inputs are adjacent
    const T* lines;      // lines of the first tap
    int64_t row, shift;  // distances of lines and of taps
    int inputs, taps;
    const T* start;  // lines of initial values of the sums; null: zeros
    const T* open;   // lines that, where they are not positive, set the result to zero; or null
    T* to;
    int64_t start_row, open_row, to_row;
};

template <int M, int N, class T>
void back_lines_block(const BackLines<T>& a, int64_t column) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    V sum[M][N] = {};
    if (a.start) for_sums<M, N>([&](int m, int n) { sum[m][n] = load(a.start + m * a.start_row + column + n * W); });
    const int64_t row = a.row;
    for (int64_t tap = 0; tap < a.taps; ++tap) {
        const T* w[M];
        for (int m = 0; m < M; ++m) w[m] = a.weights + tap * a.tap + m * a.unit;
        const T* x = a.lines + tap * a.shift + column;
        for (int64_t k = 0, end = a.inputs; k < end; ++k, x += row) {
            V input[N];
            for_sums<1, N>([&](int, int n) { input[n] = load(x + n * W); });
            for_sums<M, N>([&](int m, int n) { sum[m][n] += w[m][k] * input[n]; });
        }
    }
    if (a.open)
        for_sums<M, N>([&](int m, int n) {
            const V open = load(a.open + m * a.open_row + column + n * W);
            sum[m][n] = select(open <= T(0), V{}, sum[m][n]);  // a NaN in `open` keeps the result
        });
    for_sums<M, N>([&](int m, int n) { store(a.to + m * a.to_row + column + n * W, sum[m][n]); });
}

// Computes columns [column, column + vectors * width) for any number of units.
template <class T>
HR_FN void back_lines(BackLines<T> a, int units, int64_t column, int vectors) {
    while (units > 0) {
        const int m = part(units, block_units);
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, block_vectors);
            with_sizes<block_units, block_vectors>(
                m, n, [&]<int M, int N>() { back_lines_block<M, N>(a, column + v * width<T>); });
            v += n;
        }
        units -= m;
        a.weights += m * a.unit;
        a.to += m * a.to_row;
        if (a.start) a.start += m * a.start_row;
        if (a.open) a.open += m * a.open_row;
    }
}

// Copies `positions` columns of `units` lines, rounded up to whole vectors of columns, to panels of `height` positions;
// panels have `padded` lines, with zeros after the last.
template <class T>
HR_FN void lines_to_panels(const T* lines, int64_t stride, int units, int padded, int64_t positions, T* panels,
                           int64_t height) {
    constexpr int W = width<T>;
    using V = Pack<T>;
    for (int64_t k = 0; k < padded; k += W)
        for (int64_t t = 0; t < positions; t += W) {
            V v[W];
            for (int i = 0; i < W; ++i) v[i] = k + i < units ? load(lines + (k + i) * stride + t) : V{};
            transpose(v);
            for (int i = 0; i < W; ++i) store(panels + k * height + (t + i) * W, v[i]);
        }
}

template <class T>
struct SumsArgs {
    const T* gradient;  // gradients [unit][stride]
    int64_t stride;
    const T* panels;  // inputs [input / width][height][width]
    int64_t height;
    int64_t positions;
    T* sums;  // sums [unit][inputs]
    int64_t inputs;
};

template <int M, int N, class T>
void sums_block(const SumsArgs<T>& a) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    V sum[M][N] = {};
    const T *g = a.gradient, *x = a.panels;
    const int64_t stride = a.stride, height = a.height;
    for (int64_t t = 0; t < a.positions; ++t) {
        V input[N];
        for_sums<1, N>([&](int, int n) { input[n] = load(x + (n * height + t) * W); });
        for_sums<M, N>([&](int m, int n) { sum[m][n] += g[m * stride + t] * input[n]; });
    }
    for_sums<M, N>([&](int m, int n) {
        T* p = a.sums + m * a.inputs + n * W;
        store(p, load(p) + sum[m][n]);
    });
}

constexpr int summed_positions = 192;  // number of positions for which a block's gradients and inputs stay in L1

// Computes sums for any number of units, by whole vectors of inputs.
template <class T>
HR_FN void sums_product(const SumsArgs<T>& all, int units) {
    for (int64_t t = 0; t < all.positions; t += summed_positions) {
        SumsArgs<T> a = all;
        a.positions = all.positions - t < summed_positions ? all.positions - t : summed_positions;
        const int vectors = int(all.inputs / width<T>);
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, block_vectors);
            a.panels = all.panels + (v * all.height + t) * width<T>;
            for (int u = 0; u < units;) {
                const int m = part(units - u, block_units);
                a.gradient = all.gradient + u * all.stride + t;
                a.sums = all.sums + u * all.inputs + v * width<T>;
                with_sizes<block_units, block_vectors>(m, n, [&]<int M, int N>() { sums_block<M, N>(a); });
                u += m;
            }
            v += n;
        }
    }
}

// The sum over whole vectors of positions of a line, and of the product of two lines.
template <class T>
HR_FN T line_sum(const T* x, int vectors) {
    Pack<T> sum{};
    for (int v = 0; v < vectors; ++v) sum += load(x + v * width<T>);
    return reduce_add(sum);
}

template <class T>
HR_FN T lines_dot(const T* x, const T* y, int vectors) {
    Pack<T> sum{};
    for (int v = 0; v < vectors; ++v) sum += load(x + v * width<T>) * load(y + v * width<T>);
    return reduce_add(sum);
}

}  // namespace
}  // namespace headrace
