// A tile of rows on the device: one row for each lane, lines of values for coordinates and units, and a team of warps.
#pragma once

#include <type_traits>

#include "../../cpp/core/views.hpp"
#include "../../cpp/math/base_density.hpp"
#include "../../cpp/math/lane.hpp"
#include "../include/device.cuh"
#include "../include/launch.cuh"

namespace headrace {
namespace {

// Returns its argument in a form that the compiler takes for a new value, so that values derived from the result are
// computed after the call, and take no registers before.
__device__ inline int forgotten(int x) {
#ifndef HR_EMULATE
    asm volatile("" : "+r"(x));
#endif
    return x;
}

// The warps of a block, which share a tile. Lanes are rows; coordinates and units are split among warps. A tile of few
// rows is narrow: each group of narrow_rows lanes is then a warp of the team, so that all threads have work.
//
// A source whose tiles may be narrow defines HR_NARROW_TILES before all includes, because other kernels have no
// registers to spare for the distinction.
#ifndef HR_NARROW_TILES
#define HR_NARROW_TILES false
#endif
struct Team {
    int lane, warp, warps;
#if HR_NARROW_TILES
    int rows;

    __device__ static Team of_block(int rows) {
        return {int(threadIdx.x) % rows, int(threadIdx.x) / rows, int(blockDim.x) / rows, rows};
    }
#else
    static constexpr int rows = warp_rows;

    // The team, recomputed so that it takes no registers between its last use and this call.
    __device__ static Team of_block_anew() {
        const int thread = forgotten(int(threadIdx.x));
        return {thread % warp_rows, thread / warp_rows, int(blockDim.x) / warp_rows};
    }
    __device__ static Team of_block() {
        return {int(threadIdx.x) % warp_rows, int(threadIdx.x) / warp_rows, int(blockDim.x) / warp_rows};
    }
#endif
    __device__ bool is_narrow() const { return HR_NARROW_TILES && rows < warp_rows; }
    // The number of warps among which sums of a row are divided, and the first coordinate of each of these warps; the
    // first coordinate of other warps is behind the last coordinate. Sums are divided as in a whole tile, so that their
    // bits do not depend on the number of rows.
    __device__ int sum_warps() const { return is_narrow() ? warps * rows / warp_rows : warps; }
    __device__ int first_of_sum() const { return !is_narrow() || warp < sum_warps() ? warp : 1 << 30; }
    __device__ void sync() const {
        if (warps > 1) {
            __syncthreads();
        } else {
            __syncwarp();
        }
    }
};

// The length of a line of a tile. In shared memory a line is one value longer than a warp, so that neither lanes nor
// lines conflict in a bank; in global memory a line is as long as one load.
template <bool in_shared>
constexpr int line_size = in_shared ? warp_rows + 1 : warp_rows;

template <class T, bool in_shared>
struct Lines {
    T* p;  // address for the first lane

    __device__ T& at(int64_t line, int lane) const { return p[line * line_size<in_shared> + lane]; }
    __device__ Lines from(int64_t line) const { return {p + line * line_size<in_shared>}; }
};

// Makes the compiler read values from memory again after the call, so that none of them stays in a register.
__device__ inline void forget_loads() {
#ifndef HR_EMULATE
    asm volatile("" ::: "memory");
#endif
}

// The address of lines, as an argument of a function that is not inlined. From a pointer, a function that is not
// inlined could not determine whether lines are in shared memory.
template <class T, bool in_shared>
using LineAddress = std::conditional_t<in_shared, int, T*>;

template <class T, bool in_shared>
__device__ LineAddress<T, in_shared> address_of(const Lines<T, in_shared>& lines) {
    if constexpr (in_shared) {
#ifdef HR_EMULATE
        HR_DYNAMIC_SHARED(T, shared);
        return int(lines.p - shared);
#else
        return int(__cvta_generic_to_shared(lines.p));
#endif
    } else {
        return lines.p;
    }
}

template <class T, bool in_shared>
__device__ Lines<T, in_shared> lines_at(LineAddress<T, in_shared> lines) {
    if constexpr (in_shared) {
#ifdef HR_EMULATE
        HR_DYNAMIC_SHARED(T, shared);
        return {shared + lines};
#else
        return {static_cast<T*>(__cvta_shared_to_generic(size_t(unsigned(lines))))};
#endif
    } else {
        return {lines};
    }
}

// Copies the first lines, which are those of the context.
template <class T, bool in_shared>
__device__ void copy_context(const Team& team, int context, const Lines<T, in_shared>& from,
                             const Lines<T, in_shared>& to) {
    for (int c = team.warp; c < context; c += team.warps) to.at(c, team.lane) = from.at(c, team.lane);
}

template <class I>
__device__ I smaller(I a, I b) {
    return a < b ? a : b;
}

template <class I>
__device__ I larger(I a, I b) {
    return a < b ? b : a;
}

__device__ inline const char* row_of(const ArrayView& a, int64_t row) {
    return a.data + (a.rows ? a.rows[row] : row) * a.row_stride;
}

__device__ inline double number_at(const ArrayView& a, const char* p) {
    return a.is_double ? *reinterpret_cast<const double*>(p) : double(*reinterpret_cast<const float*>(p));
}

__device__ inline double element(const ArrayView& a, int64_t row, int column) {
    return number_at(a, row_of(a, row) + column * a.column_stride);
}

// Whether adjacent values of a row are adjacent in memory.
__device__ inline bool is_by_rows(const ArrayView& a) {
    const auto size = [](int64_t stride) { return stride < 0 ? -stride : stride; };
    return size(a.column_stride) <= size(a.row_stride);
}

// Calls body(row, column) for the values of a tile in the order of memory, so that adjacent threads access adjacent
// values.
template <class F>
__device__ void for_tile(const Team& team, int rows, int columns, bool by_rows, F&& body) {
    const int fast = by_rows ? columns : rows, threads = team.warps * team.rows;
    if (fast == 0) return;
    const int step_fast = threads % fast, step_slow = threads / fast, thread = team.warp * team.rows + team.lane;
    int f = thread % fast, s = thread / fast;
    const int slow = by_rows ? rows : columns;
    while (s < slow) {
        if (by_rows) {
            body(s, f);
        } else {
            body(f, s);
        }
        f += step_fast;
        s += step_slow;
        if (f >= fast) {
            f -= fast;
            ++s;
        }
    }
}

// Whether the values of all tiles of an array are adjacent in memory, and the address of each tile is a multiple of 16
// bytes.
template <class In>
__device__ bool is_adjacent(const ArrayView& a, int columns) {
    return !a.rows && a.column_stride == int64_t(sizeof(In)) && a.row_stride == columns * int64_t(sizeof(In)) &&
           reinterpret_cast<uintptr_t>(a.data) % 16 == 0;
}

// Four adjacent values at an address that is a multiple of 16 bytes.
template <class T>
struct alignas(16) Four {
    T x[4];
};

template <class T>
__device__ Four<T> load_four(const T* p) {
    return *reinterpret_cast<const Four<T>*>(p);
}

// Loads four values from p[at] on, of which n exist. Values of p up to a multiple of four can be read.
template <class T>
__device__ __forceinline__ Four<T> load_first(const T* p, int at, int n) {
    if (at % 4 == 0) return load_four(p + at);
    Four<T> four{};
#pragma unroll
    for (int j = 0; j < 4; ++j)
        if (j < n) four.x[j] = p[at + j];
    return four;
}

// Calls body(j) for the first n of N indices; if n is N, no index is tested.
template <int N, class F>
__device__ __forceinline__ void for_first(int n, const F& body) {
    if (n >= N) {
#pragma unroll
        for (int j = 0; j < N; ++j) body(j);
        return;
    }
#pragma unroll
    for (int j = 0; j + 1 < N; ++j)
        if (j < n) body(j);
}

// Prefetches the data at p, in global memory, for a later load.
template <class T>
__device__ void prefetch(const T* p) {
#ifdef HR_EMULATE
    (void)p;
#else
    asm volatile("prefetch.global.L1 [%0];" ::"l"(__cvta_generic_to_global(p)));
#endif
}

// Visits the values of a tile of adjacent rows: four(first, body) is called for four values from `first` on, and must
// call body(i, row, column) for i = 0, ..., 3; one(number, row, column) is called for each remaining value.
template <class F, class G>
__device__ void for_adjacent_tile(const Team& team, int rows, int columns, F&& four, G&& one) {
    const int count = rows * columns, step = 4 * team.warps * team.rows;
    const int rows_of_step = step / columns, columns_of_step = step % columns;
    int first = 4 * (team.warp * team.rows + team.lane), row = first / columns, column = first % columns;
    for (; first < count; first += step) {
        int r = row, c = column;
        const auto next = [&] {
            if (++c == columns) {
                c = 0;
                ++r;
            }
        };
        if (first + 4 <= count) {
            four(first, [&](auto&& body) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    body(i, r, c);
                    next();
                }
            });
        } else {
            for (int n = first; n < count; ++n) {
                one(n, r, c);
                next();
            }
        }
        row += rows_of_step;
        column += columns_of_step;
        if (column >= columns) {
            column -= columns;
            ++row;
        }
    }
}

// Loads columns of rows [row, row + rows) to lines, shifted and scaled in float64 before values are rounded to T.
template <class In, class T, bool in_shared>
__device__ void load_columns_of(const Team& team, const ArrayView& a, int columns, const int* slots,
                                const double* shift, const double* scale, int64_t row, int rows,
                                const Lines<T, in_shared>& out) {
    const auto put = [&](In value, int r, int c) {
        out.at(slots ? slots[c] : c, r) = shift ? T((double(value) - shift[c]) * scale[c]) : T(value);
    };
    if (is_adjacent<In>(a, columns)) {
        const In* const from = reinterpret_cast<const In*>(a.data) + row * columns;
        for_adjacent_tile(
            team, rows, columns,
            [&](int first, const auto& each) {
                const Four<In> numbers = load_four(from + first);
                each([&](int i, int r, int c) { put(numbers.x[i], r, c); });
            },
            [&](int n, int r, int c) { put(from[n], r, c); });
        return;
    }
    for_tile(team, rows, columns, is_by_rows(a),
             [&](int r, int c) { put(*reinterpret_cast<const In*>(row_of(a, row + r) + c * a.column_stride), r, c); });
}

template <class T, bool in_shared>
__device__ void load_columns(const Team& team, const ArrayView& a, int columns, const int* slots, const double* shift,
                             const double* scale, int64_t row, int rows, const Lines<T, in_shared>& out) {
    if (a.is_double) {
        load_columns_of<double>(team, a, columns, slots, shift, scale, row, rows, out);
    } else {
        load_columns_of<float>(team, a, columns, slots, shift, scale, row, rows, out);
    }
}

// Partial sums of each warp for each lane, and, after all warps have stored these sums, totals in the warps' order.
template <class T>
struct WarpSums {
    T* p;  // [warp][warp_rows] in shared memory

    __device__ void put(const Team& team, T value) const { p[team.warp * warp_rows + team.lane] = value; }
    __device__ T total(const Team& team) const {
        T sum = 0;
        for (int w = 0; w < team.warps; ++w) sum += p[w * warp_rows + team.lane];
        return sum;
    }
};

}  // namespace
}  // namespace headrace
