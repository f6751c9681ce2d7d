// The gated activation of causal networks: tanh(a) sigmoid(b), by two exponentials and one division.
#pragma once

#include "lane.hpp"

namespace headrace {
namespace {

// With q = (e^(-2|a|) - 1) / 2 and f = e^-b:  tanh|a| sigmoid(b) = -q / ((q + 1) (f + 1)). For every a and b; beyond
// the exponents of `exp_moderate` b counts as these. At most 5 ulp.
template <class V>
HR_FN V gated(V a, V b) {
    using T = Scalar<V>;
    constexpr T least = is_single<V> ? T(-87) : T(-708);
    const V x[2] = {max(abs(a) * T(-2), Format<T>::expm1_min), min(max(-b, least), -least)};
    ExpParts<V> parts[2];
    exp_parts(x, parts);
    const V half = power_of_two<V>(parts[0].n - 1);
    const V q = fma(parts[0].expm1_r, half, half - T(0.5));
    const V f_and_one = fma(parts[1].expm1_r + T(1), power_of_two<V>(parts[1].n), T(1));
    return copy_sign(q / ((q + T(1)) * f_and_one), a);
}

}  // namespace
}  // namespace headrace
