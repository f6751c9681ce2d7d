// A map of each coordinate with parameters that all rows share. Ready parameters are computed once a call. For the
// backward pass the tape has raw parameters for every row, which gradients by these parameters replace.
#pragma once

#include <cstdint>

#include "../math/lane.hpp"
#include "coordinate_map.hpp"
#include "marginal.hpp"

namespace headrace {

template <class T>
struct ElementwiseStep {
    static constexpr bool in_place = true;

    CoordinateMap<T> map;
    int n_ready;
    int64_t ready;          // start of the step's part, in slot order, of the chain's ready parameters
    int64_t weights;        // start of the raw parameters in the flow's weight vector, coordinate by coordinate
    const int* coordinate;  // coordinate index of each slot
    int64_t tape_raw;       // first line of the tape with raw parameters
};

namespace {

// The map of an elementwise step, with the ready parameters of a call.
template <class T>
HR_FN ReadyMap<T> ready_map(const ElementwiseStep<T>& s, const T* all_ready) {
    return {s.map.index, s.map.inverse, s.map.options, s.n_ready, all_ready + s.ready};
}

template <class T>
HR_FN ElementwiseStep<double> in_float64(const ElementwiseStep<T>& s) {
    const CoordinateMap<double> map{s.map.index, s.map.n_params, in_float64(s.map.options), s.map.inverse, s.map.n,
                                    s.map.given, s.map.built};
    return {map, s.n_ready, s.ready, s.weights, s.coordinate, s.tape_raw};
}

template <class T, class F>
HR_FN void for_arrays(ElementwiseStep<T>& s, int features, const F& f) {
    for_arrays(s.map, f);
    f(s.coordinate, features);
}

}  // namespace

}  // namespace headrace
