// A positive value computed from a raw value, for parameters that must not reach zero: the value is 1 for the raw value
// 0, above `least_positive` everywhere, and for large raw values approximately the raw value plus a constant.
#pragma once

#include "lane.hpp"

namespace headrace {
namespace {

constexpr double least_positive = 1e-3;

// The value least + softplus(x + shift), with the shift for which it is 1 at x = 0. Error: at most 3 ulp; 6 ulp for
// `excess`, and 16 ulp for `slope` where x is above -20.
template <class V>
struct Positive {
    V value, excess;  // excess is value - 1, without cancellation where x is small
    V slope;          // derivative of the value by x
    V slope_excess;   // slope - 1
};

constexpr double positive_shift = 0.539742417236952;  // log(e^(1 - least) - 1)
constexpr double positive_slope = 0.631752495386337;  // slope at x = 0: 1 - e^(least - 1)

template <class V>
HR_FN Positive<V> positive(V x) {
    using T = Scalar<V>;
    const V shifted = x + T(positive_shift);
    const V far = softplus(shifted);
    // The excess log((1 + e^(x + shift)) / (1 + e^shift)) = log1p(slope(0) expm1(x)).
    const auto near_zero = abs(x) < T(0.5);
    const V near = log1p(product(expm1(select(near_zero, x, splat<V>(0))), T(positive_slope)));
    Positive<V> p;
    p.excess = select(near_zero, near, far + T(least_positive - 1));
    p.value = select(near_zero, near + T(1), far + T(least_positive));
    p.slope = sigmoid(shifted);
    p.slope_excess = -sigmoid(-shifted);
    return p;
}

}  // namespace
}  // namespace headrace
