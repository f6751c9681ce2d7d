// Rows in memory to the lines of a tile and back, a vector's width of both at a time, and the transposition in
// registers that this needs.
#pragma once

#include <cstdint>

#include "../math/pack.hpp"

namespace headrace {
namespace {

constexpr int least_transposed = 4;  // fewer columns are moved one by one

// Exchanges bit S of a lane's index with bit S of its vector's: after all bits of N vectors, each N x N block of lanes
// is transposed.
template <int S, int N, class V, int... I>
HR_FN void transpose_step(V (&v)[N], Indices<I...>) {
    constexpr int W = Lane<V>::width;
    for (int i = 0; i < N; ++i)
        if (!(i & S)) {
            const V a = v[i], b = v[i + S];
            v[i] = __builtin_shufflevector(a, b, (I & S ? W + I - S : I)...);
            v[i + S] = __builtin_shufflevector(a, b, (I & S ? W + I : I + S)...);
        }
    if constexpr (2 * S < N) transpose_step<2 * S>(v, Indices<I...>{});
}

template <int N, class V>
HR_FN void transpose(V (&v)[N]) {
    transpose_step<1>(v, typename MakeIndices<Lane<V>::width>::type{});
}

// units lines [unit][height], of which `vectors` are in use, to panels [unit / width][height][width]; the number of
// units is rounded up to whole panels.
template <class T>
HR_FN void to_panels(const T* lines, int units, int64_t height, int vectors, T* panels) {
    constexpr int W = width<T>;
    using V = Pack<T>;
    for (int64_t k = 0; k < units; k += W)
        for (int64_t b = 0; b < int64_t(vectors) * W; b += W) {
            V v[W];
            for (int i = 0; i < W; ++i) v[i] = load(lines + (k + i) * height + b);
            transpose(v);
            for (int i = 0; i < W; ++i) store(panels + k * height + (b + i) * W, v[i]);
        }
}

// The last block of columns starts so that it is whole, if there are enough columns; its overlap with the one before is
// moved twice.
template <class T>
HR_FN int block_start(int column, int columns) {
    return columns - column < width<T> && columns > width<T> ? columns - width<T> : column;
}

// Rows from the end of a tile that end less than a vector after the start of their last block: a whole vector would
// reach beyond the tile.
template <class T>
HR_FN int rows_at_end(int columns) {
    return columns < width<T> ? (width<T> + columns - 1) / columns : 0;
}

// Some values of a row, side by side.
template <class T>
constexpr int group_width = width<T> < 4 ? width<T> : 4;
template <class T>
struct GroupOf {
    typedef T type __attribute__((vector_size(group_width<T> * sizeof(T))));
};
template <class T>
using Group = typename GroupOf<T>::type;

template <class V, int... I>
HR_FN auto join_two(V a, V b, Indices<I...>) {
    return __builtin_shufflevector(a, b, I...);
}

// group(first), group(first + 1), ... in one vector of `lanes` lanes.
template <class T, int lanes, class F>
HR_FN auto join_groups(const F& group, int first) {
    if constexpr (lanes == group_width<T>) {
        return group(first);
    } else {
        constexpr int half = lanes / 2;
        return join_two(join_groups<T, half>(group, first), join_groups<T, half>(group, first + half / group_width<T>),
                        typename MakeIndices<lanes>::type{});
    }
}

// Element c0 + k of each of `rows` rows, at most a vector's width of them, in lines[k], for k < n; lanes past the last
// row are zero. Columns go by groups, not by vectors: a row may end soon, and nothing beyond it may be read.
template <class In, class LineOf>
HR_FN void group_to_lines(const LineOf& line_of, int c0, int n, int first, int rows,
                          Pack<In> (&lines)[group_width<In>]) {
    constexpr int G = group_width<In>;
    const auto each = [&](const auto& load_row) {
        for (int j = 0; j < G; ++j)
            lines[j] = join_groups<In, width<In>>([&](int q) { return load_row(G * q + j); }, 0);
    };
    const auto whole = [&](int r) {
        Group<In> x;
        __builtin_memcpy(&x, line_of(first + r) + c0 * sizeof(In), sizeof x);
        return x;
    };
    if (n == G && rows >= width<In>) {
        each(whole);
    } else {
        each([&](int r) {
            if (r < rows && n == G) return whole(r);
            Group<In> x{};
            for (int k = 0; k < n && r < rows; ++k) {
                In value;
                __builtin_memcpy(&value, line_of(first + r) + (c0 + k) * sizeof(In), sizeof value);
                x[k] = value;
            }
            return x;
        });
    }
    transpose(lines);
}

// Elements line_of(r)[c], for rows r and columns c, to out[slots[c] * stride + r], (value - shift) * scale in float64
// where shift is given. Lanes past the last row become zero.
template <class In, class T, class LineOf>
void rows_to_lines(const LineOf& line_of, int columns, const int* slots, const double* shift, const double* scale,
                   int rows, T* out, int64_t stride) {
    constexpr int W = width<T>, R = width<In>, G = group_width<In>;
    const auto line = [&](int c) { return out + (slots ? slots[c] : c) * stride; };
    if (sizeof(In) == sizeof(T) && !shift && columns >= W) {
        for (int column = 0; column < columns; column += W) {
            const int c0 = block_start<T>(column, columns);
            for (int r0 = 0; r0 < rows; r0 += W) {
                Pack<T> v[W] = {};
                for (int i = 0; i < W && r0 + i < rows; ++i)
                    __builtin_memcpy(&v[i], line_of(r0 + i) + c0 * sizeof(In), sizeof v[i]);
                transpose(v);
                for (int k = 0; k < W; ++k) store(line(c0 + k) + r0, v[k]);
            }
        }
        return;
    }
    const int end = (rows + W - 1) / W * W;
    for (int column = 0; column < columns; column += G) {
        const int c0 = columns - column < G && columns > G ? columns - G : column;
        const int n = columns - c0 < G ? columns - c0 : G;
        for (int r0 = 0; r0 < end; r0 += R) {
            Pack<In> lines[G];
            group_to_lines<In>(line_of, c0, n, r0, rows - r0, lines);
            for (int k = 0; k < n; ++k) {
                In given[R];
                T made[R];
                store(given, lines[k]);
                const double by = shift ? scale[c0 + k] : 1.0, from = shift ? shift[c0 + k] : 0.0;
                for (int i = 0; i < R; ++i) made[i] = T((double(given[i]) - from) * by);
                for (int i = rows - r0 < 0 ? 0 : rows - r0; i < R; ++i) made[i] = T(0);
                const int lanes = end - r0 < R ? end - r0 : R;
                __builtin_memcpy(line(c0 + k) + r0, made, lanes * sizeof(T));
            }
        }
    }
}

// From tiles to adjacent rows: value * scale + shift in float64 where scale is given.
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
            // In the order of the rows: elements written beyond a short row are overwritten by the next one.
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
