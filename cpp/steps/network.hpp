// A conditioner, and the map whose raw parameters it gives.
#pragma once

#include <cstdint>

#include "conditioners.hpp"
#include "coordinate_map.hpp"

namespace headrace {

template <class T>
struct NetworkStep {
    static constexpr bool in_place = false;

    CoordinateMap<T> map;  // map of the active coordinates, position by position
    int vector_map;        // all parameters together are the raw ones of this vector map; -1: they are those of `map`
    int ready, tape_ready, n_ready;  // first line of its ready parameters in scratch and on the tape, and their number
    bool reads_built;                // the sequential direction: the conditioner reads coordinates that are being built
    int input_slot;                  // start of its inputs: after a context that it does not read
    int64_t weights;                 // start of its weights in the flow's weight vector,
    int64_t rounded, rounded_back;   // and in the flow's rounded weights, for either order
    int fold;                        // index of the first folded value, or -1 (no context)
    uint32_t stream;                 // stream of the random values of dropout: another one for each network of a flow
    int64_t tape;                    // first line of the tape
    int n_passive;
    const int *passive_given, *passive_built;  // coordinates that are copied
    AnyConditioner<T> conditioner;
};

namespace {

// In the parallel direction all positions are computed at once, in the sequential one they come one after another.
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
