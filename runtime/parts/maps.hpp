// Maps of a number: affine, additive, the bent line of dual ascent, and what spline.hpp and logistic_mixture.hpp have.
// Each takes a value and the raw parameters of its coordinate, in the map's own order, and adds the logarithm of its
// derivative.
#pragma once

#include "logistic_mixture.hpp"
#include "numbers.hpp"
#include "spline.hpp"
#include "stored.hpp"

namespace headrace {
namespace detail {

enum class MapKind { affine, additive, rq_spline, nflows, free, flowjax, circular, dual_ascent, logistic_mixture };
enum class Scale { soft_clamp, exp, softplus, sigmoid };

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

class MapSettings {
  public:
    explicit MapSettings(Stored& stored) {
        kind_ = static_cast<MapKind>(
            stored.choice("map", {"affine", "additive", "rq_spline", "rq_spline_nflows", "rq_spline_free",
                                  "rq_spline_flowjax", "rq_spline_circular", "dual_ascent", "logistic_mixture"}));
        scale_ = static_cast<Scale>(stored.choice("scale", {"soft_clamp", "exp", "softplus", "sigmoid"}));
        const bool is_bent = kind_ != MapKind::affine && kind_ != MapKind::additive;
        slope_ = stored.number("slope", is_bent ? 0.99999999e-6 : 0.0, 1.0);
        spline_.bins = stored.integer(stored.take("bins"), "bins", 2, 64);
        read_bound(stored);
        if (has_min_bin()) {
            spline_.ends = kind_ == MapKind::nflows     ? Ends::one
                           : kind_ == MapKind::circular ? Ends::shared
                                                        : Ends::free;
            spline_.tails = kind_ == MapKind::circular ? Tails::periodic
                            : kind_ == MapKind::free   ? Tails::linear
                                                       : Tails::identity;
        }
        if (stored.has("min_bin"))
            spline_.min_bin =
                stored.number("min_bin", has_min_bin() ? 0.99999999e-6 : 0.0, has_min_bin() ? 1.0 / spline_.bins : 1.0);
        if (has_min_bin() && !(spline_.min_bin * spline_.bins < 1.0))
            stored.fail("min_bin: expected less than 1 / bins");
        spline_.is_clamped = kind_ == MapKind::rq_spline;
        spline_.slope = slope_;
    }

    // Names of the parameters of a coordinate, and how many values each has.
    std::vector<std::pair<std::string, int>> groups() const {
        const int bins = spline_.bins;
        switch (kind_) {
            case MapKind::affine: return {{"shift", 1}, {"scale", 1}};
            case MapKind::additive: return {{"shift", 1}};
            case MapKind::dual_ascent: return {{"stretch", 1}, {"shift", 1}, {"bend", 1}, {"center", 1}, {"width", 1}};
            case MapKind::logistic_mixture: return {{"weight", bins}, {"mean", bins}, {"log_scale", bins}};
            default: return {{"width", bins}, {"height", bins}, {"derivative", spline_.n_derivatives()}};
        }
    }
    int n_params() const {
        int n = 0;
        for (const auto& group : groups()) n += group.second;
        return n;
    }

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

  private:
    bool has_min_bin() const { return kind_ >= MapKind::nflows && kind_ <= MapKind::circular; }

    void read_bound(Stored& stored) {
        constexpr double farthest = 1e30;
        const Value& bound = stored.take("bound");
        if (!bound.is(Value::Kind::list)) {
            spline_.high = stored.number(bound, "bound", 0.0, farthest);
            spline_.low = -spline_.high;
            return;
        }
        if (bound.items().size() != 2) stored.fail("bound: expected a number or two");
        spline_.low = stored.number(bound.items()[0], "bound[0]", -farthest, farthest);
        spline_.high = stored.number(bound.items()[1], "bound[1]", spline_.low, farthest);
        if (!has_min_bin() && spline_.low != -spline_.high) stored.fail("bound: expected one number for this map");
    }

    MapKind kind_ = MapKind::affine;
    Scale scale_ = Scale::soft_clamp;
    double slope_ = 1e-3;
    SplineSettings spline_;
};

}  // namespace detail
}  // namespace headrace
