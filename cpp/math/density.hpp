// Base densities with parameters, or with columns of different kinds: independent columns, or one mixture of normal
// densities for the whole row. Ready parameters are computed from raw parameters once a call, in float64.
//
//   column of Student's t    raw: log ν                                     ready: c(ν), 1/√ν, (ν + 1)/2, ν c'(ν)
//   mixture of K             raw: logits [K], means [K][D], log σ [K][D]    ready: [K] of (log of what precedes the
//                                                                           exponential, weight), then (mean, 1/σ) of
//                                                                           each component and slot
#pragma once

#include "lane.hpp"

namespace headrace {

// THE list of column densities; bindings/structure.cpp has the names of column densities in Python.
enum class ColumnDensity : int { normal, logistic, uniform, student };

constexpr int column_ready = 4;

namespace {

constexpr double half_log_two_pi = 0.91893853320467274178, log_two = 0.69314718055994530942;

// c(ν) = log Γ((ν + 1)/2) - log Γ(ν/2) - log(ν π)/2 and ν c'(ν), for every ν > 0 with full accuracy. With x = ν/2, c(ν)
// is r(x) - log(2 π)/2, where r(x) = log Γ(x + 1/2) - log Γ(x) - log(x)/2 has an asymptotic series in 1/x; smaller x
// are shifted by Γ(x + 1) = x Γ(x).
struct StudentConstant {
    double value, by_log;
};

HR_FN StudentConstant student_constant(double df) {
    const double x = 0.5 * df;
    double shifted = x, product = 1, by_x = 0;
    while (shifted < 16) {
        product *= shifted / (shifted + 0.5);
        by_x += 0.5 / (shifted * (shifted + 0.5));
        shifted += 1;
    }
    constexpr double a[] = {-1.0 / 8,      1.0 / 192,      -1.0 / 640,      17.0 / 14336,
                            -31.0 / 18432, 691.0 / 180224, -5461.0 / 425984};
    const double t = 1 / shifted, square = t * t;
    double series = 0, slope = 0;
    for (int k = 6; k >= 0; --k) {
        series = fma(series, square, a[k]);
        slope = fma(slope, square, -(2 * k + 1) * a[k]);
    }
    slope *= square;
    const double shift = shifted - x;
    const double value = fma(0.5, log(shifted / x), fma(series, t, log(product))) - half_log_two_pi;
    return {value, fma(x, slope + by_x, -0.5 * shift / shifted)};
}

HR_FN void prepare_student(double log_df, double (&ready)[column_ready]) {
    const double df = exp(log_df);
    const StudentConstant c = student_constant(df);
    ready[0] = c.value;
    ready[1] = 1 / sqrt(df);
    ready[2] = 0.5 * (df + 1);
    ready[3] = c.by_log;
}

// log(1 + a²) without overflow.
template <class V>
HR_FN V log_of_one_and_square(V a) {
    using T = Scalar<V>;
    const V square = product(a, a);
    const V small = log1p(min(square, T(1)));
    constexpr T far = sizeof(T) == 4 ? T(1e4) : T(1e8);  // for larger a, 1 is less than half an ulp of a²
    const V large = select(a > far, log(a) * T(2), log(square + T(1)));
    return select(square < T(1), small, large);
}

template <class V>
HR_FN V column_log_density(ColumnDensity kind, V z, const Scalar<V>* ready) {
    using T = Scalar<V>;
    switch (kind) {
        case ColumnDensity::normal: return fma(z * z, T(-0.5), -T(half_log_two_pi));
        case ColumnDensity::logistic: {
            const V a = abs(z);
            return fma(log1p(exp(-a)), T(-2), -a);
        }
        case ColumnDensity::uniform: return select(abs(z) > T(1), -infinity<V>(), fma(z, T(0), -T(log_two)));
        case ColumnDensity::student: break;
    }
    return fma(log_of_one_and_square(abs(z) * ready[1]), -ready[2], ready[0]);
}

template <class V>
HR_FN V column_slope(ColumnDensity kind, V z, const Scalar<V>* ready) {
    using T = Scalar<V>;
    switch (kind) {
        case ColumnDensity::normal: return -z;
        case ColumnDensity::logistic: return -tanh(z * T(0.5));
        case ColumnDensity::uniform: return z * T(0);
        case ColumnDensity::student: break;
    }
    const V a = z * ready[1], size = abs(a);  // the slope is -(ν + 1)/√ν a / (1 + a²), a function of 1/a for |a| above
                                              // 1
    const V over = splat<V>(1) / max(size, T(1)), near = size / (min(product(size, size), T(1)) + T(1));
    const V share = select(size > T(1), over / fma(over, over, T(1)), near);
    return copy_sign(share, a) * (T(-2) * ready[2] * ready[1]);
}

// The derivative of the log-density of a column of Student's t by log ν: ν c'(ν) + u/(2(1 + u)) + ν/2 (u/(1 + u) -
// log(1 + u)), u = z²/ν.
template <class V>
HR_FN V student_by_log_df(V z, const Scalar<V>* ready) {
    using T = Scalar<V>;
    const V a = abs(z) * ready[1], u = product(a, a);
    const V share = select(a > T(1e4), splat<V>(1) - splat<V>(1) / max(u, T(1)), u / (u + T(1)));
    const V s = min(u, T(0.0625));  // the terms of the bracket nearly cancel near u = 0
    const V series = -s * s *
                     polynomial(s, 1.0 / 2, -2.0 / 3, 3.0 / 4, -4.0 / 5, 5.0 / 6, -6.0 / 7, 7.0 / 8, -8.0 / 9, 9.0 / 10,
                                -10.0 / 11, 11.0 / 12, -12.0 / 13);
    const V bracket = select(u < T(0.0625), series, share - log_of_one_and_square(a));
    return fma(bracket, ready[2] - T(0.5), fma(share, T(0.5), ready[3]));
}

// ---- a mixture ------------------------------------------------------------------------------------------------------

// The log-density of component k with its weight. Ready parameters of component k are (constant, weight), and those of
// its slot s, at ready(2 K + 2 (k n + s)), are (mean, 1/σ).
template <class V, class At>
HR_FN V component_log_density(const Scalar<V>* ready, int components, int k, int features, const At& at) {
    const Scalar<V>* const numbers = ready + 2 * components + int64_t(2) * k * features;
    V sum{};
    HR_ROLLED
    for (int s = 0; s < features; ++s) {
        const V u = (at(s) - numbers[2 * s]) * numbers[2 * s + 1];
        sum = fma(u, u, sum);
    }
    return fma(sum, Scalar<V>(-0.5), ready[2 * k]);
}

// The log-density of a mixture, where at(s) is the coordinate of slot s. A component of weight 0 is skipped.
template <class V, class At>
HR_FN V mixture_log_density(const Scalar<V>* ready, int components, int features, const At& at) {
    using T = Scalar<V>;
    V most = -infinity<V>(), sum{};
    HR_ROLLED
    for (int k = 0; k < components; ++k) {
        if (!(ready[2 * k + 1] > T(0))) continue;
        const V q = component_log_density<V>(ready, components, k, features, at);
        const V distance = select(q > most, most - q, q - most);  // NaN where both are infinite: the row is infinitely
                                                                  // unlikely in both components
        const V share = select(distance <= T(0), exp(distance), V{});
        sum = select(q > most, fma(sum, share, T(1)), sum + share);
        most = select(q > most, q, most);
    }
    return most + log(sum);
}

}  // namespace
}  // namespace headrace
