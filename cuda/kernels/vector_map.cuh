// One vector map of a row, computed by one lane, and its vector-Jacobian product.
#pragma once

#include "../../cpp/math/vector_maps.hpp"
#include "tile.cuh"

namespace headrace {
namespace {

// Values of a row on the lines of a tile, by the index k of a line; the second index, which a vector map also passes,
// has no effect.
template <class T, bool in_shared>
struct LineNumbers {
    Lines<T, in_shared> lines;
    int lane;
    __device__ T operator()(int k, int = 0) const { return lines.at(k, lane); }
};
template <class T>
struct SharedNumbers {
    const T* p;
    __device__ T operator()(int k, int = 0) const { return p[k]; }
};

// Computes one vector map from given(c) to put(c, value) for all coordinates c. `alone` is true where no other work
// hides the latency of the map's loads, so that its loops are unrolled.
template <class Map, bool alone, class T, class P, class Given, class Put>
__device__ T run_vector_map(bool inverse, const P& p, int features, const MapOptions<T>& options, const Given& given,
                            const Put& put) {
    T sum[1] = {Map::template start<T>(p, features)}, amount[1], factor[1][Map::factors];
    HR_ROLLED_UNLESS(alone)
    for (int c = 0; c < features; ++c) sum[0] = Map::accumulate(sum[0], given(c), p, c, features);
    if (inverse) {
        Map::inverse(sum, p, features, options, amount, factor);
    } else {
        Map::forward(sum, p, features, options, amount, factor);
    }
    HR_ROLLED_UNLESS(alone)
    for (int c = 0; c < features; ++c) put(c, Map::move(given(c), amount[0], p, c, features));
    T total = 0;
    for (int f = 0; f < Map::factors; ++f) total = fma(log(factor[0][f]), T(Map::power(f, features)), total);
    return inverse ? -total : total;
}

// Computes the vector-Jacobian product of one vector map from given(c), built(c) and grad_built(c), and passes results
// to put_given(c, gradient) and put(k, gradient by ready parameter k). run_vector_map describes `alone`.
template <class Map, bool alone, class T, class P, class Given, class Built, class GradBuilt, class PutGiven, class Put>
__device__ void vector_map_vjp(bool inverse, const P& p, int features, const MapOptions<T>& options, T grad_log_det,
                               const Given& given, const Built& built, const GradBuilt& grad_built,
                               const PutGiven& put_given, const Put& put) {
    auto sums = Map::reduced(Map::template start<T>(p, features));
    HR_ROLLED_UNLESS(alone)
    for (int c = 0; c < features; ++c)
        Map::reduce(sums, given(c), inverse ? built(c) : given(c), grad_built(c), p, c, features);
    const auto spread = [&](const auto& shared) {
        HR_ROLLED_UNLESS(alone)
        for (int c = 0; c < features; ++c)
            put_given(c, Map::spread(shared, given(c), grad_built(c), p, c, features, put));
    };
    if (inverse) {
        spread(Map::template backward<true>(sums, grad_log_det, p, features, options, put));
    } else {
        spread(Map::template backward<false>(sums, grad_log_det, p, features, options, put));
    }
}

}  // namespace
}  // namespace headrace
