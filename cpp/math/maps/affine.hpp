// affine: x = shift + scale z, z = (x - shift) / scale; eq. 35-41 of the notes.
//
// A map's parameters come through an accessor p(k). forward and inverse give the log-derivative of the direction
// called. forward_vjp and inverse_vjp get the value given and the value built, and the gradients of some number with
// respect to the value built and to the log-derivative; they return its gradient with respect to the value given and
// hand that of parameter k to grad(k, gradient). grad(k) may overwrite what p(k) reads, so p(k) is read before.
//
// A map may also have a form for parameters that all rows share: `prepare` makes ready numbers of them once a call, and
// `ready_forward` and `ready_inverse` run on these. They give the derivative of the *forward* direction as a factor, so
// that a row's are multiplied and one logarithm is taken; so many of them fit between 1e-30 and 1e30 in float32.
#pragma once

#include "../lane.hpp"
#include "options.hpp"

namespace headrace {
namespace {

// How a raw network output becomes a positive scale. `scale` and `reciprocal` also give log(scale); `log_slope` is the
// derivative of log(scale).

// log scale = a / (1 + |a| / log(1 / slope)): between slope and 1 / slope for every a, so nothing overflows.
struct SoftClamp {
    template <class V>
    HR_FN static V log_scale(V a, const MapOptions<Scalar<V>>& o) {
        return a / (abs(a) * o.inverse_clamp + Scalar<V>(1));
    }
    template <class V>
    HR_FN static V scale(V a, const MapOptions<Scalar<V>>& o, V& log_scale_) {
        log_scale_ = log_scale(a, o);
        return exp(log_scale_);
    }
    template <class V>
    HR_FN static V reciprocal(V a, const MapOptions<Scalar<V>>& o, V& log_scale_) {
        log_scale_ = log_scale(a, o);
        return exp(-log_scale_);
    }
    template <class V>
    HR_FN static V log_slope(V a, const MapOptions<Scalar<V>>& o) {
        const V f = Scalar<V>(1) / (abs(a) * o.inverse_clamp + Scalar<V>(1));
        return f * f;
    }
};

// scale = e^a.
struct Exponential {
    template <class V>
    HR_FN static V scale(V a, const MapOptions<Scalar<V>>&, V& log_scale) {
        log_scale = a;
        return exp(a);
    }
    template <class V>
    HR_FN static V reciprocal(V a, const MapOptions<Scalar<V>>&, V& log_scale) {
        log_scale = a;
        return exp(-a);
    }
    template <class V>
    HR_FN static V log_slope(V, const MapOptions<Scalar<V>>&) {
        return splat<V>(1);
    }
};

// scale = softplus(a) + slope.
struct SoftplusScale {
    template <class V>
    HR_FN static V scale(V a, const MapOptions<Scalar<V>>& o, V& log_scale) {
        const V s = softplus(a) + o.slope;
        log_scale = log(s);
        return s;
    }
    template <class V>
    HR_FN static V reciprocal(V a, const MapOptions<Scalar<V>>& o, V& log_scale) {
        return Scalar<V>(1) / scale(a, o, log_scale);
    }
    template <class V>
    HR_FN static V log_slope(V a, const MapOptions<Scalar<V>>& o) {
        return sigmoid(a) / (softplus(a) + o.slope);
    }
};

// scale = sigmoid(a + 2) + slope.
struct SigmoidScale {
    template <class V>
    HR_FN static V scale(V a, const MapOptions<Scalar<V>>& o, V& log_scale) {
        const V s = sigmoid(a + Scalar<V>(2)) + o.slope;
        log_scale = log(s);
        return s;
    }
    template <class V>
    HR_FN static V reciprocal(V a, const MapOptions<Scalar<V>>& o, V& log_scale) {
        return Scalar<V>(1) / scale(a, o, log_scale);
    }
    template <class V>
    HR_FN static V log_slope(V a, const MapOptions<Scalar<V>>& o) {
        const V s = sigmoid(a + Scalar<V>(2)), rest = sigmoid(-a - Scalar<V>(2));
        return s * rest / (s + o.slope);
    }
};

template <class Scale>
struct Affine {
    HR_FN static constexpr int n_params(int) { return 2; }  // shift, raw scale

    template <class V, class P>
    HR_FN static V forward(V z, const P& p, const MapOptions<Scalar<V>>& o, V& log_det) {
        const V scale = Scale::scale(p(1), o, log_det);
        return scale * z + p(0);
    }
    template <class V, class P>
    HR_FN static V inverse(V x, const P& p, const MapOptions<Scalar<V>>& o, V& log_det) {
        const V reciprocal = Scale::reciprocal(p(1), o, log_det);
        log_det = -log_det;
        return (x - p(0)) * reciprocal;
    }
    template <class V, class P, class G>
    HR_FN static V forward_vjp(V z, V, const P& p, const MapOptions<Scalar<V>>& o, V grad_x, V grad_log_det,
                               const G& grad) {
        const V raw = p(1);
        V log_scale;
        const V grad_z = grad_x * Scale::scale(raw, o, log_scale);
        grad(0, grad_x);
        grad(1, (grad_z * z + grad_log_det) * Scale::log_slope(raw, o));
        return grad_z;
    }
    template <class V, class P, class G>
    HR_FN static V inverse_vjp(V, V z, const P& p, const MapOptions<Scalar<V>>& o, V grad_z, V grad_log_det,
                               const G& grad) {
        const V raw = p(1);
        V log_scale;
        const V grad_x = grad_z * Scale::reciprocal(raw, o, log_scale);
        grad(0, -grad_x);
        grad(1, -(grad_z * z + grad_log_det) * Scale::log_slope(raw, o));
        return grad_x;
    }
};

}  // namespace
}  // namespace headrace
