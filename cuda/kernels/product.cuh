// Sums of products on a tile: lanes are rows, a warp computes several sums for each number that it loads, and the terms
// of a sum are split among warps where there are too few sums for all of them.
//
// A load of an input serves sums_at_once multiply-adds, one of four weights as many rows as a warp has and four terms:
// 8 + 4 loads for 32 multiply-adds of a warp, at one load and four multiply-adds a cycle.
#pragma once

#include "tile.cuh"

namespace headrace {
namespace {

// Terms [begin, end) of a sum.
struct Terms {
    int begin, end;
};

// `blocks` blocks of sums, each of up to sums_at_once. terms(b): those of block b; sum(b, terms, totals) adds them to
// the block's totals; finish(b, i, total) gets the total of its sum i, on the lanes of one warp. `longest`: terms of
// the longest block. What is summed in which order depends on the sizes and the team alone. The caller waits for the
// team before and after.
template <class T, class TermsOf, class Sum, class Finish>
__device__ void for_sums(const Team& team, T* partial, int blocks, int longest, const TermsOf& terms, const Sum& sum,
                         const Finish& finish) {
    if (blocks == 0) return;
    // A lane reads back its own numbers only, unless warps share a block.
    const auto part = [&](int warp, int i) -> T& { return partial[(warp * sums_at_once + i) * warp_rows + team.lane]; };
    const auto keep_sum = [&](int b, Terms some) {
        T total[sums_at_once] = {};
        sum(b, some, total);
#pragma unroll
        for (int i = 0; i < sums_at_once; ++i) part(team.warp, i) = total[i];
    };
    const int shares = smaller(team.warps / blocks, longest / least_terms);
    if (shares <= 1) {
        for (int first = 0; first < blocks; first += team.warps) {
            // Later blocks are longer: every other round goes the other way.
            const int b = first + (first / team.warps % 2 ? team.warps - 1 - team.warp : team.warp);
            if (b >= blocks) continue;
            keep_sum(b, terms(b));
#pragma unroll 1  // what finishes a sum is compiled once
            for (int i = 0; i < sums_at_once; ++i) finish(b, i, part(team.warp, i));
        }
        return;
    }
    if (const int b = team.warp / shares; b < blocks) {
        const Terms all = terms(b);
        const int share = ((all.end - all.begin + shares - 1) / shares + 3) / 4 * 4;
        const int begin = smaller(all.end, all.begin + team.warp % shares * share);
        keep_sum(b, Terms{begin, smaller(all.end, begin + share)});
    }
    team.sync();
#pragma unroll 1
    for (int n = team.warp; n < blocks * sums_at_once; n += team.warps) {
        const int b = n / sums_at_once, i = n % sums_at_once;
        T total = 0;
        for (int w = b * shares; w < (b + 1) * shares; ++w) total += part(w, i);
        finish(b, i, total);
    }
}

// Rows of a matrix times the lines of a tile: total[m] += sum over k of weights[row[m] + k] input[k]. Row m of n; where
// n < M the last one stands in for those that do not exist.
template <int M, class T, bool in_shared>
__device__ void add_row_products(const T* weights, const uint32_t* row, int n, const Lines<T, in_shared>& input,
                                 int lane, Terms terms, T (&total)[sums_at_once]) {
    uint32_t start[M];
#pragma unroll
    for (int m = 0; m < M; ++m) start[m] = row[smaller(m, n - 1)];
    int k = terms.begin;
    const auto one = [&] {
        const T x = input.at(k, lane);
#pragma unroll
        for (int m = 0; m < M; ++m) total[m] += weights[start[m] + k] * x;
        ++k;
    };
    while (k < terms.end && k % 4 != 0) one();
    for (; k + 4 <= terms.end; k += 4) {
        T x[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) x[i] = input.at(k + i, lane);
#pragma unroll
        for (int m = 0; m < M; ++m) {
            const Four<T> w = load_four(weights + start[m] + k);
#pragma unroll
            for (int i = 0; i < 4; ++i) total[m] += w.x[i] * x[i];
        }
    }
    while (k < terms.end) one();
}

template <class T, bool in_shared>
__device__ void add_row_products(const T* weights, const uint32_t* row, int n, const Lines<T, in_shared>& input,
                                 int lane, Terms terms, T (&total)[sums_at_once]) {
    if (n > 4) {
        add_row_products<8>(weights, row, n, input, lane, terms, total);
    } else if (n > 1) {
        add_row_products<4>(weights, row, n, input, lane, terms, total);
    } else if (n == 1) {
        add_row_products<1>(weights, row, n, input, lane, terms, total);
    }
}

// Columns of a matrix: total[m] += sum over rows r of weights[row[r] + column + m] grad[r], for n columns.
template <int M, class T, bool in_shared>
__device__ void add_column_products(const T* weights, const uint32_t* row, int column, int n,
                                    const Lines<T, in_shared>& grad, int lane, Terms terms, T (&total)[sums_at_once]) {
    for (int r = terms.begin; r < terms.end; ++r) {
        const T* w = weights + row[r] + column;
        const T g = grad.at(r, lane);
        if (M == sums_at_once && column % sums_at_once == 0) {  // rows are padded to more than that
#pragma unroll
            for (int m = 0; m < M; m += 4) {
                const Four<T> four = load_four(w + m);
#pragma unroll
                for (int i = 0; i < 4; ++i) total[m + i] += four.x[i] * g;
            }
        } else {
#pragma unroll
            for (int m = 0; m < M; ++m) total[m] += w[smaller(m, n - 1)] * g;
        }
    }
}

template <class T, bool in_shared>
__device__ void add_column_products(const T* weights, const uint32_t* row, int column, int n,
                                    const Lines<T, in_shared>& grad, int lane, Terms terms, T (&total)[sums_at_once]) {
    if (n > 4) {
        add_column_products<8>(weights, row, column, n, grad, lane, terms, total);
    } else if (n > 1) {
        add_column_products<4>(weights, row, column, n, grad, lane, terms, total);
    } else if (n == 1) {
        add_column_products<1>(weights, row, column, n, grad, lane, terms, total);
    }
}

}  // namespace
}  // namespace headrace
