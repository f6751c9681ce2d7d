// Sums of products on a tile. Lanes are rows, a warp computes several sums for each loaded value, and warps divide the
// terms of a sum if there are too few sums for all warps. A load of an input serves sums_at_once multiply-adds, and a
// load of four weights serves four terms of all rows: 12 loads for 32 multiply-adds, where a cycle allows one load and
// four multiply-adds. Tensor cores need a value for each lane: 16 terms of 16 sums take 18 loads for 256 multiply-adds.
#pragma once

#include <type_traits>

#include "../host/device_chain.hpp"
#include "../include/tensor_cores.cuh"
#include "tile.cuh"

namespace headrace {
namespace {

// The terms [begin, end) of a sum.
struct Terms {
    int begin, end;
};

// Memory [sum][row] of a warp's sums over a part of the terms, which the lane of a row reads: sums that this lane
// stored, or in TF32 sums that other lanes stored.
template <class T>
struct PartialSums {
    T* p;
    int lane;

    __device__ void keep(const T (&total)[sums_at_once]) const {
#pragma unroll
        for (int i = 0; i < sums_at_once; ++i) p[i * sum_line + lane] = total[i];
    }
};

// The division of blocks of sums among warps: the number of blocks that a warp computes at once, and the multiple of
// terms in a share. `together` lets the lanes of a warp work together on a narrow tile, where warps are otherwise
// small. Without shares, one warp computes each sum, in one order of terms. The first `taken` warps have further work.
struct Rounds {
    int at_once = 1, terms = 8;
    bool together = false, has_shares = true;
    int taken = 0;
};

// Sums [first, first + count) of a block, or of several consecutive blocks.
struct BlockPart {
    int block, first, count;
};

// The number of sums of a block that a warp finishes at once: inputs that they share are read once, and no sum waits
// for another.
constexpr int finished_at_once = 4;
static_assert(sums_at_once % (2 * finished_at_once) == 0);  // half a block is a multiple of finished_at_once

template <class T>
struct NothingAside {
    __device__ void operator()(int, int, T (&)[finished_at_once]) const {}
};

// Computes `blocks` blocks, each of up to sums_at_once sums. terms(b) are the terms of block b; no block has fewer
// terms than the blocks before. sum(part, terms, partial) computes the sums of the blocks that a warp takes at once,
// over the terms of the last of these blocks; it keeps the sums of the first block, and stores others so that aside(b,
// i, total) finds sums i, ... of block b. finish(b, i, total) receives finished_at_once totals, of which some may not
// exist, on the lanes of one warp. `longest` is the number of terms of the longest block. The order of additions
// depends only on sizes. The caller waits for the team before and after.
//
// A block is computed by one warp, or by several warps, each with a share of the terms, or, if a narrow tile has too
// few blocks for its many warps, by two warps, each with half of the sums. Small warps that work together compute
// several blocks at once, and each finishes one block. The code calls `sum` and `finish` at one place each, because
// they contain all kinds of products and all activations.
template <class T, class TermsOf, class Sum, class Finish, class Aside = NothingAside<T>>
__device__ void for_sums(const Team& team, T* partial, int blocks, int longest, const TermsOf& terms, const Sum& sum,
                         const Finish& finish, const Rounds& rounds = {}, const Aside& aside = {}) {
    const PartialSums<T> own{partial + team.warp * sums_at_once * sum_line, team.lane};
    const int shares =
        blocks == 0 || !rounds.has_shares ? 1 : larger(1, smaller(team.sum_warps() / blocks, longest / least_terms));
    const bool together = team.is_narrow() && rounds.together;
    const int halves = team.is_narrow() && !together && 2 * blocks * shares <= team.warps ? 2 : 1;
    const int of_part = sums_at_once / halves, parts = together ? narrow_warps : halves, own_part = team.warp % parts;
    const int takers = team.warps / parts, place = team.warp / parts, first_sum = together ? 0 : own_part * of_part;
    const int taker = place < rounds.taken ? place - rounds.taken + takers : place - rounds.taken;
    const int of_round = takers * rounds.at_once;
    bool turned = false;  // later blocks are longer, so that every second round has the opposite order
#pragma unroll 1
    for (int first = 0; first < blocks; first += of_round, turned = !turned) {  // a single round where terms are shared
        const int turn = turned ? takers - 1 - taker : taker;
        const int b = shares > 1 ? taker / shares : first + turn * rounds.at_once;
        if (b < blocks) {
            const Terms all = terms(smaller(b + rounds.at_once, blocks) - 1);
            int share = all.end - all.begin, begin = all.begin;
            if (shares > 1) {
                share = ((share + shares - 1) / shares + rounds.terms - 1) / rounds.terms * rounds.terms;
                begin = smaller(all.end, begin + taker % shares * share);
            }
            sum(BlockPart{b, first_sum, of_part * rounds.at_once}, Terms{begin, smaller(all.end, begin + share)}, own);
        }
        if (shares > 1) team.sync();
        // The warp finishes all sums of blocks that it has computed alone, or a share of the sums of all blocks.
        const int of_warp = smaller(rounds.at_once, larger(0, blocks - b));
        const int own_block = b + (together ? own_part : 0), own_blocks = together ? int(own_part < of_warp) : of_warp;
        const int end = shares > 1 ? sums_at_once * blocks : of_part * own_blocks;
        const int step = finished_at_once * (shares > 1 ? team.warps : 1);
#pragma unroll 1
        for (int n = shares > 1 ? finished_at_once * team.warp : 0; n < end; n += step) {
            const int block = (shares > 1 ? 0 : own_block) + n / sums_at_once, i = n % sums_at_once;
            const int of = i * halves / sums_at_once, kept = i - of * of_part;  // half of a block; index in the half
            const int begin = shares > 1 ? block * shares * parts + of : team.warp;
            const T* part = partial + (begin * sums_at_once + kept) * sum_line + team.lane;
            T total[finished_at_once] = {};
            if (shares == 1 && n >= sums_at_once) {
                aside(block, i, total);
            } else {
#pragma unroll
                for (int j = 0; j < finished_at_once; ++j) total[j] = part[j * sum_line];
            }
#pragma unroll 1
            for (int w = 1; w < shares; ++w) {
                part += parts * sums_at_once * sum_line;
#pragma unroll
                for (int j = 0; j < finished_at_once; ++j) total[j] += part[j * sum_line];
            }
            finish(block, shares > 1 ? i : first_sum + i, total);
        }
    }
}

// Multiplies rows of a matrix by the lines of a tile: total[m] += sum over k of weights[row[m] + k] input[k], for m <
// n. If n < M, the last row is used in place of rows that do not exist.
template <int M, class T, bool in_shared>
__device__ void add_row_products(const T* weights, const uint32_t* row, int n, const Lines<T, in_shared>& input,
                                 int lane, Terms terms, T (&total)[sums_at_once]) {
    // Pointers advance, because computing 64-bit addresses would be half of the loop's instructions.
    const T* w[M];
    int k = terms.begin;
#pragma unroll
    for (int m = 0; m < M; ++m) w[m] = weights + row[smaller(m, n - 1)] + k;
    const T* x_at = &input.at(k, lane);
    const auto one = [&] {
        const T x = *x_at;
        x_at += line_size<in_shared>;
#pragma unroll
        for (int m = 0; m < M; ++m) total[m] = fma(*w[m]++, x, total[m]);
        ++k;
    };
#pragma unroll 1  // not unrolled: at most three terms precede a multiple of four
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
            for (int i = 0; i < 4; ++i) total[m] = fma(four.x[i], x[i], total[m]);
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

// Multiplies n columns of a matrix by gradients: total[m] += sum over r of weights[row[r] + column + m] grad[r].
template <int M, class T, bool in_shared>
__device__ void add_column_products(const T* weights, const uint32_t* row, int column, int n,
                                    const Lines<T, in_shared>& grad, int lane, Terms terms, T (&total)[sums_at_once]) {
    int r = terms.begin;
    if constexpr (M >= 4) {
        const bool whole = column % M == 0;  // rows are padded at least to the next multiple of M
        for (; whole && r + rows_ahead <= terms.end; r += rows_ahead) {
            // The loads of all rows come before products: each row's loads wait for its offset, but not for other rows.
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
                for (int m = 0; m < M; ++m) total[m] = fma(w[a][m / 4].x[m % 4], g[a], total[m]);
        }
    }
#pragma unroll 1
    for (; r < terms.end; ++r) {
        const T* const w = weights + row[r] + column;
        const T g = grad.at(r, lane);
#pragma unroll
        for (int m = 0; m < M; ++m) total[m] = fma(w[smaller(m, n - 1)], g, total[m]);
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
// Rows of the tile are rows of the left matrix, and sums are columns of the right matrix; two products of 16 rows make
// the tile. The order of terms is free: lane 4 g + t takes the four adjacent terms 4 t, ... of sixteen, so that one
// load of 16 bytes reads a sum's weights, without conversion. A float32 is split into its two factors when it is
// loaded, because stored factors would take 8 bytes a weight, and weights wait for the L2 cache.
//
// Sums of eight terms are added in float32, rounded to nearest, because tensor cores round toward zero, and over a long
// sum that error would be far larger than float32's. Of the three products, the two small ones are added first. PTX
// requires that all lanes of a warp execute a product together, so that no branch here depends on the lane.

// The row of the tile that is row q of the four rows of lanes 4 g to 4 g + 3. A warp loads either from all 32 banks of
// shared memory, because a line has one value more than there are banks, or 16 bytes a lane from global memory.
template <bool in_shared>
__device__ int row_of_lanes(int g, int q) {
    return in_shared ? g % 4 + 16 * (g / 4) + 4 * q : 4 * g + q;
}

// Loads four rows of a line.
template <bool in_shared>
__device__ Four<float> load_rows(const Lines<float, in_shared>& lines, int line, int g) {
    if constexpr (in_shared) {
        const float* const p = &lines.at(line, row_of_lanes<true>(g, 0));
        return {p[0], p[4], p[8], p[12]};
    } else {
        return load_four(&lines.at(line, row_of_lanes<false>(g, 0)));
    }
}

// The sums of some blocks, in fragments: [block][half of the tile].
struct FragmentSums {
    float of[most_blocks_at_once][2][4];

    // Stores sum 2 t + j of block b in the lane's four rows of a line.
    template <bool in_shared>
    __device__ void put(int b, int j, int g, float* line) const {
        const Four<float> four{of[b][0][j], of[b][0][2 + j], of[b][1][j], of[b][1][2 + j]};
        if constexpr (in_shared) {
#pragma unroll
            for (int q = 0; q < 4; ++q) line[row_of_lanes<true>(g, q)] = four.x[q];
        } else {
            *reinterpret_cast<Four<float>*>(line + 4 * g) = four;
        }
    }
    // Stores the sums of the first block for the lanes of rows, and those of the next block, which cannot stay in
    // registers, in n lines of `aside`. The warp waits for lanes that still read earlier values.
    template <bool in_shared>
    __device__ void keep(const PartialSums<float>& partial, int n, const Lines<float, in_shared>& aside) const {
        const int g = partial.lane / 4, t = partial.lane % 4;
        __syncwarp();
#pragma unroll
        for (int j = 0; j < 2; ++j) put<in_shared>(0, j, g, partial.p + (2 * t + j) * sum_line);
#pragma unroll
        for (int j = 0; j < 2; ++j)
            if (2 * t + j < n) put<in_shared>(1, j, g, &aside.at(2 * t + j, 0));
        __syncwarp();
    }
};

// The end of the terms of each of the blocks that are computed at once.
struct BlockEnds {
    int of[narrow_warps];
};

// Adds eight terms of N blocks: x[h][q] is the lane's term of half h in row q, w[j][h] its weight of block j, and
// sums[j] the lane's part of the sums, for both halves of the tile. `changed_places`: x has weights, and w has terms.
template <bool changed_places = false, int N, int M>
__device__ __forceinline__ void add_eight_terms(bool split_factors, const float (&x)[2][4], const float (&w)[N][2],
                                                float (&sums)[M][2][4]) {
    static_assert(N <= M);
    constexpr int together = N < 2 ? N : 2;  // number of blocks whose products do not wait for each other
    uint32_t a[2][4], a_rest[2][4];
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            const SplitNumber s = split_factors ? split(x[h][q]) : SplitNumber{to_tf32(x[h][q]), 0};
            a[q / 2][2 * h + q % 2] = s.nearest;
            a_rest[q / 2][2 * h + q % 2] = s.rest;
        }
#pragma unroll
    for (int first = 0; first < N; first += together) {
        uint32_t b[together][2];
        if (split_factors) {
            uint32_t b_rest[together][2];
            float c[together][2][4];
#pragma unroll
            for (int j = 0; j < together; ++j)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const SplitNumber s = split(w[first + j][h]);
                    b[j][h] = s.nearest;
                    b_rest[j][h] = s.rest;
                }
#pragma unroll
            for (int j = 0; j < together; ++j)
#pragma unroll
                for (int m = 0; m < 2; ++m)
                    add_product(changed_places ? a[m] : a_rest[m], changed_places ? b_rest[j] : b[j], c[j][m], true);
#pragma unroll
            for (int j = 0; j < together; ++j)
#pragma unroll
                for (int m = 0; m < 2; ++m)
                    add_product(changed_places ? a_rest[m] : a[m], changed_places ? b[j] : b_rest[j], c[j][m]);
#pragma unroll
            for (int j = 0; j < together; ++j)
#pragma unroll
                for (int m = 0; m < 2; ++m) add_product(a[m], b[j], c[j][m]);
#pragma unroll
            for (int j = 0; j < together; ++j)
#pragma unroll
                for (int m = 0; m < 2; ++m)
#pragma unroll
                    for (int i = 0; i < 4; ++i) sums[first + j][m][i] += c[j][m][i];
        } else {  // rounding toward zero is negligible beside the rounding of factors
#pragma unroll
            for (int j = 0; j < together; ++j)
#pragma unroll
                for (int h = 0; h < 2; ++h) b[j][h] = to_tf32(w[first + j][h]);
#pragma unroll
            for (int j = 0; j < together; ++j)
#pragma unroll
                for (int m = 0; m < 2; ++m) add_product(a[m], b[j], sums[first + j][m]);
        }
    }
}

// The terms that exist: where sums do not start at a multiple of eight, terms before `first` may not be computed yet.
template <bool starts_inside>
struct Existing {
    int first, end;
    __device__ bool operator()(int term) const { return term < end && (!starts_inside || term >= first); }
    __device__ bool has_sixteen(int k) const { return k + 16 <= end && (!starts_inside || k >= first); }
    // The given terms, or an empty range if no term exists, because then even the last line has not been written.
    __device__ Terms of(Terms terms) const {
        return {!starts_inside || first < end ? terms.begin : terms.end, terms.end};
    }
};

// Loads the lane's four of the sixteen terms from k on, for the lane's four rows. Missing terms are zero, and not read.
template <bool in_shared, bool starts_inside>
__device__ __forceinline__ void load_terms(const Lines<float, in_shared>& input, int lane, int k,
                                           const Existing<starts_inside>& exists, float (&x)[4][4]) {
    const int g = lane / 4, first = k + lane % 4 * 4;
    const auto load = [&](const auto& is_term) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            const Four<float> rows = load_rows(input, is_term(first + c) ? first + c : exists.end - 1, g);
#pragma unroll
            for (int q = 0; q < 4; ++q) x[c][q] = is_term(first + c) ? rows.x[q] : 0.0f;
        }
    };
    if (exists.has_sixteen(k)) {  // all sixteen terms exist
        load([](int) { return true; });
    } else {
        load(exists);
    }
}

// Computes the sums of N blocks over terms of a tile's lines. weights(k, four) sets four[j] to the lane's weights of
// block j for its four of the sixteen terms from k on; missing weights are multiplied by zeros.
template <int N, bool in_shared, bool starts_inside, class WeightsOf>
__device__ void sum_in_fragments(bool split_factors, const Lines<float, in_shared>& input, int lane, Terms terms,
                                 const Existing<starts_inside>& exists, const WeightsOf& weights, FragmentSums& sums) {
#pragma unroll
    for (int j = 0; j < N; ++j)
#pragma unroll
        for (int m = 0; m < 2; ++m)
#pragma unroll
            for (int i = 0; i < 4; ++i) sums.of[j][m][i] = 0;
    terms = exists.of(terms);
#pragma unroll 1
    for (int k = terms.begin; k < terms.end; k += 16) {
        Four<float> four[N];
        weights(k, four);
        float x[4][4];
        load_terms(input, lane, k, exists, x);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float own_x[2][4], own_w[N][2];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
#pragma unroll
                for (int q = 0; q < 4; ++q) own_x[i][q] = x[2 * h + i][q];
#pragma unroll
                for (int j = 0; j < N; ++j) own_w[j][i] = four[j].x[2 * h + i];
            }
            add_eight_terms(split_factors, own_x, own_w, sums.of);
        }
    }
}

// Multiplies rows of a matrix, as add_row_products does: `n` sums of N blocks; block j has ends[j] terms, behind which
// its rows may end. The first term is a multiple of 16.
template <int N, bool in_shared>
__device__ void sum_rows_in_fragments(bool split_factors, const float* weights, const uint32_t* row, int n,
                                      const Lines<float, in_shared>& input, int lane, Terms terms,
                                      const BlockEnds& ends, FragmentSums& sums) {
    const float* w[N];
#pragma unroll
    for (int j = 0; j < N; ++j) w[j] = weights + row[smaller(8 * j + lane / 4, n - 1)] + lane % 4 * 4;
    const auto load = [&](int k, Four<float>(&four)[N]) {
#pragma unroll
        for (int j = 0; j < N; ++j) four[j] = N == 1 || k < ends.of[j] ? load_four(w[j] + k) : Four<float>{};
    };
    sum_in_fragments<N>(split_factors, input, lane, terms, Existing<false>{0, terms.end}, load, sums);
}

// Computes the sums of narrow_warps blocks on a narrow tile, whose rows are columns of the right matrix, while the rows
// of `weights` are those of the left matrix. The order of terms and the bits of sums are those of a whole tile. The
// sums of all blocks are kept.
template <class WeightsOf>
__device__ void sum_on_narrow_tile(bool split_factors, const Lines<float, false>& input, Terms terms,
                                   const Existing<true>& exists, const WeightsOf& weights,
                                   const PartialSums<float>& partial) {
    static_assert(narrow_warps == 4 && narrow_rows == 8);
    const int lane = int(threadIdx.x) % warp_rows, g = lane / 4, t = lane % 4;  // in the block's warp
    float sums[1][2][4] = {};
    __syncwarp();  // some lanes of the warp may have finished more sums than others
    terms = exists.of(terms);
#pragma unroll 1
    for (int k = terms.begin; k < terms.end; k += 16) {
        Four<float> four[narrow_warps];
        weights(k + 4 * t, four);
        float x[4];
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            const int term = k + 4 * t + c;
            x[c] = input.at(exists(term) ? term : exists.end - 1, g);
            x[c] = exists(term) ? x[c] : 0.0f;
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float left[2][4], right[1][2];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
#pragma unroll
                for (int q = 0; q < narrow_warps; ++q) left[i][q] = four[q].x[2 * h + i];
                right[0][i] = x[2 * h + i];
            }
            add_eight_terms<true>(split_factors, left, right, sums);
        }
    }
    float* const kept = partial.p - lane / narrow_rows * sums_at_once * sum_line;  // of the first block
    __syncwarp();
#pragma unroll
    for (int q = 0; q < narrow_warps; ++q)
#pragma unroll
        for (int j = 0; j < 2; ++j)
            kept[(q * sums_at_once + g) * sum_line + 2 * t + j] = sums[0][q / 2][2 * (q % 2) + j];
    __syncwarp();
}

__device__ inline void sum_rows_on_narrow_tile(bool split_factors, const float* weights, const uint32_t* row, int n,
                                               const Lines<float, false>& input, Terms terms, const BlockEnds& ends,
                                               const PartialSums<float>& partial) {
    const float* w[narrow_warps];
#pragma unroll
    for (int q = 0; q < narrow_warps; ++q)
        w[q] = weights + row[smaller(8 * q + int(threadIdx.x) % warp_rows / 4, n - 1)];
    sum_on_narrow_tile(
        split_factors, input, terms, {0, terms.end},
        [&](int k, Four<float>(&four)[narrow_warps]) {
#pragma unroll
            for (int q = 0; q < narrow_warps; ++q) four[q] = k < ends.of[q] ? load_four(w[q] + k) : Four<float>{};
        },
        partial);
}

// The columns of each block, `n` from `column` on; only rows that read a column contribute to its sum.
struct ColumnBlocks {
    int column[narrow_warps], n[narrow_warps];
    Terms rows[narrow_warps];
};

__device__ inline void sum_columns_on_narrow_tile(bool split_factors, const float* weights, const uint32_t* row,
                                                  const ColumnBlocks& blocks, const Lines<float, false>& grad,
                                                  Terms terms, const PartialSums<float>& partial) {
    const float* own[narrow_warps];
    Existing<true> exists{terms.end, terms.end};
#pragma unroll
    for (int q = 0; q < narrow_warps; ++q)
        if (blocks.rows[q].begin < blocks.rows[q].end) exists.first = smaller(exists.first, blocks.rows[q].begin);
#pragma unroll
    for (int q = 0; q < narrow_warps; ++q)
        own[q] = weights + blocks.column[q] + smaller(int(threadIdx.x) % warp_rows / 4, blocks.n[q] - 1);
    sum_on_narrow_tile(
        split_factors, grad, terms, exists,
        [&](int k, Four<float>(&four)[narrow_warps]) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const uint32_t offset = row[exists(k + c) ? k + c : exists.end - 1];
#pragma unroll
                for (int q = 0; q < narrow_warps; ++q) {
                    const bool sees = k + c >= blocks.rows[q].begin && k + c < blocks.rows[q].end;
                    four[q].x[c] = sees ? own[q][offset] : 0.0f;
                }
            }
        },
        partial);
}

// ---- exact or on tensor cores ---------------------------------------------------------------------------------------

// The number of blocks, out of `blocks`, that a warp computes at once on tensor cores. Loaded and split inputs serve
// all blocks of a warp, whose number is limited so that other warps still have work.
__device__ inline Rounds rounds_on_tensor_cores(int blocks) {
    int best = 1, least = 1 << 30;
#pragma unroll
    for (int n = 1; n <= most_blocks_at_once; n *= 2) {
        const int of_round = n * network_warps, cost = (blocks + of_round - 1) / of_round * (n + 1);
        if (cost < least) best = n;
        least = smaller(least, cost);
    }
    return {best, 16};
}

template <class T>
__device__ Rounds rounds_of(Products kind, int blocks, const Team& team) {
    if (!std::is_same_v<T, float> || kind == Products::exact) return {};
    if (!team.is_narrow()) return rounds_on_tensor_cores(blocks);
    return {smaller(narrow_warps, (blocks + network_warps - 1) / network_warps), 16, true};
}

// Computes the products of a network: n sums, in blocks as `rounds` divides them. The sums of the first block are kept,
// and those of a second block are stored in the lines `aside`.
template <class T, bool in_shared>
__device__ void sum_unit_products(Products kind, const Rounds& rounds, const T* weights, const uint32_t* row, int n,
                                  const Lines<T, in_shared>& input, Terms terms, const BlockEnds& ends,
                                  const PartialSums<T>& partial, const Lines<T, in_shared>& aside) {
    if constexpr (std::is_same_v<T, float>) {
        if (kind != Products::exact) {
            const bool split_factors = kind == Products::three_tf32;
            if constexpr (HR_NARROW_TILES && !in_shared)
                if (rounds.together)
                    return sum_rows_on_narrow_tile(split_factors, weights, row, n, input, terms, ends, partial);
            const int lane = partial.lane;
            FragmentSums sums;
            static_assert(most_blocks_at_once == 2);
            if (rounds.at_once == 2) {
                sum_rows_in_fragments<2>(split_factors, weights, row, n, input, lane, terms, ends, sums);
                return sums.keep(partial, n - sums_at_once, aside);
            }
            sum_rows_in_fragments<1>(split_factors, weights, row, n, input, lane, terms, ends, sums);
            return sums.keep(partial, 0, aside);
        }
    }
    sum_row_products(weights, row, n, input, terms, partial);
}

// Computes gradients of inputs, over terms from `first_row` on. Tensor cores take sixteen terms from a multiple of
// sixteen on, so that several blocks can be computed at once.
template <class T, bool in_shared>
__device__ void sum_input_products(Products kind, const T* weights, const uint32_t* row, int column, int n,
                                   const Lines<T, in_shared>& grad, int first_row, Terms terms,
                                   const PartialSums<T>& partial) {
    if constexpr (std::is_same_v<T, float>) {
        if (kind != Products::exact) {
            const float* const own = weights + column + smaller(partial.lane / 4, n - 1);
            const Existing<true> exists{first_row, terms.end};
            const auto load = [&](int k, Four<float>(&four)[1]) {
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    const int r = k + partial.lane % 4 * 4 + c;  // a row that does not exist is multiplied by zero
                    four[0].x[c] = own[row[smaller(larger(r, first_row), terms.end - 1)]];
                }
            };
            FragmentSums sums;
            sum_in_fragments<1>(kind == Products::three_tf32, grad, partial.lane, terms, exists, load, sums);
            return sums.keep(partial, 0, grad);
        }
    }
    sum_column_products(weights, row, column, n, grad, terms, partial);
}

}  // namespace
}  // namespace headrace
