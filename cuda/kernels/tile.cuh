// A tile of rows on the device: one row for each lane, lines of numbers for coordinates and units, and a team of warps.
#pragma once

#include "../../cpp/lane.hpp"
#include "../../cpp/views.hpp"
#include "../include/device.cuh"
#include "../include/launch.cuh"

namespace headrace {
namespace {

// The warps of a block, which share a tile. Lanes are rows; what is split among warps is coordinates and units.
struct Team {
    int lane, warp, warps;

    __device__ static Team of_block() {
        return {int(threadIdx.x) % warp_rows, int(threadIdx.x) / warp_rows, int(blockDim.x) / warp_rows};
    }
    __device__ void sync() const {
        if (warps > 1) {
            __syncthreads();
        } else {
            __syncwarp();
        }
    }
};

// Lines of a tile. In shared memory they are one number longer than a warp, so that neither lanes nor lines meet in one
// bank; in global memory a line is as long as what is loaded at once.
template <bool in_shared>
constexpr int line_size = in_shared ? warp_rows + 1 : warp_rows;

template <class T, bool in_shared>
struct Lines {
    T* p;  // of the first lane

    __device__ T& at(int64_t line, int lane) const { return p[line * line_size<in_shared> + lane]; }
    __device__ Lines from(int64_t line) const { return {p + line * line_size<in_shared>}; }
};

template <class I>
__device__ I smaller(I a, I b) {
    return a < b ? a : b;
}

// 0 where x is finite and NaN where it is not.
template <class T>
__device__ T poison(T x) {
    return x - x;
}

__device__ inline const char* row_of(const ArrayView& a, int64_t row) {
    return a.data + (a.rows ? a.rows[row] : row) * a.row_stride;
}

__device__ inline double number_at(const ArrayView& a, const char* p) {
    return a.is_double ? *reinterpret_cast<const double*>(p) : double(*reinterpret_cast<const float*>(p));
}

// body(row, column) for the numbers of a tile in the order in which they lie in memory, so that neighbouring threads
// are neighbours there.
template <class F>
__device__ void for_tile(const Team& team, int rows, int columns, bool by_rows, F&& body) {
    const int fast = by_rows ? columns : rows, threads = team.warps * warp_rows;
    if (fast == 0) return;
    const int step_fast = threads % fast, step_slow = threads / fast, thread = team.warp * warp_rows + team.lane;
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

// Columns of rows [row, row + rows) to lines, shifted and scaled in float64 before they are narrowed.
template <class T, bool in_shared>
__device__ void load_columns(const Team& team, const ArrayView& a, int columns, const int* slots, const double* shift,
                             const double* scale, int64_t row, int rows, const Lines<T, in_shared>& out) {
    for_tile(team, rows, columns, a.column_stride <= a.row_stride, [&](int r, int c) {
        double value = number_at(a, row_of(a, row + r) + c * a.column_stride);
        if (shift) value = (value - shift[c]) * scale[c];
        out.at(slots ? slots[c] : c, r) = T(value);
    });
}

// A warp's line of partial sums for each lane and, once all warps wrote theirs, their sum in the order of the warps.
template <class T>
struct WarpSums {
    T* p;  // [warp][warp_rows], shared

    __device__ void put(const Team& team, T value) const { p[team.warp * warp_rows + team.lane] = value; }
    __device__ T total(const Team& team) const {
        T sum = 0;
        for (int w = 0; w < team.warps; ++w) sum += p[w * warp_rows + team.lane];
        return sum;
    }
};

}  // namespace
}  // namespace headrace
