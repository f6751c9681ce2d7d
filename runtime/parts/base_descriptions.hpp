// Descriptions of base densities in files.
#pragma once

#include "stored.hpp"

namespace headrace {
namespace detail {

enum class BaseKind { standard_normal, logistic, normal, uniform, independent, student, mixture };
enum class ColumnKind { normal, logistic, uniform, student };

// The description of a base density. Trained parameters are raw values from the file, and fixed parameters are those
// that were passed to the base. Parameters and raw values are computed from each other.
struct BaseDescription {
    BaseKind kind = BaseKind::standard_normal;
    int features = 0;
    bool is_trained = false;
    int components = 0;                         // number of components of a mixture
    std::vector<ColumnKind> columns;            // kind of each column, except for normal bases and mixtures
    std::vector<double> loc, scale, log_scale;  // parameters of a normal base or of a mixture, component by component
    std::vector<double> df, log_df;             // degrees of freedom of Student's t
    std::vector<double> logits;                 // logits of the components
};

// A tensor of raw values, converted to double.
template <class T>
std::vector<double> widened(Stored& stored, const std::string& name, const std::vector<std::uint64_t>& shape) {
    const std::vector<T> values = stored.template array<T>(name, shape);
    return std::vector<double>(values.begin(), values.end());
}

inline std::vector<double> logarithms(const std::vector<double>& values) {
    std::vector<double> result(values);
    for (double& x : result) x = std::log(x);
    return result;
}
inline std::vector<double> exponentials(const std::vector<double>& values) {
    std::vector<double> result(values);
    for (double& x : result) x = std::exp(x);
    return result;
}

template <class T>
void read_mixture(Stored& stored, BaseDescription& d) {
    const std::size_t columns = static_cast<std::size_t>(d.features);
    d.components = stored.integer(stored.take("components"), "components", 1, 4096);
    const std::size_t k = static_cast<std::size_t>(d.components);
    d.is_trained = stored.truth("trainable");
    if (d.is_trained) {
        d.logits = widened<T>(stored, "logits", {k});
        d.loc = widened<T>(stored, "loc", {k, columns});
        d.log_scale = widened<T>(stored, "log_scale", {k, columns});
        return;
    }
    const std::vector<double> weights = stored.numbers("weights", k);
    double sum = 0.0;
    for (const double w : weights) {
        if (!(w >= 0.0)) stored.fail("weights: expected numbers of at least 0");
        sum += w;
    }
    if (!(sum > 0.0 && std::isfinite(sum))) stored.fail("weights: expected a positive, finite sum");
    d.logits = logarithms(weights);
    d.loc = stored.table("loc", k, columns);
    d.scale = stored.table("scale", k, columns, true);
    d.log_scale = logarithms(d.scale);
}

template <class T>
BaseDescription read_base(Stored& stored) {
    BaseDescription d;
    d.kind = static_cast<BaseKind>(stored.choice(
        "kind", {"StandardNormal", "Logistic", "Normal", "Uniform", "Independent", "StudentT", "NormalMixture"}));
    d.features = stored.size("features", 1);
    const std::size_t n = static_cast<std::size_t>(d.features);
    switch (d.kind) {
        case BaseKind::standard_normal:
        case BaseKind::logistic: break;
        case BaseKind::normal:
            d.is_trained = stored.truth("trainable");
            if (d.is_trained) {
                d.loc = widened<T>(stored, "loc", {n});
                d.log_scale = widened<T>(stored, "log_scale", {n});
            } else {
                d.loc = stored.numbers("loc", n);
                d.scale = stored.numbers("scale", n, true);
                d.log_scale = logarithms(d.scale);
            }
            break;
        case BaseKind::uniform: d.columns.assign(n, ColumnKind::uniform); break;
        case BaseKind::independent: {
            const std::vector<Value>& names = stored.items("densities");
            if (names.size() != n) stored.fail("densities: expected one for each of the features");
            for (const Value& name : names)
                d.columns.push_back(
                    static_cast<ColumnKind>(stored.choice(name, "densities", {"normal", "logistic", "uniform"})));
            break;
        }
        case BaseKind::student:
            d.columns.assign(n, ColumnKind::student);
            d.is_trained = stored.truth("trainable");
            if (d.is_trained) {
                d.log_df = widened<T>(stored, "log_df", {n});
                d.df = exponentials(d.log_df);
            } else {
                d.df = stored.numbers("df", n, true);
                d.log_df = logarithms(d.df);
            }
            break;
        case BaseKind::mixture: read_mixture<T>(stored, d); break;
    }
    stored.close();
    return d;
}

}  // namespace detail
}  // namespace headrace
