// One step of the dual ascent of the log-likelihood on a block of rows, read and written once: the last map, the
// logarithm of its derivatives, the next affine map, and the sums from which the next map is chosen.
#pragma once

#include "../ascent.hpp"
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

// Sums over rows [0, rows) of a tile are added to acc, six vectors a coordinate.
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

template <class T>
void ascent_block(const AscentStep<T>& s, T* z, double* log_jacobian, const T* weights, int64_t rows, double* sums,
                  T* scratch) noexcept {
    constexpr int W = width<T>;
    const int64_t height = s.tile_rows, size = height * s.features;
    T* const moved = scratch;
    Pack<T>* const acc = reinterpret_cast<Pack<T>*>(scratch + size);
    if (sums)
        for (int i = 0; i < s.features * ascent_sum_count; ++i) acc[i] = Pack<T>{};
    for (int64_t row = 0; row < rows; row += height, z += size, log_jacobian += height) {
        const T* const ahead = row + height < rows ? z + size : nullptr;
        ascent_map(s, z, moved, log_jacobian, sums ? nullptr : ahead);
        block_product(s.matrix, s.row, s.first, s.blocks, s.shift, moved, z, height, int(height / W));
        if (!sums) continue;
        const int n = int(rows - row < height ? rows - row : height);
        if (weights) {
            ascent_sums<true>(s, z, weights + row, n, acc, ahead);
        } else {
            ascent_sums<false>(s, z, weights, n, acc, ahead);
        }
    }
    for (int i = 0; sums && i < s.features * ascent_sum_count; ++i) {
        T lanes[W];
        store(lanes, acc[i]);
        double sum = 0;
        for (int l = 0; l < W; ++l) sum += double(lanes[l]);
        sums[i] = sum;
    }
}

// Rows [0, rows) of row-major numbers, in any strides, to tiles; and tiles to adjacent rows.
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
