// Descriptions of transforms in files, kind by kind: checked parameters and settings, without code that computes.
#pragma once

#include <memory>
#include <optional>
#include <variant>

#include "layers.hpp"
#include "maps.hpp"

namespace headrace {
namespace detail {

template <class T>
struct TransformDescription;

// The description of maps whose parameters a masked network computes: an autoregressive transform, or a coupling.
template <class T>
struct MaskedDescription {
    bool is_coupling = false, reads_data = true;
    MapSettings map;
    std::vector<int> reads, active;  // coordinates that the network reads, and coordinates for which it gives
                                     // parameters
    Layers<T> layers;
    std::vector<std::size_t> place;  // row of the last layer for each parameter, coordinate by coordinate
    bool has_levels = false;         // whether the file has levels and degrees; otherwise both follow from the masks
    std::vector<int> levels;
    std::vector<std::vector<int>> degrees;
};

template <class T>
struct ElementwiseDescription {
    MapSettings map;
    std::vector<T> params;  // raw parameters, coordinate by coordinate
};

// The description of a linear transform: x[i] = signs[i] y[order[i]] + shift[i] with y = L E U z.
template <class T>
struct LinearDescription {
    std::vector<int> order, signs;
    std::vector<T> upper, lower, log_diagonal, shift;
    struct Fixed {
        std::vector<double> upper, lower, log_diagonal, shift;
    };
    std::optional<Fixed> fixed;  // parameters in float64, if the map is not trainable
};

template <class T>
struct ActNormDescription {
    std::vector<T> shift, log_scale;
};

// The description of a planar or radial transform. With a context, a network computes the raw parameters.
template <class T>
struct VectorDescription {
    bool is_planar = true, is_tanh = true;
    double negative_slope = 0.5;
    std::vector<double> raw;
    Layers<T> layers;

    std::vector<std::pair<std::string, int>> groups(int features) const {
        if (is_planar) return {{"w", features}, {"u", features}, {"b", 1}};
        return {{"center", features}, {"alpha", 1}, {"beta", 1}};
    }
};

struct RotationDescription {
    std::vector<int> sizes;       // sizes of the blocks on the diagonal
    std::vector<double> numbers;  // elements of the blocks, row by row, one block after another
};

struct PermutationDescription {
    std::vector<int> order;  // x[i] = z[order[i]]
};

struct StandardizeDescription {
    std::vector<double> mean, std;

    bool is_identity() const {
        for (std::size_t c = 0; c < mean.size(); ++c)
            if (mean[c] != 0.0 || std[c] != 1.0) return false;
        return true;
    }
};

enum class SupportKind { any, lower, upper, interval, linear, circle };

struct SupportEnds {
    SupportKind kind = SupportKind::any;
    double low = 0.0, high = 0.0;
};

struct SupportDescription {
    std::vector<SupportEnds> columns;

    bool is_identity() const {
        return std::all_of(columns.begin(), columns.end(),
                           [](const SupportEnds& c) { return c.kind == SupportKind::any; });
    }
};

// The description of a fixed spline of each coordinate; data are first shifted and scaled to the spline's interval.
struct GaussianizeDescription {
    std::vector<double> mean, std, params;  // params are raw, coordinate by coordinate
    MapSettings map;
};

// The description of a transform of some columns.
template <class T>
struct OnColumnsDescription {
    std::vector<int> columns;
    std::unique_ptr<TransformDescription<T>> inner;
};

template <class T>
struct InverseDescription {
    std::unique_ptr<TransformDescription<T>> inner;
};

template <class T>
struct TransformDescription {
    int features = 0, context = 0;
    std::string place;  // place in the file, for messages
    std::variant<MaskedDescription<T>, ElementwiseDescription<T>, LinearDescription<T>, ActNormDescription<T>,
                 VectorDescription<T>, RotationDescription, PermutationDescription, StandardizeDescription,
                 SupportDescription, GaussianizeDescription, OnColumnsDescription<T>, InverseDescription<T>>
        kind;

    template <class Kind>
    const Kind* as() const {
        return std::get_if<Kind>(&kind);
    }

    // The transform that is inverted, or applied to some columns; otherwise null.
    const TransformDescription* inner() const {
        if (const auto* const inverse = as<InverseDescription<T>>()) return inverse->inner.get();
        if (const auto* const moved = as<OnColumnsDescription<T>>()) return moved->inner.get();
        return nullptr;
    }
    // Whether the transform has no parameters, so that a file with only this transform has no dtype.
    bool is_fixed() const {
        if (const TransformDescription* const within = inner()) return within->is_fixed();
        return as<RotationDescription>() || as<PermutationDescription>() || is_of_columns();
    }
    // Whether the transform has settings for each column, as transforms at the data end have, so that it cannot be
    // applied to some columns.
    bool is_of_data() const {
        if (const auto* const inverse = as<InverseDescription<T>>()) return inverse->inner->is_of_data();
        return is_of_columns();
    }

  private:
    bool is_of_columns() const {
        return as<StandardizeDescription>() || as<SupportDescription>() || as<GaussianizeDescription>();
    }
};

// ---- reading

template <class T>
class MaskedReader {
  public:
    MaskedReader(Stored& stored, int features, int context, bool is_coupling)
        : stored_(stored), features_(features), context_(context) {
        d_.is_coupling = is_coupling;
    }

    MaskedDescription<T> read() {
        d_.map = MapSettings(stored_);
        const Activation activation = static_cast<Activation>(stored_.choice("activation", activation_names()));
        d_.map.formula_to_data = is_formula_to_data(stored_);
        if (d_.is_coupling) {
            read_sides();
        } else {
            d_.reads_data = stored_.choice("reads", {"data", "latent"}) == 0;
            for (int c = 0; c < features_; ++c) d_.active.push_back(c);
            d_.reads = d_.active;
        }
        const std::uint64_t n_active = d_.active.size(), n_params = static_cast<std::uint64_t>(d_.map.n_params());
        d_.layers = Layers<T>(stored_, static_cast<int>(d_.reads.size()) + context_, context_, n_active * n_params,
                              activation, true);
        d_.place = places();
        read_staircase();
        return std::move(d_);
    }

  private:
    void read_sides() {
        d_.reads = stored_.integers("passive", 0, features_ - 1);
        std::vector<bool> is_passive(static_cast<std::size_t>(features_), false);
        for (const int c : d_.reads) {
            if (is_passive[static_cast<std::size_t>(c)]) stored_.fail("passive: expected each coordinate once");
            is_passive[static_cast<std::size_t>(c)] = true;
        }
        for (int c = 0; c < features_; ++c)
            if (!is_passive[static_cast<std::size_t>(c)]) d_.active.push_back(c);
        if (d_.active.empty()) stored_.fail("passive: expected a coordinate that is not");
    }

    std::vector<std::size_t> places() {
        const auto groups = d_.map.groups();
        const std::vector<Value>& outputs = stored_.items("outputs");
        const bool is_blocked = stored_.choice("layout", {"interleaved", "blocked"}) == 1;
        const std::size_t n = static_cast<std::size_t>(d_.map.n_params()), active = d_.active.size();
        std::vector<std::size_t> result(active * n), start(groups.size(), n);
        if (outputs.size() != groups.size()) stored_.fail("outputs: expected the names of the map's parameters");
        std::size_t next = 0;
        for (const Value& output : outputs) {
            std::size_t g = 0;
            while (g < groups.size() && !(output.is(Value::Kind::text) && output.text() == groups[g].first)) ++g;
            if (g == groups.size() || start[g] != n)
                stored_.fail("outputs: expected the names of the map's parameters");
            start[g] = next;
            next += static_cast<std::size_t>(groups[g].second);
        }
        std::size_t own = 0;
        for (std::size_t g = 0; g < groups.size(); ++g) {
            const std::size_t size = static_cast<std::size_t>(groups[g].second);
            for (std::size_t k = 0; k < active; ++k)
                for (std::size_t i = 0; i < size; ++i)
                    result[k * n + own + i] = is_blocked ? active * start[g] + k * size + i : k * n + start[g] + i;
            own += size;
        }
        return result;
    }

    // Reads levels and degrees, which follow from the masks; a file in which they differ is broken.
    void read_staircase() {
        const Value &levels = stored_.take("levels"), &degrees = stored_.take("degrees");
        if (levels.is(Value::Kind::null) && degrees.is(Value::Kind::null)) return;
        d_.has_levels = true;
        d_.levels = stored_.integers(levels, "levels", 1, features_);
        const std::vector<DenseLayer<T>>& layers = d_.layers.dense;
        if (d_.levels.size() != static_cast<std::size_t>(features_))
            stored_.fail("levels: expected one for each coordinate");
        if (!degrees.is(Value::Kind::list) || degrees.items().size() != layers.size() - 1)
            stored_.fail("degrees: expected a list for each hidden layer");
        std::vector<int> seen;
        seen.reserve(d_.reads.size() + static_cast<std::size_t>(context_));
        for (const int c : d_.reads) seen.push_back(d_.levels[static_cast<std::size_t>(c)]);
        seen.resize(seen.size() + static_cast<std::size_t>(context_), 0);
        for (std::size_t l = 0; l < layers.size(); ++l) {
            std::vector<int> own = l + 1 == layers.size()
                                       ? degrees_of_outputs()
                                       : stored_.integers(degrees.items()[l], "degrees", 0, features_);
            if (own.size() != layers[l].units()) stored_.fail("degrees: expected one for each unit");
            std::size_t i = 0;
            for (const int degree : own)
                for (const int level : seen)
                    if (layers[l].mask[i++] != (level <= degree))
                        stored_.fail("masks: expected those that levels and degrees make");
            if (l + 1 < layers.size()) d_.degrees.push_back(own);
            seen = std::move(own);
        }
    }

    std::vector<int> degrees_of_outputs() const {
        std::vector<int> own(d_.place.size());
        const std::size_t n = static_cast<std::size_t>(d_.map.n_params());
        for (std::size_t i = 0; i < own.size(); ++i)
            own[d_.place[i]] = d_.levels[static_cast<std::size_t>(d_.active[i / n])] - 1;
        return own;
    }

    Stored& stored_;
    int features_, context_;
    MaskedDescription<T> d_;
};

template <class T>
LinearDescription<T> read_linear(Stored& stored, int features) {
    LinearDescription<T> d;
    if (features > 8192) stored.fail("features: expected an integer from 1 to 8192");
    const std::uint64_t n = static_cast<std::uint64_t>(features);
    d.order = stored.permutation("order", features);
    d.signs = stored.integers("signs", -1, 1);
    if (d.signs.size() != n) stored.fail("signs: expected " + std::to_string(n) + " values");
    for (const int sign : d.signs)
        if (sign == 0) stored.fail("signs: expected 1 or -1");
    if (stored.has("trainable") && !stored.truth("trainable")) {
        typename LinearDescription<T>::Fixed own;
        own.upper = stored.template array_of_doubles<double>("upper", {n, n});
        own.lower = stored.template array_of_doubles<double>("lower", {n, n});
        own.log_diagonal = stored.template array_of_doubles<double>("log_diagonal", {n});
        own.shift = stored.template array_of_doubles<double>("shift", {n});
        const auto narrow = [](const std::vector<double>& wide) { return std::vector<T>(wide.begin(), wide.end()); };
        d.upper = narrow(own.upper), d.lower = narrow(own.lower);
        d.log_diagonal = narrow(own.log_diagonal), d.shift = narrow(own.shift);
        d.fixed = std::move(own);
        return d;
    }
    d.upper = stored.template array<T>("upper", {n, n});
    d.lower = stored.template array<T>("lower", {n, n});
    d.log_diagonal = stored.template array<T>("log_diagonal", {n});
    d.shift = stored.template array<T>("shift", {n});
    return d;
}

template <class T>
VectorDescription<T> read_vector(Stored& stored, int features, int context, bool is_planar) {
    VectorDescription<T> d;
    d.is_planar = is_planar;
    const Activation activation = static_cast<Activation>(stored.choice("activation", activation_names()));
    if (is_planar) {
        d.is_tanh = stored.choice("nonlinearity", {"tanh", "leaky_relu"}) == 0;
        d.negative_slope = stored.number("negative_slope", 0.0, 1.0);
    }
    const auto groups = d.groups(features);
    if (context) {
        std::uint64_t n = 0;
        for (const auto& group : groups) n += static_cast<std::uint64_t>(group.second);
        d.layers = Layers<T>(stored, context, context, n, activation, false);
        return d;
    }
    for (const auto& [name, size] : groups) {
        const std::vector<double> part = stored.template array<double>(name, {static_cast<std::uint64_t>(size)});
        d.raw.insert(d.raw.end(), part.begin(), part.end());
    }
    return d;
}

// Reads a rotation, and checks that its blocks are orthogonal. Small blocks are checked as in Python: every entry of
// the transpose times the block must be that of the identity to 1e-6. For large blocks this would take minutes: some
// vectors of 1 and -1 must keep their products with each other and themselves, up to the largest effect of errors of
// 1e-6 in each entry.
class RotationReader {
  public:
    RotationReader(Stored& stored, int features) : stored_(stored), n_(features) {}

    RotationDescription read() {
        constexpr std::int64_t most = 8192;
        if (stored_.has("matrix")) {  // files of version 0.3.0 had the matrix in their header
            if (n_ > most) stored_.fail("features: expected at most " + std::to_string(most));
            d_.sizes.push_back(n_);
            d_.numbers = stored_.numbers("matrix", static_cast<std::size_t>(n_) * static_cast<std::size_t>(n_));
        } else {
            d_.sizes = stored_.integers("blocks", 1, most);
            std::int64_t sum = 0, count = 0;
            for (const int size : d_.sizes) {
                sum += size;
                count += std::int64_t(size) * size;
            }
            if (sum != n_ || n_ > most) stored_.fail("blocks: expected sizes that add up to features, at most 8192");
            d_.numbers = stored_.template array_of_doubles<double>("blocks", {static_cast<std::uint64_t>(count)});
        }
        check();
        return std::move(d_);
    }

  private:
    void check() const {
        constexpr int small = 256;
        const double* block = d_.numbers.data();
        for (const int size : d_.sizes) {
            const std::size_t m = static_cast<std::size_t>(size);
            for (std::size_t i = 0; size <= small && i < m; ++i)
                for (std::size_t j = 0; j <= i; ++j) {
                    double product = i == j ? -1.0 : 0.0;
                    for (std::size_t k = 0; k < m; ++k) product += block[k * m + i] * block[k * m + j];
                    if (!(std::abs(product) <= 1e-6)) stored_.fail("blocks: expected orthogonal matrices");
                }
            if (size > small) check_large(block, m);
            block += m * m;
        }
    }

    // Checks that some vectors of 1 and -1 are unchanged by the block and its transpose.
    void check_large(const double* block, std::size_t n) const {
        std::vector<double> given(n), turned(n), back(n);
        std::uint32_t state = 1;
        const double most = 1e-6 * (1.0 + std::sqrt(static_cast<double>(n)));
        for (int round = 0; round < 4; ++round) {
            for (double& x : given) {
                state = state * 1664525u + 1013904223u;
                x = state >> 31 ? 1.0 : -1.0;
            }
            std::fill(back.begin(), back.end(), 0.0);
            for (std::size_t i = 0; i < n; ++i) {
                turned[i] = 0.0;
                for (std::size_t j = 0; j < n; ++j) turned[i] += block[i * n + j] * given[j];
                for (std::size_t j = 0; j < n; ++j) back[j] += block[i * n + j] * turned[i];
            }
            for (std::size_t c = 0; c < n; ++c)
                if (!(std::abs(back[c] - given[c]) <= most)) stored_.fail("blocks: expected orthogonal matrices");
        }
    }

    Stored& stored_;
    int n_;
    RotationDescription d_;
};

inline SupportEnds support_ends(const Stored& stored, const Value& pair, const std::string& key, bool is_linear) {
    if (pair.is(Value::Kind::null)) return {};
    if (!pair.is(Value::Kind::list) || pair.items().size() != 2) stored.fail(key + ": expected null or [low, high]");
    const Value &low = pair.items()[0], &high = pair.items()[1];
    for (const Value* end : {&low, &high})
        if (!end->is(Value::Kind::null) && !end->is_number()) stored.fail(key + ": expected numbers or null");
    const bool has_low = low.is_number(), has_high = high.is_number();
    const double from = has_low ? low.number() : 0.0, to = has_high ? high.number() : 0.0;
    if (has_low && has_high && !(from < to && std::isfinite(to - from)))
        stored.fail(key + ": expected low below high, and a width that is a number");
    if (!has_low && !has_high) return {};
    if (key == "periodic" && !(has_low && has_high)) stored.fail(key + ": expected both ends of a period");
    if (key == "periodic") return {SupportKind::circle, from, to};
    if (has_low && has_high) return {is_linear ? SupportKind::linear : SupportKind::interval, from, to};
    if (has_low) return {SupportKind::lower, from, 0.0};
    return {SupportKind::upper, 0.0, to};
}

inline SupportDescription read_support(Stored& stored, int features) {
    SupportDescription d;
    const std::size_t n = static_cast<std::size_t>(features);
    const std::vector<Value>& bounds = stored.items("bounds");
    if (bounds.size() != n) stored.fail("bounds: expected one for each of the features");
    const bool is_linear = stored.has("linear") && stored.truth("linear");
    for (const Value& pair : bounds) d.columns.push_back(support_ends(stored, pair, "bounds", is_linear));
    if (!stored.has("periodic")) return d;
    const std::vector<Value>& periods = stored.items("periodic");
    if (periods.size() != n) stored.fail("periodic: expected one for each of the features");
    for (std::size_t c = 0; c < n; ++c) {
        const SupportEnds period = support_ends(stored, periods[c], "periodic", false);
        if (period.kind == SupportKind::any) continue;
        if (d.columns[c].kind != SupportKind::any) stored.fail("periodic: expected null for a column that has bounds");
        d.columns[c] = period;
    }
    return d;
}

template <class T>
GaussianizeDescription read_gaussianize(Stored& stored, int features) {
    GaussianizeDescription d;
    const std::size_t n = static_cast<std::size_t>(features);
    d.mean = stored.numbers("mean", n);
    d.std = stored.numbers("std", n, true);
    d.map = MapSettings(stored);
    constexpr double least = 1e-6;
    if (d.map.kind != MapKind::free) stored.fail("map: expected rq_spline_free for a Gaussianize");
    if (d.map.slope != least || d.map.min_bin != least) stored.fail("slope, min_bin: expected 1e-06 for a Gaussianize");
    stored.choice("formula", {"to_latent"});
    d.map.formula_to_data = false;
    d.params = params_by_coordinate<double>(d.map, n, [&](const std::string& name, std::uint64_t size) {
        std::vector<double> values = stored.template array_of_doubles<double>(name, {n, size});
        for (const double x : values)
            if (!std::isfinite(narrowed<T>(x))) stored.fail(name + ": expected finite numbers");
        const bool is_one_for_all = name == "height";
        for (std::size_t i = is_one_for_all ? static_cast<std::size_t>(size) : values.size(); i < values.size(); ++i)
            if (values[i] != values[i - static_cast<std::size_t>(size)])
                stored.fail("height: expected the same values for all columns");
        return values;
    });
    return d;
}

template <class T>
OnColumnsDescription<T> checked_columns(const Stored& stored, int features, std::vector<int> columns,
                                        TransformDescription<T> inner) {
    std::vector<bool> is_moved(static_cast<std::size_t>(features), false);
    for (const int c : columns) {
        if (is_moved[static_cast<std::size_t>(c)]) stored.fail("columns: expected each column once");
        is_moved[static_cast<std::size_t>(c)] = true;
    }
    if (columns.size() != static_cast<std::size_t>(inner.features))
        stored.fail("columns: expected as many as the transform has features");
    if (inner.is_of_data()) stored.fail("transform: expected no Standardize, Support or Gaussianize");
    return {std::move(columns), std::make_unique<TransformDescription<T>>(std::move(inner))};
}

}  // namespace detail
}  // namespace headrace
