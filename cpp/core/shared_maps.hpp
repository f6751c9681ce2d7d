// Maps of each coordinate with parameters that all rows share, so that the conditioner has no inputs.
#pragma once

#include <vector>

#include "../math/maps.hpp"
#include "specs.hpp"

namespace headrace {

// Whether a map has the same parameters for all rows and moves all coordinates.
inline bool is_shared(const NetworkSpec& s, int features) {
    return s.conditioner->is_constant() && int(s.conditioner->active_order(features).size()) == features;
}

// The number of ready parameters of a coordinate; 0 for a map without ready parameters.
inline int n_ready_of(const TransformMap& map) {
    int n = 0;
    if (!map.is_vector())
        with_map(map.index(), [&]<class Map>() {
            if constexpr (requires { Map::ready_factors; }) n = Map::n_ready(map.settings().bins);
        });
    return n;
}

// The number of ready parameters of a map with the same parameters for all rows; 0 for any other map.
inline int n_elementwise_ready(const NetworkSpec& s, int features) {
    return is_shared(s, features) ? n_ready_of(*s.map) : 0;
}

// Whether a map computes its derivative from ready parameters.
inline bool has_ready_derivative(const TransformMap& map) {
    bool has = false;
    if (!map.is_vector()) with_map(map.index(), [&]<class Map>() { has = requires { Map::has_ready_derivative; }; });
    return has;
}

// The step of a marginal map, whose ready parameters are computed once, when the step is made.
template <class T>
MarginalStep<T> MarginalSpec::lowered(const StepSide& side) const {
    const MapOptions<double> options = map->options<double>();
    const size_t n_ready = size_t(n_ready_of(*map)), n_params = size_t(map->n_params(1));
    std::vector<T> ready(n_ready * side.slots.size());
    for (size_t c = 0; c < side.slots.size(); ++c) {
        const double* const raw = parameters.data() + c * n_params;
        T* const out = ready.data() + size_t(side.slots[c]) * n_ready;
        with_map(map->index(), [&]<class Map>() {
            if constexpr (requires { Map::ready_factors; })
                Map::template prepare<double>([&](int j) { return raw[j]; }, options,
                                              [&](int j, double value) { out[j] = T(value); });
        });
    }
    return {{map->index(), side.to_data != map->settings().formula_to_data, map->options<T>(), int(n_ready),
             side.kept.keep(std::move(ready))}};
}

}  // namespace headrace
