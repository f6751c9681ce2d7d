// Companding: asinh(512 v) / asinh(512), a line near zero and a logarithm far from it, so that a network sees levels
// that lie decades apart. The function keeps signs, 0 and 1.
#pragma once

#include "lane.hpp"

namespace headrace {
namespace {

constexpr double compand_rate = 512.0, compand_unit = 6.931472759272405;  // the latter is asinh(512)

// 512 |v|, limited so that its square does not overflow.
template <class V>
HR_FN V compand_argument(V v) {
    return min(abs(v) * Scalar<V>(compand_rate), Scalar<V>(1e18));
}

template <class V>
HR_FN V compand(V v) {
    using T = Scalar<V>;
    const V u = compand_argument(v), size = log(u + sqrt(fma(u, u, T(1)))) * T(1.0 / compand_unit);
    return select(v < T(0), -size, size) + (v - v);  // a value that is not finite stays so
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
