// Copies between rows in memory and lines of a tile, for a vector's width of rows and columns at a time, by a
// transposition in registers.
#pragma once

#include <cstdint>

#include "../math/pack.hpp"

namespace headrace {
namespace {

constexpr int least_transposed = 4;  // fewer columns are moved one by one

// Exchanges bit S of a lane's index with bit S of the index of its vector; exchanging all bits transposes a width x
// width block.
template <int S, class V, int... I>
HR_FN void transpose_step(V (&v)[Lane<V>::width], Indices<I...>) {
    constexpr int W = Lane<V>::width;
    for (int i = 0; i < W; ++i)
        if (!(i & S)) {
            const V a = v[i], b = v[i + S];
            v[i] = __builtin_shufflevector(a, b, (I & S ? W + I - S : I)...);
            v[i + S] = __builtin_shufflevector(a, b, (I & S ? W + I : I + S)...);
        }
    if constexpr (2 * S < W) transpose_step<2 * S>(v, Indices<I...>{});
}

template <class V>
HR_FN void transpose(V (&v)[Lane<V>::width]) {
    transpose_step<1>(v, typename MakeIndices<Lane<V>::width>::type{});
}

// Copies lines [unit][height], of which `vectors` vectors are used, to panels [unit / width][height][width], with zeros
// for units up to a whole panel.
template <class T>
HR_FN void to_panels(const T* lines, int units, int64_t height, int vectors, T* panels) {
    constexpr int W = width<T>;
    using V = Pack<T>;
    for (int64_t k = 0; k < units; k += W)
        for (int64_t b = 0; b < int64_t(vectors) * W; b += W) {
            V v[W];
            for (int i = 0; i < W; ++i) v[i] = k + i < units ? load(lines + (k + i) * height + b) : V{};
            transpose(v);
            for (int i = 0; i < W; ++i) store(panels + k * height + (b + i) * W, v[i]);
        }
}

// The first column of a block. The last block is full, if there are enough columns, and its overlap with the block
// before is copied twice.
template <class T>
HR_FN int block_start(int column, int columns) {
    return columns - column < width<T> && columns > width<T> ? columns - width<T> : column;
}

// The number of rows at the end of a tile that are copied without full vectors, because a full vector at the row's last
// block would reach beyond the tile.
template <class T>
HR_FN int rows_at_end(int columns) {
    return columns < width<T> ? (width<T> + columns - 1) / columns : 0;
}

// Loads n values at any address, or a full vector, of which the first n are used.
template <class In, class T>
HR_FN void load_numbers(const char* from, int n, bool whole, const double* shift, const double* scale,
                        T (&out)[width<T>]) {
    constexpr int W = width<T>;
    In given[W] = {};
    if (whole) {
        __builtin_memcpy(given, from, sizeof given);
    } else {
        for (int k = 0; k < n; ++k) __builtin_memcpy(given + k, from + k * sizeof(In), sizeof(In));
    }
    double wide[W] = {};
    for (int k = 0; k < (shift ? n : W); ++k)  // shift and scale end with the last column
        wide[k] = shift ? (double(given[k]) - shift[k]) * scale[k] : double(given[k]);
    for (int k = 0; k < W; ++k) out[k] = T(wide[k]);
}

// Copies elements line_of(r)[c], for rows r and columns c, to out[slots[c] * stride + r], as (value - shift) * scale in
// float64 where shift is given. `adjacent` is true for rows without gaps between them in memory. Lanes after the last
// row become zero.
template <class In, class T, class LineOf>
void rows_to_lines(const LineOf& line_of, bool adjacent, int columns, const int* slots, const double* shift,
                   const double* scale, int rows, T* out, int64_t stride) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    const int whole_rows = columns >= W ? rows : adjacent ? rows - rows_at_end<T>(columns) : 0;
    for (int column = 0; column < columns; column += W) {
        const int c0 = block_start<T>(column, columns), n = columns - c0 < W ? columns - c0 : W;
        for (int r0 = 0; r0 < rows; r0 += W) {
            V v[W] = {};
            if (sizeof(In) == sizeof(T) && !shift && r0 + W <= whole_rows) {
                for (int i = 0; i < W; ++i) __builtin_memcpy(&v[i], line_of(r0 + i) + c0 * sizeof(In), sizeof v[i]);
            } else {
                for (int i = 0; i < W && r0 + i < rows; ++i) {
                    T numbers[W];
                    load_numbers<In>(line_of(r0 + i) + c0 * sizeof(In), n, r0 + i < whole_rows,
                                     shift ? shift + c0 : nullptr, shift ? scale + c0 : nullptr, numbers);
                    v[i] = load(numbers);
                }
            }
            transpose(v);
            for (int k = 0; k < n; ++k) store(out + (slots ? slots[c0 + k] : c0 + k) * stride + r0, v[k]);
        }
    }
}

// Copies lines of a tile to adjacent rows, as value * scale + shift in float64 where scale is given.
template <class T>
void lines_to_rows(const T* in, int64_t stride, int columns, const int* slots, const double* shift, const double* scale,
                   int rows, T* out) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    const int whole_rows = rows - rows_at_end<T>(columns);
    for (int column = 0; column < columns; column += W) {
        const int c0 = block_start<T>(column, columns), n = columns - c0 < W ? columns - c0 : W;
        for (int r0 = 0; r0 < rows; r0 += W) {
            V v[W] = {};
            for (int k = 0; k < W; ++k) {
                if (k >= n) continue;
                const T* line = in + (slots ? slots[c0 + k] : c0 + k) * stride + r0;
                if (!scale) {
                    v[k] = load(line);
                    continue;
                }
                T numbers[W];
                for (int i = 0; i < W; ++i) numbers[i] = T(double(line[i]) * scale[c0 + k] + shift[c0 + k]);
                v[k] = load(numbers);
            }
            transpose(v);
            // Rows are written in order, because elements written beyond a short row are overwritten by the next row.
            if (r0 + W <= whole_rows) {
                for (int i = 0; i < W; ++i) store(out + int64_t(r0 + i) * columns + c0, v[i]);
                continue;
            }
            for (int i = 0; i < W && r0 + i < rows; ++i) {
                T* row = out + int64_t(r0 + i) * columns + c0;
                if (r0 + i < whole_rows) {
                    store(row, v[i]);
                } else {
                    store_up_to(row, v[i], n);
                }
            }
        }
    }
}

}  // namespace
}  // namespace headrace
