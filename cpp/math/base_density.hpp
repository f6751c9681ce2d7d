// The standard densities of latent values, value by value, and slopes of these densities.
#pragma once

#include "lane.hpp"

namespace headrace {

// Kinds of base densities. For `density`, the log-density of a separate step (steps/density.hpp) is added.
enum class Base : int { none, normal, logistic, density };

namespace {

// 0 where x is finite, otherwise NaN. A row's log-determinant plus this value is NaN if x is not finite, even if x
// enters no other arithmetic.
template <class V>
HR_FN V poison(V x) {
    return x - x;
}

// The log-density of a standard base at z, without base_constant.
template <class V>
HR_FN V base_log_density(Base base, V z) {
    using T = Scalar<V>;
    if (base == Base::normal) return product(z, z) * T(-0.5);  // exact, because the factor is a power of two
    if (base == Base::density) return V{};
    const V a = abs(z);  // standard logistic log-density: -|z| - 2 log(1 + e^-|z|)
    return fma(log1p(exp(-a)), T(-2), -a);
}

template <class V>
HR_FN V base_slope(Base base, V z) {
    if (base == Base::density) return V{};
    return base == Base::normal ? -z : -tanh(z * Scalar<V>(0.5));
}

HR_FN double base_constant(Base base, int features) {
    constexpr double half_log_2pi = 0.91893853320467274178;
    return base == Base::normal ? -half_log_2pi * features : 0.0;
}

}  // namespace
}  // namespace headrace
