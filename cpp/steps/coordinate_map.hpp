// A map of single coordinates in a step: the map, its direction and its slots.
#pragma once

#include "../math/maps/options.hpp"

namespace headrace {

template <class T>
struct CoordinateMap {
    int index, n_params;
    MapOptions<T> options;
    bool inverse;              // direction of the map
    int n;                     // number of coordinates
    const int *given, *built;  // slots of the coordinates, in the order of their parameters
};

namespace {

template <class T, class F>
HR_FN void for_arrays(CoordinateMap<T>& map, const F& f) {
    f(map.given, map.n);
    f(map.built, map.n);
}

}  // namespace
}  // namespace headrace
