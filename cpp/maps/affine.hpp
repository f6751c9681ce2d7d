// affine: x = shift + scale z, z = (x - shift) / scale; eq. 35-41 of the notes.
//
// A map's parameters come through an accessor p(k). forward and inverse give the log-derivative of the direction
// called.
#pragma once

#include "../lane.hpp"
#include "options.hpp"

namespace headrace {
namespace {

// How a raw network output becomes a positive scale. `scale` and `reciprocal` also give log(scale).

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
};

template <class Scale>
struct Affine {
    static constexpr int n_params = 2;  // shift, raw scale

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
};

}  // namespace
}  // namespace headrace
