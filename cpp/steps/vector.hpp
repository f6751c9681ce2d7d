// A run of vector maps, each with one set of parameters for all rows. Ready parameters are computed once a call, in the
// order of the slots.
#pragma once

#include <cstdint>

#include "../math/maps/options.hpp"

namespace headrace {

template <class T>
struct VectorStep {
    static constexpr bool in_place = true;

    int map;
    bool inverse;  // direction of the maps
    MapOptions<T> options;
    int transforms, n_ready;
    int64_t ready;           // start of the step's part of the chain's ready parameters
    const int64_t* weights;  // start of each transform's raw parameters in the flow's weight vector
    const int* coordinate;   // coordinate index of each slot, transform by transform
    int64_t tape_states;     // first line of the tape with coordinates between the transforms
    int64_t tape_gradients;  // first line of the tape with gradients by the ready parameters, transform by transform
};

namespace {

template <class T>
HR_FN VectorStep<double> in_float64(const VectorStep<T>& s) {
    return {s.map,   s.inverse, in_float64(s.options), s.transforms,  s.n_ready,
            s.ready, s.weights, s.coordinate,          s.tape_states, s.tape_gradients};
}

template <class T, class F>
HR_FN void for_arrays(VectorStep<T>& s, int features, const F& f) {
    f(s.weights, s.transforms);
    f(s.coordinate, int64_t(s.transforms) * features);
}

}  // namespace
}  // namespace headrace
