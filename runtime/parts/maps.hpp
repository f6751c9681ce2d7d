// Maps of a number: affine, additive, the bent line of dual ascent, and what spline.hpp and logistic_mixture.hpp have.
// Each takes a value and the raw parameters of its coordinate, in the map's own order, and adds the logarithm of its
// derivative.
#pragma once

#include "logistic_mixture.hpp"
#include "map_settings.hpp"
#include "numbers.hpp"
#include "spline.hpp"

namespace headrace {
namespace detail {

// The log of a scale from its raw number.
template <class T>
T log_scale_of(Scale scale, T raw, T slope, T clamp) {
    switch (scale) {
        case Scale::soft_clamp: return raw / (std::abs(raw) * clamp + T(1));
        case Scale::softplus: return std::log(softplus(raw) + slope);
        case Scale::sigmoid: return std::log(sigmoid(raw + T(2)) + slope);
        case Scale::exp: break;
    }
    return raw;
}

// sqrt(x^2 + y^2) for positive x, without overflow.
template <class T>
T hypotenuse(T x, T y) {
    const T size = std::abs(y), larger = size > x ? size : x, ratio = (size > x ? x : size) / larger;
    return larger * std::sqrt(ratio * ratio + T(1));
}

// a v + shift + a gamma sqrt(epsilon^2 + (v - center)^2), and its inverse, a quadratic written so that nothing cancels.
template <class T>
T bent_line(const T* p, T slope, T clamp, bool inverse, T value, double& log_det) {
    const T log_a = log_scale_of(Scale::soft_clamp, p[0], slope, clamp), a = std::exp(log_a), shift = p[1],
            gamma = p[2] / hypotenuse(T(1), p[2]) * (T(1) - slope), center = p[3], epsilon = positive(p[4]).value;
    if (!inverse) {
        const T w = value - center, r = hypotenuse(epsilon, w);
        log_det += static_cast<double>(log_a + std::log(gamma * (w / r) + T(1)));
        // Halves prevent overflow of a sum of two values near the largest one.
        return (r * (gamma * T(0.5)) + value * T(0.5)) * (a + a) + shift;
    }
    const T t = (value - shift) * std::exp(-log_a) - center;
    const T rest = (T(1) - gamma) * (gamma + T(1)), bent = std::abs(gamma) * epsilon;
    const T root = hypotenuse(epsilon * std::sqrt(rest), t), near = t * T(0.5);
    T w = (t - gamma * root) / rest;
    if (gamma * t > T(0)) w = (t - bent) * ((bent * T(0.5) + near) / (gamma * T(0.5) * root + near));
    log_det -= static_cast<double>(log_a + std::log(gamma * (w / hypotenuse(epsilon, w)) + T(1)));
    return w + center;
}

class Map {
  public:
    explicit Map(const MapSettings& settings)
        : kind_(settings.kind),
          scale_(settings.scale),
          slope_(settings.slope),
          n_params_(static_cast<std::size_t>(settings.n_params())),
          formula_to_data_(settings.formula_to_data) {
        spline_.bins = settings.bins;
        spline_.low = settings.low;
        spline_.high = settings.high;
        spline_.min_bin = settings.min_bin;
        spline_.slope = slope_;
        spline_.is_clamped = kind_ == MapKind::rq_spline;
        if (!settings.has_min_bin()) return;
        spline_.ends = kind_ == MapKind::nflows ? Ends::one : kind_ == MapKind::circular ? Ends::shared : Ends::free;
        spline_.tails = kind_ == MapKind::circular ? Tails::periodic
                        : kind_ == MapKind::free   ? Tails::linear
                                                   : Tails::identity;
    }

    std::size_t n_params() const { return n_params_; }

    // Towards data or latent.
    template <class T>
    T move(const T* p, bool to_data, T value, double& log_det) const {
        return apply(p, to_data != formula_to_data_, value, log_det);
    }

  private:
    template <class T>
    T apply(const T* p, bool inverse, T value, double& log_det) const {
        const T slope = static_cast<T>(slope_), clamp = static_cast<T>(1.0 / std::log(1.0 / slope_));
        switch (kind_) {
            case MapKind::affine: {
                const T log_scale = log_scale_of(scale_, p[1], slope, clamp);
                log_det += static_cast<double>(inverse ? -log_scale : log_scale);
                return inverse ? (value - p[0]) * std::exp(-log_scale) : std::exp(log_scale) * value + p[0];
            }
            case MapKind::additive: return inverse ? value - p[0] : value + p[0];
            case MapKind::dual_ascent: return bent_line(p, slope, clamp, inverse, value, log_det);
            case MapKind::logistic_mixture:
                return static_cast<T>(
                    LogisticMixture(p, spline_.bins, slope_).apply(inverse, static_cast<double>(value), log_det));
            default: return Spline<T>(spline_, p).apply(inverse, value, log_det);
        }
    }

    MapKind kind_ = MapKind::affine;
    Scale scale_ = Scale::soft_clamp;
    double slope_ = 1e-3;
    std::size_t n_params_;
    bool formula_to_data_;
    SplineSettings spline_;
};

}  // namespace detail
}  // namespace headrace
