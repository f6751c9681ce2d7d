// Maps of each coordinate with parameters that all rows share: those whose network reads nothing.
#pragma once

#include <vector>

#include "../math/maps.hpp"
#include "structure.hpp"

namespace headrace {

inline bool is_elementwise(const MaskedTransform& t) {
    return t.vector_map() < 0 && t.layers().size() == 1 && t.layers()[0].in == 0 &&
           int(t.options().active.size()) == t.options().features;
}

// So many ready parameters of a coordinate; 0 for other transforms, and for a map that has no form for ready ones.
inline int n_elementwise_ready(const MaskedTransform& t) {
    int n = 0;
    if (is_elementwise(t))
        with_map(t.map(), [&]<class Map>() {
            if constexpr (requires { Map::ready_factors; }) n = Map::n_ready(t.options().bins);
        });
    return n;
}

// Whether it gives its derivative from ready parameters.
inline bool has_ready_derivative(const MaskedTransform& t) {
    bool has = false;
    if (is_elementwise(t)) with_map(t.map(), [&]<class Map>() { has = requires { Map::has_ready_derivative; }; });
    return has;
}

template <class T>
MapOptions<T> map_options_of(const MaskedTransform& t) {
    const MaskedOptions& o = t.options();
    return map_options<T>(t.map(), o.slope, o.bins, o.low.value_or(-o.bound), o.bound, o.min_bin);
}

// The ready parameters of a marginal map, in the order of the slots; `slots`: of each coordinate.
template <class T>
std::vector<T> ready_by_slot(const StepSpec& spec, const std::vector<int>& slots) {
    const MaskedTransform& t = *spec.masked;
    const MapOptions<double> options = map_options_of<double>(t);
    const size_t n_ready = size_t(n_elementwise_ready(t)), n_params = size_t(t.n_params());
    std::vector<T> ready(n_ready * slots.size());
    for (size_t c = 0; c < slots.size(); ++c) {
        const double* const raw = spec.fixed.data() + c * n_params;
        T* const out = ready.data() + size_t(slots[c]) * n_ready;
        with_map(t.map(), [&]<class Map>() {
            if constexpr (requires { Map::ready_factors; })
                Map::template prepare<double>([&](int j) { return raw[j]; }, options,
                                              [&](int j, double value) { out[j] = T(value); });
        });
    }
    return ready;
}

}  // namespace headrace
