// Vector maps of a row by the lanes that share the row, and sums of gradients over rows, for the kernels of rows in
// shared memory and of long rows.
#pragma once

#include "../../cpp/core/views.hpp"
#include "../../cpp/math/vector_maps.hpp"
#include "../include/launch.cuh"
#include "rows.cuh"

namespace headrace {
namespace {

// The lanes that share a row (cpp/math/coordinates.hpp).
struct RowLanes {
    int first, step;

    template <class T>
    __device__ __forceinline__ T sum(T own) const {
        return sum_of_lanes(own, step);
    }
    template <class T>
    __device__ __forceinline__ T largest(T own) const {
        return largest_of_lanes(own, step);
    }
};

// The parameters of a row, or of all rows, in type V.
template <class V, class P>
struct RowParams {
    RowLanes lanes;
    P p;
    __device__ __forceinline__ V operator()(int k, int = 0) const { return V(p[k]); }
};

// The largest number of ready parameters, and of raw ones, that do not belong to a coordinate.
constexpr int others = 2;

// Receives values for parameters. Values for coordinates are stored immediately, because each belongs to one lane;
// other values are stored when all lanes have read the previous values.
template <class To, class T>
struct Receiver {
    To to;
    int of_coordinates;
    T other[others];

    template <class V>
    __device__ __forceinline__ void put(int k, V value) {
        if (k < of_coordinates) {
            to[k] = T(value);
        } else if (k == of_coordinates) {
            other[0] = T(value);
        } else {
            other[1] = T(value);
        }
    }
    __device__ __forceinline__ void finish(const RowLanes& lanes, int count) {
        __syncwarp();
        if (lanes.first == 0)
            for (int i = 0; i < others; ++i)
                if (of_coordinates + i < count) to[of_coordinates + i] = other[i];
        __syncwarp();
    }
};

// Converts raw parameters to ready ones, in type V; `ready` may be the memory of the raw parameters.
template <class Map, class V, class P, class To>
__device__ __forceinline__ void prepare_row(const P& raw, int features, const To& ready) {
    static_assert(Map::n_ready(1) - Map::vectors == others && Map::n_raw(1) - Map::vectors <= others);
    Receiver<To, V> to{ready, Map::vectors * features, {}};
    Map::template prepare<V>(raw, features, [&](int k, V value) { to.put(k, value); });
    to.finish(raw.lanes, Map::n_ready(features));
}

// Converts gradients by ready parameters to gradients by raw ones; `grad_raw` may be the memory of the raw parameters.
template <class Map, class V, class P, class G, class To>
__device__ __forceinline__ void prepare_row_vjp(const P& raw, const G& grad_ready, int features, const To& grad_raw) {
    Receiver<To, V> to{grad_raw, Map::vectors * features, {}};
    Map::template prepare_vjp<V>(raw, grad_ready, features, [&](int k, V g) { to.put(k, g); });
    to.finish(raw.lanes, Map::n_raw(features));
}

template <class Map, class T, class P>
__device__ __forceinline__ T start_of_lane(const P& p, int features) {
    const T start = Map::template start<T>(p, features);
    return p.lanes.first == 0 ? start : T(0);
}

// Computes the amount by which a row moves, and the factors of its determinant.
template <class Map, bool inverse, class T, class P>
__device__ __forceinline__ void amount_of(const T* given, const P& p, int features, const MapOptions<T>& options,
                                          T (&amount)[1], T (&factor)[1][Map::factors]) {
    T sum[1] = {start_of_lane<Map, T>(p, features)};
    HR_ROLLED
    for (int c = p.lanes.first; c < features; c += p.lanes.step)
        sum[0] = Map::accumulate(sum[0], given[c], p, c, features);
    sum[0] = p.lanes.sum(sum[0]);
    if constexpr (inverse) {
        Map::inverse(sum, p, features, options, amount, factor);
    } else {
        Map::forward(sum, p, features, options, amount, factor);
    }
}

// Maps a row by its lanes, and returns the log-determinant; `built` may be `given`.
template <class Map, bool inverse, class T, class P>
__device__ __forceinline__ T run_row(const T* given, const P& p, int features, const MapOptions<T>& options, T* built) {
    T amount[1], factor[1][Map::factors];
    amount_of<Map, inverse>(given, p, features, options, amount, factor);
    HR_ROLLED
    for (int c = p.lanes.first; c < features; c += p.lanes.step)
        built[c] = Map::move(given[c], amount[0], p, c, features);
    T total = 0;
    for (int f = 0; f < Map::factors; ++f) total = fma(log(factor[0][f]), T(Map::power(f, features)), total);
    return inverse ? -total : total;
}

// Computes the gradient by the input, which may replace the gradient by the output, and by the ready parameters, which
// may replace the parameters.
template <class Map, bool inverse, class T, class P>
__device__ __forceinline__ void run_row_vjp(const T* given, const P& p, int features, const MapOptions<T>& options,
                                            const T* grad_built, T grad_log_det, T* grad_given, T* grad_ready) {
    T amount[1] = {0};
    if constexpr (inverse) {
        T factor[1][Map::factors];
        amount_of<Map, inverse>(given, p, features, options, amount, factor);
    }
    auto sums = Map::reduced(start_of_lane<Map, T>(p, features));
    HR_ROLLED
    for (int c = p.lanes.first; c < features; c += p.lanes.step) {
        const T latent = inverse ? Map::move(given[c], amount[0], p, c, features) : given[c];
        Map::reduce(sums, given[c], latent, grad_built[c], p, c, features);
    }
    sums.each([&](T& sum) { sum = p.lanes.sum(sum); });
    Receiver<T*, T> to{grad_ready, Map::vectors * features, {}};
    const auto put = [&](int k, T g) { to.put(k, g); };
    const auto of_row = Map::template backward<inverse>(sums, grad_log_det, p, features, options, put);
    HR_ROLLED
    for (int c = p.lanes.first; c < features; c += p.lanes.step)
        grad_given[c] = Map::spread(of_row, given[c], grad_built[c], p, c, features, put);
    to.finish(p.lanes, Map::n_ready(features));
}

// Maps a row by the map and in the direction of the call; a kernel contains the code of each map once.
template <class T, class P>
__device__ __forceinline__ T run_row_of(const VectorRows<T>& a, const T* given, const P& p, T* built) {
    T log_det = 0;
    with_vector_map(a.map, [&]<class Map>() {
        log_det = a.inverse ? run_row<Map, true>(given, p, a.features, a.options, built)
                            : run_row<Map, false>(given, p, a.features, a.options, built);
    });
    return log_det;
}
template <class V, class T, class P, class To>
__device__ __forceinline__ void prepare_row_of(const VectorRows<T>& a, const P& raw, const To& ready) {
    with_prepared_map(a.map, [&]<class Map>() { prepare_row<Map, V>(raw, a.features, ready); });
}
template <class T, class P>
__device__ __forceinline__ void run_row_vjp_of(const VectorRows<T>& a, const T* given, const P& p, const T* grad_built,
                                               T grad_log_det, T* grad_given, T* grad_ready) {
    with_vector_map(a.map, [&]<class Map>() {
        if (a.inverse) {
            run_row_vjp<Map, true>(given, p, a.features, a.options, grad_built, grad_log_det, grad_given, grad_ready);
        } else {
            run_row_vjp<Map, false>(given, p, a.features, a.options, grad_built, grad_log_det, grad_given, grad_ready);
        }
    });
}
template <class V, class T, class P, class G, class To>
__device__ __forceinline__ void prepare_row_vjp_of(const VectorRows<T>& a, const P& raw, const G& grad_ready,
                                                   const To& grad_raw) {
    with_prepared_map(a.map, [&]<class Map>() { prepare_row_vjp<Map, V>(raw, grad_ready, a.features, grad_raw); });
}

// ---- sums over rows -------------------------------------------------------------------------------------------------

// A block's sums over rows of gradients by n_ready parameters: several threads sum each gradient, over a share of the
// rows.
struct BlockSums {
    double* sums;  // sums [part][n_ready] of the block
    int n_ready, parts;

    __device__ __forceinline__ BlockSums(double* all, int n)
        : n_ready(n), parts(int(blockDim.x) / n > 1 ? int(blockDim.x) / n : 1) {
        sums = all + int64_t(blockIdx.x) * parts * n_ready;
    }
    // Sums rows [0, n) of `gradients`; `first` is false where the result is added to earlier sums.
    template <class T>
    __device__ __forceinline__ void add(const T* gradients, int64_t stride, int n, bool first) const {
        const int64_t size = int64_t(parts) * n_ready;
        for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
            const int part = int(i / n_ready);
            const T* const g = gradients + i % n_ready;
            double sum = first ? 0.0 : sums[i];
            for (int r = part; r < n; r += parts) sum += double(g[r * stride]);
            sums[i] = sum;
        }
    }
    // Adds all parts to part 0; called after a barrier.
    __device__ __forceinline__ void finish() const {
        if (parts == 1) return;
        for (int k = int(threadIdx.x); k < n_ready; k += int(blockDim.x)) {
            double sum = sums[k];
            for (int part = 1; part < parts; ++part) sum += sums[part * n_ready + k];
            sums[k] = sum;
        }
    }
};

inline int parts_of_sums(int n_ready) {
    return vector_threads / n_ready > 1 ? vector_threads / n_ready : 1;
}

}  // namespace
}  // namespace headrace
