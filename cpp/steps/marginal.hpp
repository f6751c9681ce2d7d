// A map of each coordinate with fixed parameters, which are made ready when the chain is compiled. Fixed parameters are
// no weights: only rows have gradients.
#pragma once

#include <cstdint>

#include "../math/maps/options.hpp"

namespace headrace {

// A map of each coordinate with ready parameters, slot by slot.
template <class T>
struct ReadyMap {
    int index;
    bool inverse;  // direction of the map
    MapOptions<T> options;
    int n_ready;  // number of ready parameters of a slot
    const T* ready;
};

template <class T>
struct MarginalStep {
    static constexpr bool in_place = true;

    ReadyMap<T> map;
};

namespace {

template <class T>
HR_FN ReadyMap<T> ready_map(const MarginalStep<T>& s, const T*) {
    return s.map;
}

template <class T, class F>
HR_FN void for_arrays(MarginalStep<T>& s, int features, const F& f) {
    f(s.map.ready, int64_t(features) * s.map.n_ready);
}

}  // namespace
}  // namespace headrace
