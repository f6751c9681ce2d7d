// Maps of single values: their settings in files, and their formulas. The maps are affine, additive, the bent line of
// dual ascent, and those of spline.hpp and logistic_mixture.hpp. A map takes a value and the raw parameters of its
// coordinate, in the map's order, and adds the logarithm of its derivative.
#pragma once

#include "logistic_mixture.hpp"
#include "numbers.hpp"
#include "spline.hpp"
#include "stored.hpp"

namespace headrace {
namespace detail {

// ---- settings: kind, and limits of slopes and of the interval -------------------------------------------------------

enum class MapKind {
    // clang-format off
    affine, additive, rq_spline, nflows, free, flowjax, halved, circular, dual_ascent, logistic_mixture
    // clang-format on
};
enum class Scale { soft_clamp, exp, softplus, sigmoid };

inline const std::vector<std::string>& map_names() {
    static const std::vector<std::string> names{
        "affine",         "additive",          "rq_spline",           "rq_spline_nflows",
        "rq_spline_free", "rq_spline_flowjax", "rq_spline_flowjax17", "rq_spline_circular",
        "dual_ascent",    "logistic_mixture"};
    return names;
}
inline const std::vector<std::string>& scale_names() {
    static const std::vector<std::string> names{"soft_clamp", "exp", "softplus", "sigmoid"};
    return names;
}

struct MapSettings {
    MapKind kind = MapKind::affine;
    Scale scale = Scale::soft_clamp;
    int bins = 8;
    double slope = 1e-3, low = -5.0, high = 5.0, min_bin = 1e-3;
    bool formula_to_data = true;  // true: x is the map of z; false: z is the map of x

    MapSettings() = default;
    explicit MapSettings(Stored& stored) {
        kind = static_cast<MapKind>(stored.choice("map", map_names()));
        scale = static_cast<Scale>(stored.choice("scale", scale_names()));
        const bool is_bent = kind != MapKind::affine && kind != MapKind::additive;
        slope = stored.number("slope", is_bent ? 0.99999999e-6 : 0.0, 1.0);
        bins = stored.integer(stored.take("bins"), "bins", 2, 64);
        read_bound(stored);
        if (stored.has("min_bin"))
            min_bin = stored.number("min_bin", has_min_bin() ? 0.99999999e-6 : 0.0, has_min_bin() ? 1.0 / bins : 1.0);
        if (has_min_bin() && !(min_bin * bins < 1.0)) stored.fail("min_bin: expected less than 1 / bins");
    }

    // Whether bins have a least share of the interval; the interval may then be any.
    bool has_min_bin() const { return kind >= MapKind::nflows && kind <= MapKind::circular; }

    // The names of the parameters of a coordinate, and the number of values of each.
    std::vector<std::pair<std::string, int>> groups() const {
        switch (kind) {
            case MapKind::affine: return {{"shift", 1}, {"scale", 1}};
            case MapKind::additive: return {{"shift", 1}};
            case MapKind::dual_ascent: return {{"stretch", 1}, {"shift", 1}, {"bend", 1}, {"center", 1}, {"width", 1}};
            case MapKind::logistic_mixture: return {{"weight", bins}, {"mean", bins}, {"log_scale", bins}};
            default: return {{"width", bins}, {"height", bins}, {"derivative", n_derivatives()}};
        }
    }
    int n_params() const {
        int n = 0;
        for (const auto& group : groups()) n += group.second;
        return n;
    }
    // The number of raw derivatives of a spline: at all knots except those at which the kind determines the derivative.
    int n_derivatives() const {
        const bool is_one_at_ends = kind == MapKind::rq_spline || kind == MapKind::nflows;
        return is_one_at_ends ? bins - 1 : kind == MapKind::circular ? bins : bins + 1;
    }

  private:
    void read_bound(Stored& stored) {
        constexpr double farthest = 1e30;
        const Value& bound = stored.take("bound");
        if (!bound.is(Value::Kind::list)) {
            high = stored.number(bound, "bound", 0.0, farthest);
            low = -high;
            return;
        }
        if (bound.items().size() != 2) stored.fail("bound: expected a number or two");
        low = stored.number(bound.items()[0], "bound[0]", -farthest, farthest);
        high = stored.number(bound.items()[1], "bound[1]", low, farthest);
        if (!has_min_bin() && low != -high) stored.fail("bound: expected one number for this map");
    }
};

// Whether the formula of a map in a file leads to data.
inline bool is_formula_to_data(Stored& stored) {
    return stored.choice("formula", {"to_data", "to_latent"}) == 0;
}

// Raw parameters, coordinate by coordinate, where read(name, number of values of a coordinate) returns the values with
// a name.
template <class T, class Read>
std::vector<T> params_by_coordinate(const MapSettings& map, std::size_t n, const Read& read) {
    const std::size_t n_params = static_cast<std::size_t>(map.n_params());
    std::vector<T> params;
    std::size_t start = 0;
    for (const auto& [name, group] : map.groups()) {
        const std::size_t size = static_cast<std::size_t>(group);
        const std::vector<T> part = read(name, size);
        params.resize(n * n_params);  // up to a factor, the first tensor has confirmed this size
        for (std::size_t c = 0; c < n; ++c)
            for (std::size_t k = 0; k < size; ++k) params[c * n_params + start + k] = part[c * size + k];
        start += size;
    }
    return params;
}

// ---- formulas
// --------------------------------------------------------------------------------------------------------

// The logarithm of a scale from its raw value.
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

// The bent line a v + shift + a gamma sqrt(epsilon^2 + (v - center)^2), and its inverse, the root of a quadratic
// equation without cancellation.
template <class T>
T bent_line(const T* p, T slope, T clamp, bool inverse, T value, double& log_det) {
    const T log_a = log_scale_of(Scale::soft_clamp, p[0], slope, clamp), a = std::exp(log_a), shift = p[1],
            gamma = p[2] / hypotenuse(T(1), p[2]) * (T(1) - slope), center = p[3], epsilon = positive(p[4]).value;
    if (!inverse) {
        const T w = value - center, r = hypotenuse(epsilon, w);
        log_det += static_cast<double>(log_a + std::log(gamma * (w / r) + T(1)));
        // Halved terms prevent overflow of a sum of two values near the largest float.
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
        spline_.ends = kind_ == MapKind::nflows     ? Ends::one
                       : kind_ == MapKind::circular ? Ends::shared
                       : kind_ == MapKind::halved   ? Ends::halved
                                                    : Ends::free;
        spline_.tails = kind_ == MapKind::circular ? Tails::periodic
                        : kind_ == MapKind::free   ? Tails::linear
                                                   : Tails::identity;
    }

    std::size_t n_params() const { return n_params_; }

    // Maps a value towards data or latent.
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
