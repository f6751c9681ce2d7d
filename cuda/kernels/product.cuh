// Sums of products on a tile: lanes are rows, a warp computes several sums for each number that it loads, and the terms
// of a sum are split among warps where there are too few sums for all of them.
//
// A load of an input serves sums_at_once multiply-adds, one of four weights as many rows as a warp has and four terms:
// 8 + 4 loads for 32 multiply-adds of a warp, at one load and four multiply-adds a cycle. Tensor cores want another
// number in each lane, so that eight terms are 8 loads of inputs and 2 of weights for 64 multiply-adds.
#pragma once

#include <type_traits>

#include "../include/tensor_cores.cuh"
#include "tile.cuh"

namespace headrace {
namespace {

// Terms [begin, end) of a sum.
struct Terms {
    int begin, end;
};

// A warp's sums over a part of the terms, [sum][row], until the lane of a row takes them: its own, or in TF32 what
// other lanes kept for it.
template <class T>
struct PartialSums {
    T* p;
    int lane;

    __device__ void keep(const T (&total)[sums_at_once]) const {
#pragma unroll
        for (int i = 0; i < sums_at_once; ++i) p[i * sum_line + lane] = total[i];
    }
};

// `blocks` blocks of sums, each of up to sums_at_once. terms(b): those of block b; sum(b, terms, partial) keeps the
// block's sums over them; finish(b, i, total) gets the total of its sum i, on the lanes of one warp. `longest`: terms
// of the longest block. What is summed in which order depends on the sizes and the team alone. The caller waits for the
// team before and after.
//
// A block is one warp's, or that of several with a share of the terms each. Both go through the same code: sum and
// finish are called at one place, as each holds all kinds of products or all activations.
template <class T, class TermsOf, class Sum, class Finish>
__device__ void for_sums(const Team& team, T* partial, int blocks, int longest, const TermsOf& terms, const Sum& sum,
                         const Finish& finish) {
    const PartialSums<T> own{partial + team.warp * sums_at_once * sum_line, team.lane};
    const auto part = [&](int warp, int i) { return partial[(warp * sums_at_once + i) * sum_line + team.lane]; };
    const int shares = blocks == 0 ? 1 : larger(1, smaller(team.warps / blocks, longest / least_terms));
#pragma unroll 1
    for (int first = 0; first < blocks; first += team.warps) {  // one round where there are shares
        // Later blocks are longer: every other round goes the other way.
        const int b =
            shares > 1 ? team.warp / shares : first + (first / team.warps % 2 ? team.warps - 1 - team.warp : team.warp);
        if (b < blocks) {
            const Terms all = terms(b);
            int share = all.end - all.begin, begin = all.begin;
            if (shares > 1) {
                share = ((share + shares - 1) / shares + 7) / 8 * 8;
                begin = smaller(all.end, begin + team.warp % shares * share);
            }
            sum(b, Terms{begin, smaller(all.end, begin + share)}, own);
        }
        if (shares > 1) team.sync();
        // Of a warp's own block all sums, of shared ones one in so many.
        const int end = shares > 1 ? blocks * sums_at_once : b < blocks ? sums_at_once : 0;
#pragma unroll 1
        for (int n = shares > 1 ? team.warp : 0; n < end; n += shares > 1 ? team.warps : 1) {
            const int block = shares > 1 ? n / sums_at_once : b, i = n % sums_at_once;
            const int begin = shares > 1 ? block * shares : team.warp;
            T total = part(begin, i);
            for (int w = begin + 1; w < begin + shares; ++w) total += part(w, i);
            finish(block, i, total);
        }
    }
}

// Rows of a matrix times the lines of a tile: total[m] += sum over k of weights[row[m] + k] input[k]. Row m of n; where
// n < M the last one stands in for those that do not exist.
template <int M, class T, bool in_shared>
__device__ void add_row_products(const T* weights, const uint32_t* row, int n, const Lines<T, in_shared>& input,
                                 int lane, Terms terms, T (&total)[sums_at_once]) {
    // By pointers that advance, as 64-bit addresses made anew would be half of the loop's instructions.
    const T* w[M];
    int k = terms.begin;
#pragma unroll
    for (int m = 0; m < M; ++m) w[m] = weights + row[smaller(m, n - 1)] + k;
    const T* x_at = &input.at(k, lane);
    const auto one = [&] {
        const T x = *x_at;
        x_at += line_size<in_shared>;
#pragma unroll
        for (int m = 0; m < M; ++m) total[m] += *w[m]++ * x;
        ++k;
    };
#pragma unroll 1  // at most three terms: a copy of the code for each is not worth its place in the cache
    while (k < terms.end && k % 4 != 0) one();
#pragma unroll 2
    for (; k + 4 <= terms.end; k += 4) {
        T x[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) x[i] = x_at[i * line_size<in_shared>];
        x_at += 4 * line_size<in_shared>;
#pragma unroll
        for (int m = 0; m < M; ++m) {
            const Four<T> four = load_four(w[m]);
            w[m] += 4;
#pragma unroll
            for (int i = 0; i < 4; ++i) total[m] += four.x[i] * x[i];
        }
    }
#pragma unroll 1
    while (k < terms.end) one();
}

template <class T, bool in_shared>
__device__ void sum_row_products(const T* weights, const uint32_t* row, int n, const Lines<T, in_shared>& input,
                                 Terms terms, const PartialSums<T>& partial) {
    T total[sums_at_once] = {};
    if (n > 4) {
        add_row_products<8>(weights, row, n, input, partial.lane, terms, total);
    } else if (n > 1) {
        add_row_products<4>(weights, row, n, input, partial.lane, terms, total);
    } else if (n == 1) {
        add_row_products<1>(weights, row, n, input, partial.lane, terms, total);
    }
    partial.keep(total);
}

// Columns of a matrix: total[m] += sum over rows r of weights[row[r] + column + m] grad[r], for n columns.
template <int M, class T, bool in_shared>
__device__ void add_column_products(const T* weights, const uint32_t* row, int column, int n,
                                    const Lines<T, in_shared>& grad, int lane, Terms terms, T (&total)[sums_at_once]) {
    int r = terms.begin;
    if constexpr (M == sums_at_once) {
        const bool whole = column % sums_at_once == 0;  // rows are padded to more than that
        for (; whole && r + rows_ahead <= terms.end; r += rows_ahead) {
            // All loads before any product: those of a row wait for its offset, and rows do not wait for each other.
            Four<T> w[rows_ahead][M / 4];
            T g[rows_ahead];
#pragma unroll
            for (int a = 0; a < rows_ahead; ++a) {
                const T* const at = weights + row[r + a] + column;
                g[a] = grad.at(r + a, lane);
#pragma unroll
                for (int m = 0; m < M / 4; ++m) w[a][m] = load_four(at + 4 * m);
            }
#pragma unroll
            for (int a = 0; a < rows_ahead; ++a)
#pragma unroll
                for (int m = 0; m < M; ++m) total[m] += w[a][m / 4].x[m % 4] * g[a];
        }
    }
#pragma unroll 1
    for (; r < terms.end; ++r) {
        const T* const w = weights + row[r] + column;
        const T g = grad.at(r, lane);
#pragma unroll
        for (int m = 0; m < M; ++m) total[m] += w[smaller(m, n - 1)] * g;
    }
}

template <class T, bool in_shared>
__device__ void sum_column_products(const T* weights, const uint32_t* row, int column, int n,
                                    const Lines<T, in_shared>& grad, Terms terms, const PartialSums<T>& partial) {
    T total[sums_at_once] = {};
    if (n > 4) {
        add_column_products<8>(weights, row, column, n, grad, partial.lane, terms, total);
    } else if (n > 1) {
        add_column_products<4>(weights, row, column, n, grad, partial.lane, terms, total);
    } else if (n == 1) {
        add_column_products<1>(weights, row, column, n, grad, partial.lane, terms, total);
    }
    partial.keep(total);
}

// ---- on tensor cores ------------------------------------------------------------------------------------------------
//
// Rows of the tile are rows of the left matrix, sums are columns of the right one. Two products of 16 rows make the
// tile, and lane 4 g + t has rows 4 g + i, i < 4, so that what a warp loads from shared memory lies in 32 banks.
// PTX wants all lanes of a warp at a product together: nothing here branches by lane.

// Four rows of a line. In shared memory lines are of 33 numbers, which no address of 16 bytes keeps up with.
template <bool in_shared>
__device__ Four<float> load_rows(const Lines<float, in_shared>& lines, int line, int row) {
    const float* const p = &lines.at(line, row);
    if constexpr (!in_shared) return load_four(p);
    return {p[0], p[1], p[2], p[3]};
}

// Eight terms from k on. Those from `end` on are zero, and not read; `whole`: there are none. `rounded`: the input is
// in TF32 as it was stored. weight(k): of this lane's sum.
template <bool whole, bool rounded, bool in_shared, class Weight>
__device__ void add_eight_terms(const Lines<float, in_shared>& input, const Weight& weight, int lane, int k, int end,
                                float (&total)[2][4]) {
    uint32_t a[2][4], b[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int term = k + 4 * h + lane % 4, read = whole ? term : smaller(term, end - 1);
        const bool is_term = whole || term < end;
        const Four<float> x = load_rows(input, read, lane / 4 * 4);
        b[h] = is_term ? to_tf32(weight(read)) : 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i / 2][2 * h + i % 2] = is_term ? rounded ? bits_of(x.x[i]) : to_tf32(x.x[i]) : 0;
    }
    add_product(a[0], b, total[0]);
    add_product(a[1], b, total[1]);
}

template <bool rounded, bool in_shared, class Weight>
__device__ void sum_on_tensor_cores(const Lines<float, in_shared>& input, const Weight& weight, Terms terms,
                                    const PartialSums<float>& partial) {
    float total[2][4] = {};
    int k = terms.begin;
    __syncwarp();  // lanes come from what finished the sums before, and may be reading them
#pragma unroll 2
    for (; k + 8 <= terms.end; k += 8) add_eight_terms<true, rounded>(input, weight, partial.lane, k, terms.end, total);
    if (k < terms.end) add_eight_terms<false, rounded>(input, weight, partial.lane, k, terms.end, total);
    const int g = partial.lane / 4, t = partial.lane % 4;
#pragma unroll
    for (int j = 0; j < 2; ++j)
        *reinterpret_cast<Four<float>*>(partial.p + (2 * t + j) * sum_line + 4 * g) = {total[0][j], total[0][2 + j],
                                                                                       total[1][j], total[1][2 + j]};
    __syncwarp();
}

// ---- either way -----------------------------------------------------------------------------------------------------

// Whether products are on tensor cores, and whether what they read is rounded already; all threads of a launch agree.
struct Products {
    bool tf32, rounded;
};

// Products of a network. One kernel has all kinds, as everything else of it is the same.
template <class T, bool in_shared>
__device__ void sum_unit_products(const Products& kind, const T* weights, const uint32_t* row, int n,
                                  const Lines<T, in_shared>& input, Terms terms, const PartialSums<T>& partial) {
    if constexpr (std::is_same_v<T, float>) {
        if (kind.tf32) {
            const T* const own = weights + row[smaller(partial.lane / 4, n - 1)];
            const auto weight = [&](int k) { return own[k]; };
            if (kind.rounded) return sum_on_tensor_cores<true>(input, weight, terms, partial);
            return sum_on_tensor_cores<false>(input, weight, terms, partial);
        }
    }
    sum_row_products(weights, row, n, input, terms, partial);
}

template <class T, bool in_shared>
__device__ void sum_input_products(bool tf32, const T* weights, const uint32_t* row, int column, int n,
                                   const Lines<T, in_shared>& grad, Terms terms, const PartialSums<T>& partial) {
    if constexpr (std::is_same_v<T, float>) {
        if (tf32) {
            const T* const own = weights + column + smaller(partial.lane / 4, n - 1);
            sum_on_tensor_cores<false>(grad, [&](int r) { return own[row[r]]; }, terms, partial);
            return;
        }
    }
    sum_column_products(weights, row, column, n, grad, terms, partial);
}

}  // namespace
}  // namespace headrace
