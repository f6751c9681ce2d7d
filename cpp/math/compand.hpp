// Companding: asinh(512 v) / asinh(512), linear near zero and logarithmic far from zero, so that a network resolves
// levels that are decades apart. The function maps -1, 0 and 1 to themselves, and keeps signs.
#pragma once

#include "lane.hpp"

namespace headrace {
namespace {

constexpr double compand_rate = 512.0, compand_unit = 6.931472759272405;  // compand_unit is asinh(512)

// 512 |v|, limited so that its square does not overflow.
template <class V>
HR_FN V compand_argument(V v) {
    return min(abs(v) * Scalar<V>(compand_rate), Scalar<V>(1e18));
}

template <class V>
HR_FN V compand(V v) {
    using T = Scalar<V>;
    const V u = compand_argument(v), size = log(u + sqrt(fma(u, u, T(1)))) * T(1.0 / compand_unit);
    return select(v < T(0), -size, size) + (v - v);  // adding v - v makes the result NaN where v is not finite
}

// The derivative of compand(v).
template <class V>
HR_FN V compand_slope(V v) {
    using T = Scalar<V>;
    const V u = compand_argument(v);
    return T(compand_rate / compand_unit) / sqrt(fma(u, u, T(1)));
}

}  // namespace
}  // namespace headrace
