// Parameters that all rows share become ready parameters once a call, in float64; in the backward pass gradients by
// ready parameters become gradients by raw parameters. Parts are independent. `weights` and `ready` are pointers, or
// types used like pointers (cuda/kernels/either.cuh).
#pragma once

#include "../math/maps.hpp"
#include "../math/vector_maps.hpp"
#include "steps.hpp"

namespace headrace {
namespace {

// ---- steps without ready parameters ---------------------------------------------------------------------------------

template <class S>
HR_FN int ready_parts(const S&, int) {
    return 0;
}
template <class S, class In, class Out>
HR_FN void prepare_part(const S&, int, int, const In&, const Out&) {}
// Whether gradients by the ready parameters of a step are converted to gradients by raw parameters after the last row.
template <class S>
constexpr bool needs_finish = false;

// ---- a map of each coordinate, coordinate by coordinate; rows have gradients by raw parameters ----------------------

template <class T>
HR_FN int ready_parts(const ElementwiseStep<T>&, int features) {
    return features;
}

template <class T, class In, class Out>
HR_FN void prepare_part(const ElementwiseStep<T>& s, int slot, int, const In& weights, const Out& ready) {
    const MapOptions<double> options = in_float64(s.map.options);
    const auto raw = weights + s.weights + s.coordinate[slot] * s.map.n_params;
    const auto out = ready + s.ready + int64_t(slot) * s.n_ready;
    with_map(s.map.index, [&]<class Map>() {
        if constexpr (requires { Map::ready_factors; })
            Map::template prepare<double>([&](int k) { return double(raw[k]); }, options,
                                          [&](int k, double value) { out[k] = T(value); });
    });
}

// ---- a run of vector maps, transform by transform -------------------------------------------------------------------

template <class T>
HR_FN int ready_parts(const VectorStep<T>& s, int) {
    return s.transforms;
}

template <class T, class In, class Out>
HR_FN void prepare_part(const VectorStep<T>& s, int i, int features, const In& weights, const Out& ready) {
    const int* const coordinate = s.coordinate + int64_t(i) * features;
    const auto raw = weights + s.weights[i];
    const auto out = ready + s.ready + int64_t(i) * s.n_ready;
    with_vector_map(s.map, [&]<class Map>() {
        Map::template prepare<double>(
            [&](int k) { return double(raw[in_coordinate_order(k, Map::vectors, features, coordinate)]); }, features,
            [&](int k, double value) { out[k] = T(value); });
    });
}

template <class T>
constexpr bool needs_finish<VectorStep<T>> = true;

// Calls put(k, the gradient by raw parameter k), where given(k) is the gradient by ready parameter k.
template <class T, class In, class Given, class Put>
HR_FN void finish_part(const VectorStep<T>& s, int i, int features, const In& weights, const Given& given,
                       const Put& put) {
    const int* const coordinate = s.coordinate + int64_t(i) * features;
    const auto raw = weights + s.weights[i];
    with_vector_map(s.map, [&]<class Map>() {
        const auto place = [&](int k) { return in_coordinate_order(k, Map::vectors, features, coordinate); };
        Map::template prepare_vjp<double>([&](int k) { return double(raw[place(k)]); }, given, features,
                                          [&](int k, double value) { put(place(k), value); });
    });
}

}  // namespace
}  // namespace headrace
