// A map of each coordinate with fixed numbers, ready when the chain is compiled: they are no weights, and rows alone
// have gradients.
#pragma once

#include "../math/maps/options.hpp"

namespace headrace {

// A map of each coordinate with ready parameters, slot by slot.
template <class T>
struct ReadyMap {
    int index;
    bool inverse;  // which way the map runs
    MapOptions<T> options;
    int n_ready;  // of a slot
    const T* ready;
};

template <class T>
struct MarginalStep {
    static constexpr bool in_place = true;

    ReadyMap<T> map;
};

}  // namespace headrace
