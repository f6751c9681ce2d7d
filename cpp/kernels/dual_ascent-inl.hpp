// One step of dual ascent on a block of rows, which is read and written once: the last map, the logarithm of its
// derivatives, the next affine map, and the sums from which the next map is chosen.
#pragma once

#include "../math/ascent.hpp"
#include "chain-inl.hpp"

namespace headrace {
namespace {

template <class T>
HR_FN void ascent_map(const AscentStep<T>& s, const T* z, T* moved, double* log_jacobian, const T* ahead) {
    using V = Pack<T>;
    constexpr int W = width<T>, pair = 2;
    const int64_t height = s.tile_rows;
    for (int64_t i = 0; i < height; i += pair * W) {
        LogProduct<V> product[pair];
        for (int c = 0; c < s.features; c += factors_at_once) {
            const int end = s.features < c + factors_at_once ? s.features : c + factors_at_once;
            for (int k = c; k < end; ++k) {
                const T g = s.bend[k], center = s.center[k], square = s.square[k];
                T* const to = moved + s.slot[k] * height + i;
                if (ahead) __builtin_prefetch(ahead + k * height + i);
                for (int j = 0; j < pair; ++j) {
                    V derivative;
                    store(to + j * W, ascent_moved(load(z + k * height + i + j * W), g, center, square, derivative));
                    product[j].mantissa *= derivative;
                }
            }
            for (int j = 0; j < pair; ++j) product[j].rescale();
        }
        for (int j = 0; j < pair; ++j) {
            T logs[W];
            store(logs, product[j].log());
            double* to = log_jacobian + i + j * W;
            for (int l = 0; l < W; ++l) to[l] += double(logs[l]) + s.log_scale;
        }
    }
}

// Adds sums over rows [0, rows) of a tile to acc, which has six vectors for each coordinate.
template <bool weighted, class T>
HR_FN void ascent_sums(const AscentStep<T>& s, const T* z, const T* weights, int rows, Pack<T>* acc, const T* ahead) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    const int64_t height = s.tile_rows;
    for (int k = 0; k < s.features; ++k) {
        V* to = acc + k * ascent_sum_count;
        V sum[ascent_sum_count];
        for (int i = 0; i < ascent_sum_count; ++i) sum[i] = to[i];
        const T center = s.next_center[k], square = s.next_square[k];
        for (int i = 0; i < rows; i += W) {
            if (ahead) __builtin_prefetch(ahead + k * height + i);
            V one = splat<V>(1);
            if constexpr (weighted) {
                one = load(weights + i);
            } else if (rows - i < W) {
                one = load_up_to(s.ones, rows - i);
            }
            ascent_add(load(z + k * height + i), one, center, square, sum);
        }
        for (int i = 0; i < ascent_sum_count; ++i) to[i] = sum[i];
    }
}

// Applies the map where only the sum of log-derivatives is kept for each coordinate, not the log-Jacobian of each row.
// Derivatives of rows with equal weights are multiplied, so that one logarithm is needed for each coordinate and block
// of rows.
template <bool weighted, class T>
HR_FN void ascent_map_summed(const AscentStep<T>& s, const T* z, T* moved, const T* weights, int rows,
                             LogProduct<Pack<T>>* logs, const T* ahead) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    const int64_t height = s.tile_rows;
    for (int k = 0; k < s.features; ++k) {
        const T g = s.bend[k], center = s.center[k], square = s.square[k];
        T* const to = moved + s.slot[k] * height;
        const T* const from = z + k * height;
        LogProduct<V> log = logs[k];
        for (int first = 0; first < height; first += factors_at_once * W) {
            const int end = int(height) < first + factors_at_once * W ? int(height) : first + factors_at_once * W;
            for (int i = first; i < end; i += W) {
                if (ahead) __builtin_prefetch(ahead + k * height + i);
                V derivative;
                store(to + i, ascent_moved(load(from + i), g, center, square, derivative));
                if constexpr (weighted) {
                    log.mantissa += load(weights + i) * headrace::log(derivative);  // where rows have weights, the
                                                                                    // mantissa is a sum of logarithms
                } else if (rows - i >= W) {
                    log.mantissa *= derivative;
                } else if (rows > i) {
                    log.mantissa *= (derivative - T(1)) * load_up_to(s.ones, rows - i) + T(1);
                }
            }
            if constexpr (!weighted) log.rescale();
        }
        logs[k] = log;
    }
}

template <class T>
double sum_of_lanes(Pack<T> v) {
    T lanes[width<T>];
    store(lanes, v);
    double sum = 0;
    for (const T lane : lanes) sum += double(lane);
    return sum;
}

// Computes sums of x² only, where no next map is chosen.
template <class T>
HR_FN void ascent_squares(const AscentStep<T>& s, const T* z, const T* weights, int rows, Pack<T>* acc) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    const int64_t height = s.tile_rows;
    for (int k = 0; k < s.features; ++k) {
        V sum = acc[k * ascent_sum_count + 1];
        for (int i = 0; i < rows; i += W) {
            V x = load(z + k * height + i);
            if (rows - i < W) x *= load_up_to(s.ones, rows - i);
            sum += weights ? load(weights + i) * x * x : x * x;
        }
        acc[k * ascent_sum_count + 1] = sum;
    }
}

template <class T>
void ascent_block(const AscentStep<T>& s, T* z, double* log_jacobian, const T* weights, int64_t rows, double* sums,
                  T* scratch) noexcept {
    using V = Pack<T>;
    constexpr int W = width<T>;
    const int64_t height = s.tile_rows, size = height * s.features;
    const int n_sums = s.features * ascent_sum_count;
    T* const moved = scratch;
    V* const acc = reinterpret_cast<V*>(scratch + size);
    auto* const logs = reinterpret_cast<LogProduct<V>*>(acc + n_sums);
    const bool logs_by_row = log_jacobian != nullptr;
    for (int i = 0; sums && i < n_sums; ++i) acc[i] = V{};
    for (int k = 0; k < s.features; ++k) logs[k] = weights ? LogProduct<V>{V{}, {}} : LogProduct<V>{};
    for (int64_t row = 0; row < rows; row += height, z += size) {
        const T* const ahead = row + height < rows ? z + size : nullptr;
        const T* const ahead_of_map = sums && s.next_center ? nullptr : ahead;
        const int n = int(rows - row < height ? rows - row : height);
        if (logs_by_row) {
            ascent_map(s, z, moved, log_jacobian + row, ahead_of_map);
        } else if (weights) {
            ascent_map_summed<true>(s, z, moved, weights + row, n, logs, ahead_of_map);
        } else {
            ascent_map_summed<false>(s, z, moved, weights, n, logs, ahead_of_map);
        }
        block_product(s.matrix, s.row, s.first, s.blocks, s.shift, moved, z, height, int(height / W));
        if (!sums) continue;
        if (!s.next_center) {
            ascent_squares(s, z, weights ? weights + row : nullptr, n, acc);
        } else if (weights) {
            ascent_sums<true>(s, z, weights + row, n, acc, ahead);
        } else {
            ascent_sums<false>(s, z, weights, n, acc, ahead);
        }
    }
    if (!sums) return;
    for (int i = 0; i < n_sums; ++i) sums[i] = sum_of_lanes<T>(acc[i]);
    for (int k = 0; k < s.features; ++k)
        sums[n_sums + k] = logs_by_row ? 0.0 : sum_of_lanes<T>(weights ? logs[k].mantissa : logs[k].log());
}

// Copies rows [0, rows) of a row-major array, with any strides, to tiles. ascent_store copies tiles to adjacent rows.
template <class T>
void ascent_load(const ArrayView& from, int64_t row, int64_t rows, int features, int tile_rows, T* z) noexcept {
    for (int64_t r = 0; r < rows; r += tile_rows) {
        const int n = int(rows - r < tile_rows ? rows - r : tile_rows);
        T* tile = z + r * features;
        load_array(from, features, static_cast<const int*>(nullptr), nullptr, nullptr, row + r, n, tile,
                   int64_t(tile_rows), int64_t(1));
    }
}

template <class T>
void ascent_store(const T* z, int64_t rows, int features, int tile_rows, T* out) noexcept {
    for (int64_t r = 0; r < rows; r += tile_rows) {
        const int n = int(rows - r < tile_rows ? rows - r : tile_rows);
        lines_to_rows(z + r * features, int64_t(tile_rows), features, static_cast<const int*>(nullptr), nullptr,
                      nullptr, n, out + r * features);
    }
}

}  // namespace
}  // namespace headrace
