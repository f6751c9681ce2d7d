// The two products of the backward pass, which read weights in the layout of the forward pass.
//
//   data:     X'[k][lanes] = sum_m W[m][k] Y'[m][lanes]
// Lanes are rows of the batch, and k counts adjacent weights of a row of W.
//
//   weights:  W'[m][lanes] = sum_b Y'[m][b] X[b][lanes]
// Lanes are inputs; X is stored in transposed panels [input / width][row][width].
#pragma once

#include "product-inl.hpp"

namespace headrace {
namespace {

template <class T>
struct DataArgs {
    const T* weights;     // first weight of the transform
    const uint32_t* row;  // offsets of the weights of units, from the first unit on
    int n_rows, column;
    const T* grad;  // gradients [unit][stride], from the first unit on
    T* output;      // gradients by inputs, [input][stride] from `column` on
    const T* gate;
    int64_t stride;
    Gate kind;
};

// Stores a sum as `kind` requires; `gate` is the derivative of the activation for Gate::multiply.
template <class T>
HR_FN void store_gated(Gate kind, Pack<T> sum, T* output, const T* gate) {
    const Pack<T> old = load(output);
    Pack<T> result = old + sum;
    if (kind == Gate::pass) result = sum;
    if (kind == Gate::relu) result = select(old <= T(0), Pack<T>{}, sum);  // a NaN in `old` gives NaN
    if (kind == Gate::multiply) result = sum * load(gate);
    store(output, result);
}

template <int M, int N, class T>
void data_block(const DataArgs<T>& a, int lane) {
    using V = Pack<T>;
    V sum[M][N] = {};
    const T* grad = a.grad + lane;
    for (int r = 0; r < a.n_rows; ++r, grad += a.stride) {
        const T* w = a.weights + a.row[r] + a.column;
        __builtin_prefetch(a.weights + a.row[r + 8 < a.n_rows ? r + 8 : r] + a.column);
        V g[N];
        for (int n = 0; n < N; ++n) g[n] = load(grad + n * width<T>);
        for (int m = 0; m < M; ++m) {
            const T weight = w[m];
            for (int n = 0; n < N; ++n) sum[m][n] += weight * g[n];
        }
    }
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) {
            const int64_t place = m * a.stride + lane + n * width<T>;
            store_gated(a.kind, sum[m][n], a.output + place, a.gate + place);
        }
}

template <class T>
HR_FN void data_product(DataArgs<T> a, int columns, int vectors) {
    while (columns > 0) {
        const int m = part(columns, block_units);
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, block_vectors);
            with_sizes<block_units, block_vectors>(m, n, [&]<int M, int N>() { data_block<M, N>(a, v * width<T>); });
            v += n;
        }
        columns -= m;
        a.column += m;
        a.output += m * a.stride;
        if (a.gate) a.gate += m * a.stride;
    }
}

template <class T>
struct WeightArgs {
    const T* grad;    // gradients [unit][height] on the first tile's tape
    const T* panels;  // inputs [input / width][height][width] on the first tile's tape
    int64_t size;     // distance of one tape from the next
    int height, rows;
    T* output;            // gradient of the transform's first weight
    const uint32_t* row;  // offsets of the weights of units
    int input;
    bool add;  // whether gradients are added to the present values
};

template <int M, int N, class T>
void weight_block(const WeightArgs<T>& a) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    V sum[M][N] = {};
    for (int m = 0; m < M; ++m)  // the output is not in L2, and is needed after the sums
        for (int n = 0; n < N; ++n) __builtin_prefetch(a.output + a.row[m] + a.input + n * W, 1);
    const T *grad = a.grad, *x = a.panels;
    const int64_t height = a.height;
    for (int left = a.rows; left > 0; left -= a.height, grad += a.size, x += a.size) {
        const int rows = left < a.height ? left : a.height;
        for (int64_t b = 0; b < rows; ++b) {
            V input[N];
            for (int n = 0; n < N; ++n) input[n] = load(x + (n * height + b) * W);
            for (int m = 0; m < M; ++m) {
                const T g = grad[m * height + b];
                for (int n = 0; n < N; ++n) sum[m][n] += g * input[n];
            }
        }
    }
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) {
            T* p = a.output + a.row[m] + a.input + n * W;
            store(p, a.add ? load(p) + sum[m][n] : sum[m][n]);
        }
}

// Keeps the first n lanes, and sets the other lanes to zero, even if they hold NaN.
template <class T>
HR_FN Pack<T> first_lanes(Pack<T> v, int n) {
    Int<Pack<T>> lane;
    for (int i = 0; i < width<T>; ++i) lane[i] = i;
    return select(lane < n, v, Pack<T>{});
}

// Computes the gradient of the biases of up to row_block units. Lanes of all units are summed together, because one
// unit after another would wait for additions.
template <class T>
void bias_sums(const WeightArgs<T>& a, int units, T* bias) {
    using V = Pack<T>;
    constexpr int W = width<T>, group = row_block < W ? row_block : W;
    for (int m0 = 0; m0 < units; m0 += group) {
        V sum[group] = {};
        for (int m = 0; m < group && m0 + m < units; ++m) {
            const T* grad = a.grad + (m0 + m) * int64_t(a.height);
            for (int left = a.rows; left > 0; left -= a.height, grad += a.size) {
                const int rows = left < a.height ? left : a.height, whole = rows / W * W;
                for (int i = 0; i < whole; i += W) sum[m] += load(grad + i);
                // Lanes after the last row are left out, because they may have overflowed.
                if (whole < rows) sum[m] += first_lanes<T>(load(grad + whole), rows - whole);
            }
        }
        T lanes[W];
        store(lanes, reduce_lanes<group, W>(sum));
        for (int m = 0; m < group && m0 + m < units; ++m) bias[m0 + m] = (a.add ? bias[m0 + m] : T(0)) + lanes[m];
    }
}

// Computes weight gradients of up to row_block units for any number of vectors of inputs.
template <class T>
HR_FN void weight_product(WeightArgs<T> a, int units, int vectors) {
    for (int u = 0; u < units;) {
        const int m = part(units - u, block_units);
        WeightArgs<T> b = a;
        b.grad += int64_t(u) * a.height;
        b.row += u;
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, block_vectors);
            with_sizes<block_units, block_vectors>(m, n, [&]<int M, int N>() { weight_block<M, N>(b); });
            b.panels += int64_t(n) * a.height * width<T>;
            b.input += n * width<T>;
            v += n;
        }
        u += m;
    }
}

}  // namespace
}  // namespace headrace
