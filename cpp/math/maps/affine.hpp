// affine: x = shift + scale z and z = (x - shift) / scale; eq. 35-41 of the notes (docs/references.md).
//
// The accessor p(k) returns parameter k of a map. `forward` and `inverse` return the value and the log-derivative of
// their direction. forward_vjp and inverse_vjp receive the input and the output, and the gradients of a scalar by the
// output and by the log-derivative; these two return the gradient by the input and pass the gradient by parameter k to
// grad(k, gradient). Because grad(k, gradient) may overwrite p(k), p(k) is read before the call of grad.
//
// A map may also have a form for parameters that all rows share: `prepare` converts them to ready values once a call,
// and `ready_forward` and `ready_inverse` take ready values. Both ready functions return the derivative of the
// *forward* direction as a factor, so that the factors of a row are multiplied and one logarithm is taken; products of
// `ready_factors` such factors are between 1e-30 and 1e30 in float32.
//
// `parameters` has the names of parameters in order, and `meaning` completes a sentence of the help in Python.
#pragma once

#include "../lane.hpp"
#include "directions.hpp"
#include "options.hpp"

namespace headrace {
namespace {

// A function from a raw network output to a positive scale: `factor` is the scale, or its reciprocal, with log(scale);
// `log_slope` is the derivative of log(scale).

// log scale = a / (1 + |a| / log(1 / slope)). The scale is between slope and 1 / slope for every a, so that no value
// overflows.
struct SoftClamp {
    static constexpr IdentityAt identity = IdentityAt::zero;

    template <class V>
    HR_FN static V log_scale(V a, const MapOptions<Scalar<V>>& o) {
        return a / fma(abs(a), o.inverse_clamp, Scalar<V>(1));
    }
    template <class Inverse, class V>
    HR_FN static V factor(Inverse inverse, V a, const MapOptions<Scalar<V>>& o, V& log_scale_) {
        log_scale_ = log_scale(a, o);
        return exp(inverse ? -log_scale_ : log_scale_);
    }
    template <class V>
    HR_FN static V log_slope(V a, const MapOptions<Scalar<V>>& o) {
        const V f = Scalar<V>(1) / fma(abs(a), o.inverse_clamp, Scalar<V>(1));
        return f * f;
    }
};

// The scale e^a.
struct Exponential {
    static constexpr IdentityAt identity = IdentityAt::zero;

    template <class Inverse, class V>
    HR_FN static V factor(Inverse inverse, V a, const MapOptions<Scalar<V>>&, V& log_scale) {
        log_scale = a;
        return exp(inverse ? -a : a);
    }
    template <class V>
    HR_FN static V log_slope(V, const MapOptions<Scalar<V>>&) {
        return splat<V>(1);
    }
};

// The scale softplus(a) + slope.
struct SoftplusScale {
    static constexpr IdentityAt identity = IdentityAt::softplus;

    template <class Inverse, class V>
    HR_FN static V factor(Inverse inverse, V a, const MapOptions<Scalar<V>>& o, V& log_scale) {
        const V s = softplus(a) + o.slope;
        log_scale = log(s);
        return inverse ? Scalar<V>(1) / s : s;
    }
    template <class V>
    HR_FN static V log_slope(V a, const MapOptions<Scalar<V>>& o) {
        return sigmoid(a) / (softplus(a) + o.slope);
    }
};

// The scale sigmoid(a + 2) + slope.
struct SigmoidScale {
    static constexpr IdentityAt identity = IdentityAt::sigmoid;

    template <class Inverse, class V>
    HR_FN static V factor(Inverse inverse, V a, const MapOptions<Scalar<V>>& o, V& log_scale) {
        const V s = sigmoid(a + Scalar<V>(2)) + o.slope;
        log_scale = log(s);
        return inverse ? Scalar<V>(1) / s : s;
    }
    template <class V>
    HR_FN static V log_slope(V a, const MapOptions<Scalar<V>>& o) {
        const V s = sigmoid(a + Scalar<V>(2)), rest = sigmoid(-a - Scalar<V>(2));
        return s * rest / (s + o.slope);
    }
};

template <class Scale>
struct Affine : Directions<Affine<Scale>> {
    static constexpr char meaning[] = "a straight line";
    static constexpr std::array<MapParameters, 2> parameters(int) {
        return {{{"shift", 1}, {"scale", 1, Scale::identity}}};
    }

    HR_FN static constexpr int n_params(int) { return 2; }

    template <class Inverse, class V, class P>
    HR_FN static V run(Inverse inverse, V value, const P& p, const MapOptions<Scalar<V>>& o, V& log_det) {
        const V factor = Scale::factor(inverse, V(p(1)), o, log_det), shift = p(0);
        if (inverse) {
            log_det = -log_det;
            return (value - shift) * factor;
        }
        return fma(factor, value, shift);
    }
    template <class Inverse, class V, class P, class G>
    HR_FN static V run_vjp(Inverse inverse, V given, V built, const P& p, const MapOptions<Scalar<V>>& o, V grad_built,
                           V grad_log_det, const G& grad) {
        const V raw = p(1), z = inverse ? built : given;
        V log_scale;
        const V grad_given = product(grad_built, Scale::factor(inverse, raw, o, log_scale));
        const V by_log = fma(inverse ? grad_built : grad_given, z, grad_log_det) * Scale::log_slope(raw, o);
        grad(0, inverse ? -grad_given : grad_built);
        grad(1, inverse ? -by_log : by_log);
        return grad_given;
    }
};

}  // namespace
}  // namespace headrace
