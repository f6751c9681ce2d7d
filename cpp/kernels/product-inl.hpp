// The two kernels of products, which share a layout of weights: each row is contiguous over its inputs.
//
//   tile:  lanes are rows of the batch. Y[m][lanes] += W[m][k] X[k][lanes], M units x N vectors in registers.
//   small: lanes are inputs. y[m] = sum_k W[m][k] x[k], for R rows of the batch at once, reduced at the end.
#pragma once

#include "../core/views.hpp"
#include "../math/pack.hpp"
#include "register_block-inl.hpp"

namespace headrace {
namespace {

// The size of a register block: 8 x 3 sums, 3 inputs and a broadcast value fit in the 32 registers of AVX-512 and NEON,
// and 4 x 3 sums fit in 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int block_units = 8, block_vectors = 3;
#else
constexpr int block_units = 4, block_vectors = 3;
#endif

template <class T>
struct ProductArgs {
    const T* weights;     // first weight of the transform
    const uint32_t* row;  // offsets of the weights of units, from the first unit on
    int k0, k1;
    const T* input;  // inputs [k][stride] of the tile
    T* output;       // results [m][stride]
    int64_t stride;
    const T* bias;  // biases; null: sums start from the output
    bool relu;
};

template <int M, int N, class T>
void tile_block(const ProductArgs<T>& a, int column) {
    using V = Pack<T>;
    V sum[M][N];
    T* const y = a.output + column;
    if (a.bias) {
        for_sums<M, N>([&](int m, int n) { sum[m][n] = splat<V>(a.bias[m]); });
    } else {
        for_sums<M, N>([&](int m, int n) { sum[m][n] = load(y + m * a.stride + n * width<T>); });
    }
    const T* w[M];
    for (int m = 0; m < M; ++m) w[m] = a.weights + a.row[m];
    const T* x = a.input + a.k0 * a.stride + column;
    const int64_t stride = a.stride;
    for (int64_t k = a.k0, end = a.k1; k < end; ++k, x += stride) {
        V input[N];
        for_sums<1, N>([&](int, int n) { input[n] = load(x + n * width<T>); });
        for_sums<M, N>([&](int m, int n) { sum[m][n] += w[m][k] * input[n]; });
    }
    if (a.relu) for_sums<M, N>([&](int m, int n) { sum[m][n] = max(sum[m][n], T(0)); });
    for_sums<M, N>([&](int m, int n) { store(y + m * a.stride + n * width<T>, sum[m][n]); });
}

// Calls f with run-time sizes m <= M and n <= N as template arguments.
template <int M, int N, class F>
HR_FN void with_sizes(int m, int n, F&& f) {
    if constexpr (M > 1)
        if (m < M) return with_sizes<M - 1, N>(m, n, f);
    if constexpr (N > 1)
        if (n < N) return with_sizes<M, N - 1>(m, n, f);
    f.template operator()<M, N>();
}

template <class T>
using TileBlock = void (*)(const ProductArgs<T>&, int);

template <class T, int N>
constexpr TileBlock<T> tile_blocks_of[8] = {
    tile_block<1, N, T>,
    tile_block<2, N, T>,
    tile_block<3, N, T>,
    tile_block<4, N, T>,
    tile_block < block_units == 8 ? 5 : 1,
    N,
    T >,
    tile_block < block_units == 8 ? 6 : 1,
    N,
    T >
    , tile_block < block_units == 8 ? 7 : 1, N, T >, tile_block < block_units == 8 ? 8 : 1, N, T > };

template <class T>
constexpr const TileBlock<T>* tile_blocks[block_vectors] = {tile_blocks_of<T, 1>, tile_blocks_of<T, 2>,
                                                            tile_blocks_of<T, 3>};

// The size of the first part if n elements are divided as equally as possible into the fewest parts of at most `most`
// elements: 4 vectors are 2 + 2, not 3 + 1.
HR_FN int part(int n, int most) {
    const int parts = (n + most - 1) / most;
    return (n + parts - 1) / parts;
}

// Computes any number of units up to row_block, for any number of vectors.
template <class T>
HR_FN void tile_product(ProductArgs<T> a, int units, int vectors) {
    while (units > 0) {
        const int m = part(units, block_units);
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, block_vectors);
            tile_blocks<T>[n - 1][m - 1](a, v* width<T>);
            v += n;
        }
        units -= m;
        a.row += m;
        a.output += m * a.stride;
        if (a.bias) a.bias += m;
    }
}

// Multiplies by a block diagonal matrix: block i maps lines [first[i], first[i + 1]) to the same lines of the output.
// `bias` has a value for each line.
template <class T>
HR_FN void block_product(const T* matrix, const uint32_t* row, const int* first, int blocks, const T* bias,
                         const T* input, T* output, int64_t stride, int vectors) {
    for (int i = 0; i < blocks; ++i) {
        const int begin = first[i], size = first[i + 1] - begin;
        ProductArgs<T> a;
        a.weights = matrix;
        a.row = row + begin;
        a.k0 = 0;
        a.k1 = size;
        a.input = input + begin * stride;
        a.output = output + begin * stride;
        a.stride = stride;
        a.bias = bias + begin;
        a.relu = false;
        tile_product(a, size, vectors);
    }
}

// ---- small batches ------------------------------------------------------------------------------------------------

// Folds groups of `Group` lanes of a and b that are to be summed. The result has twice as many groups of half the size:
// groups of a, then groups of b.
template <int Group, class V, int... I>
HR_FN V fold_pair(V a, V b, Indices<I...>) {
    constexpr int W = Lane<V>::width, H = Group / 2;
    constexpr auto place = [](int i) { return i / (W / 2) * W + i % (W / 2) / H * Group + i % (W / 2) % H; };
    return __builtin_shufflevector(a, b, place(I)...) + __builtin_shufflevector(a, b, (place(I) + H)...);
}

// The sums of the lanes of M vectors, in the first M lanes of one vector; M is a power of two and at most the width.
template <int M, int Group, class V>
HR_FN V reduce_lanes(V* v) {
    using All = typename MakeIndices<Lane<V>::width>::type;
    if constexpr (M > 1) {
        for (int m = 0; m < M / 2; ++m) v[m] = fold_pair<Group>(v[2 * m], v[2 * m + 1], All{});
        return reduce_lanes<M / 2, Group / 2>(v);
    } else if constexpr (Group > 1) {
        v[0] = fold_pair<Group>(v[0], v[0], All{});
        return reduce_lanes<1, Group / 2>(v);
    } else {
        return v[0];
    }
}

// Units and rows of a register block. There are four units, not eight, because the sequential direction waits for the
// reduction of each block.
constexpr int small_units = 4, small_rows = HR_VECTOR_BYTES == 64 ? 3 : 2;

// Computes a block of M units for R rows, `stride` apart. Inputs and weights are read up to a whole vector beyond k1,
// where weights are zero and inputs finite; biases are read in whole vectors, because weight vectors end in padding.
template <int M, int R, class T>
void small_block(const ProductArgs<T>& a, int first) {
    using V = Pack<T>;
    constexpr int rounded = M > 4 ? 8 : M > 2 ? 4 : M, group = rounded < width<T> ? rounded : width<T>;
    V sum[R][M] = {};
    const T* w[M];
    for (int m = 0; m < M; ++m) w[m] = a.weights + a.row[m];
    const T* x = a.input + first * a.stride;
    for (int64_t k = 0; k < a.k1; k += width<T>) {
        V input[R];
        for (int r = 0; r < R; ++r) input[r] = load(x + r * a.stride + k);
        for (int m = 0; m < M; ++m) {
            const V weight = load(w[m] + k);
            for (int r = 0; r < R; ++r) sum[r][m] += weight * input[r];
        }
    }
    for (int r = 0; r < R; ++r) {
        T* y = a.output + (first + r) * a.stride;
        for (int g = 0; g < M; g += group) {
            V v[group];
            for (int m = 0; m < group; ++m) v[m] = g + m < M ? sum[r][g + m] : V{};
            V total = reduce_lanes<group, width<T>>(v) + load(a.bias + g);
            if (a.relu) total = max(total, T(0));  // no branch, which would be mispredicted
            T lanes[width<T>];
            store(lanes, total);
            __builtin_memcpy(y + g, lanes, (M - g < group ? M - g : group) * sizeof(T));
        }
    }
}

template <class T>
HR_FN void small_product(ProductArgs<T> a, int units, int rows) {
    while (units > 0) {
        const int m = part(units, small_units);
        for (int r = 0; r < rows;) {
            const int n = part(rows - r, small_rows);
            with_sizes<small_units, small_rows>(m, n, [&]<int M, int R>() { small_block<M, R>(a, r); });
            r += n;
        }
        units -= m;
        a.row += m;
        a.output += m;
        a.bias += m;
    }
}

}  // namespace
}  // namespace headrace
