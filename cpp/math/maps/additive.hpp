// additive: x = shift + z; the volume-preserving map of NICE (Dinh, Krueger, Bengio 2015).
#pragma once

#include "../lane.hpp"
#include "options.hpp"

namespace headrace {
namespace {

struct Additive {
    static constexpr char meaning[] = "a straight line of scale 1";
    static constexpr std::array<MapParameters, 1> parameters(int) { return {{{"shift", 1}}}; }

    HR_FN static constexpr int n_params(int) { return 1; }

    template <class V, class P>
    HR_FN static V forward(V z, const P& p, const MapOptions<Scalar<V>>&, V& log_det) {
        log_det = splat<V>(0);
        return z + p(0);
    }
    template <class V, class P>
    HR_FN static V inverse(V x, const P& p, const MapOptions<Scalar<V>>&, V& log_det) {
        log_det = splat<V>(0);
        return x - p(0);
    }
    template <class V, class P, class G>
    HR_FN static V forward_vjp(V, V, const P&, const MapOptions<Scalar<V>>&, V grad_x, V, const G& grad) {
        grad(0, grad_x);
        return grad_x;
    }
    template <class V, class P, class G>
    HR_FN static V inverse_vjp(V, V, const P&, const MapOptions<Scalar<V>>&, V grad_z, V, const G& grad) {
        grad(0, -grad_z);
        return grad_z;
    }
};

}  // namespace
}  // namespace headrace
