// A map in a direction that is chosen at run time or at compile time.
//
// A map whose directions share most of their code has `run`, `run_vjp` and `run_ready`, with a parameter `inverse` for
// the direction. Where lanes are vectors, `inverse` is a Direction, and both directions are compiled; on a device,
// where each compiled direction adds to the module's size, `inverse` is one bool for all lanes.
#pragma once

#include "../lane.hpp"
#include "options.hpp"

namespace headrace {
namespace {

// A std::bool_constant that devices can use, because the conversion of the standard type is a host-only function.
template <bool is_inverse>
struct Direction {
    HR_FN constexpr operator bool() const { return is_inverse; }
};

// The functions that affine.hpp describes, made from `run`, `run_vjp` and `run_ready` of a map.
template <class Map>
struct Directions {  // NOLINT(bugprone-crtp-constructor-accessibility): maps are names of functions, never objects
    template <class V, class P>
    HR_FN static V forward(V z, const P& p, const MapOptions<Scalar<V>>& o, V& log_det) {
        return Map::run(Direction<false>{}, z, p, o, log_det);
    }
    template <class V, class P>
    HR_FN static V inverse(V x, const P& p, const MapOptions<Scalar<V>>& o, V& log_det) {
        return Map::run(Direction<true>{}, x, p, o, log_det);
    }
    template <class V, class P, class G>
    HR_FN static V forward_vjp(V z, V x, const P& p, const MapOptions<Scalar<V>>& o, V grad_x, V grad_log_det,
                               const G& grad) {
        return Map::run_vjp(Direction<false>{}, z, x, p, o, grad_x, grad_log_det, grad);
    }
    template <class V, class P, class G>
    HR_FN static V inverse_vjp(V x, V z, const P& p, const MapOptions<Scalar<V>>& o, V grad_z, V grad_log_det,
                               const G& grad) {
        return Map::run_vjp(Direction<true>{}, x, z, p, o, grad_z, grad_log_det, grad);
    }
    template <class V>
    HR_FN static V ready_forward(V z, const Scalar<V>* ready, const MapOptions<Scalar<V>>& o, V& factor) {
        return Map::run_ready(Direction<false>{}, z, ready, o, factor);
    }
    template <class V>
    HR_FN static V ready_inverse(V x, const Scalar<V>* ready, const MapOptions<Scalar<V>>& o, V& factor) {
        return Map::run_ready(Direction<true>{}, x, ready, o, factor);
    }
};

// Evaluates a map on a device, by one call of code for both directions if the map has such code.
template <class Map, class V, class P>
HR_FN V run_direction(bool inverse, V value, const P& p, const MapOptions<Scalar<V>>& o, V& log_det) {
    if constexpr (requires { Map::run(inverse, value, p, o, log_det); }) {
        return Map::run(inverse, value, p, o, log_det);
    } else if (inverse) {
        return Map::inverse(value, p, o, log_det);
    } else {
        return Map::forward(value, p, o, log_det);
    }
}
template <class Map, class V, class P, class G>
HR_FN V run_direction_vjp(bool inverse, V given, V built, const P& p, const MapOptions<Scalar<V>>& o, V grad_built,
                          V grad_log_det, const G& grad) {
    if constexpr (requires { Map::run_vjp(inverse, given, built, p, o, grad_built, grad_log_det, grad); }) {
        return Map::run_vjp(inverse, given, built, p, o, grad_built, grad_log_det, grad);
    } else if (inverse) {
        return Map::inverse_vjp(given, built, p, o, grad_built, grad_log_det, grad);
    } else {
        return Map::forward_vjp(given, built, p, o, grad_built, grad_log_det, grad);
    }
}
template <class Map, class V>
HR_FN V run_ready_direction(bool inverse, V value, const Scalar<V>* ready, const MapOptions<Scalar<V>>& o, V& factor) {
    if constexpr (requires { Map::run_ready(inverse, value, ready, o, factor); }) {
        return Map::run_ready(inverse, value, ready, o, factor);
    } else if (inverse) {
        return Map::ready_inverse(value, ready, o, factor);
    } else {
        return Map::ready_forward(value, ready, o, factor);
    }
}

}  // namespace
}  // namespace headrace
