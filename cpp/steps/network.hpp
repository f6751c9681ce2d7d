// A step of a conditioner and the map whose raw parameters the conditioner computes.
#pragma once

#include <cstdint>

#include "conditioners.hpp"
#include "coordinate_map.hpp"

namespace headrace {

template <class T>
struct NetworkStep {
    static constexpr bool in_place = false;

    CoordinateMap<T> map;  // map of the active coordinates, position by position
    int vector_map;        // kind of the vector map whose raw parameters all outputs form together; -1: outputs are
                           // parameters of `map`
    int ready, tape_ready, n_ready;  // first line of the map's ready parameters in scratch and on the tape, and their
                                     // number
    bool reads_built;                // whether the direction is sequential: inputs are coordinates that are being built
    int input_slot;                  // first slot of the conditioner's inputs, after any context that it does not read
    int64_t weights;                 // start of the conditioner's weights in the flow's weight vector
    int64_t rounded, rounded_back;   // starts of the conditioner's weights among the flow's rounded weights, in forward
                                     // and in backward order
    int fold;                        // index of the first folded value, or -1 (no context)
    uint32_t stream;                 // stream of the random values of dropout, different for each network of a flow
    int64_t tape;                    // first line of the step on the tape
    int n_passive;
    const int *passive_given, *passive_built;  // slots of the coordinates that are copied
    AnyConditioner<T> conditioner;
};

namespace {

// The number of positions that are computed at once: all in the parallel direction, one in the sequential direction.
template <class T>
HR_FN int span_of(const NetworkStep<T>& s, int positions) {
    return s.reads_built ? 1 : positions;
}

template <class T, class F>
HR_FN void for_arrays(NetworkStep<T>& s, int, const F& f) {
    for_arrays(s.map, f);
    f(s.passive_given, s.n_passive);
    f(s.passive_built, s.n_passive);
}

}  // namespace
}  // namespace headrace
