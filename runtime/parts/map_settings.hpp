// The settings of a map of a number as a file has them: its kind, and what bounds its slopes and its interval.
#pragma once

#include "stored.hpp"

namespace headrace {
namespace detail {

enum class MapKind { affine, additive, rq_spline, nflows, free, flowjax, circular, dual_ascent, logistic_mixture };
enum class Scale { soft_clamp, exp, softplus, sigmoid };

inline const std::vector<std::string>& map_names() {
    static const std::vector<std::string> names{
        "affine",          "additive",          "rq_spline",          "rq_spline_nflows",
        "rq_spline_free",  "rq_spline_flowjax", "rq_spline_circular", "dual_ascent",
        "logistic_mixture"};
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
    bool formula_to_data = true;  // x is the map of z, or z that of x

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

    // Whether bins have a least share of the interval, which then may be any.
    bool has_min_bin() const { return kind >= MapKind::nflows && kind <= MapKind::circular; }

    // Names of the parameters of a coordinate, and how many values each has.
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
    // Of a spline: at all knots but those whose derivative the kind gives.
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

// The formula of a map whose settings a file has.
inline bool is_formula_to_data(Stored& stored) {
    return stored.choice("formula", {"to_data", "to_latent"}) == 0;
}

// Raw parameters, coordinate by coordinate: read(name, count of values of a coordinate) gives those of a name.
template <class T, class Read>
std::vector<T> params_by_coordinate(const MapSettings& map, std::size_t n, const Read& read) {
    const std::size_t n_params = static_cast<std::size_t>(map.n_params());
    std::vector<T> params;
    std::size_t start = 0;
    for (const auto& [name, group] : map.groups()) {
        const std::size_t size = static_cast<std::size_t>(group);
        const std::vector<T> part = read(name, size);
        params.resize(n * n_params);  // which the first tensor has confirmed, but for a factor
        for (std::size_t c = 0; c < n; ++c)
            for (std::size_t k = 0; k < size; ++k) params[c * n_params + start + k] = part[c * size + k];
        start += size;
    }
    return params;
}

}  // namespace detail
}  // namespace headrace
