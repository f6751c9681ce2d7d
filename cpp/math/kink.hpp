// The choice of a kink in dual ascent: its position, its width, and the bend of a coordinate. The functions compute in
// float64 from sums over the rows, on the host and on a device.
//
// A coordinate is mapped by y = a x + b + c r with r = sqrt(e² + (x - x0)²), the family of eq. 25 (docs/references.md).
// Its log-likelihood L = ⟨log y' - λ y² / 2⟩ (eq. 23) is concave in (a, b, c), because y is linear in (a, b, c). With
// ψ = (x, 1, r), ψ' = (1, 0, q) and q = (x - x0) / r, at the identity (1, 0, 0):
//
//     gradient G = ⟨ψ'⟩ - λ ⟨x ψ⟩,   Hessian -A with A = ⟨ψ' ψ'ᵀ⟩ + λ ⟨ψ ψᵀ⟩, never indefinite.
//
// A step of length t along u changes the slope of y by s = t (u₁ + u₃ q), at most t B with B = |u₁| + |u₃|, because
// |q| < 1. Since log(1 + s) >= s - s² / (2 (1 - |s|)²), L grows at least by
//
//     t G·u - t²/2 (P / (1 - t B)² + Q),   P = ⟨(u·ψ')²⟩,   Q = λ ⟨(u·ψ)²⟩.
//
// This bound is a concave function of t that depends only on available sums: no step decreases L, and no step needs a
// second pass over the rows.
#pragma once

#include "ascent.hpp"

namespace headrace {

// The map y = a x + b + c sqrt(square + (x - center)²) of one coordinate.
struct Kink {
    double a, b, c, center, square;
};

struct KinkRule {
    double precision;   // λ
    double total;       // sum of the rows' weights
    double neighbours;  // share of the rows within a kink's width, divided by 2
    bool newton;        // whether a step is Newton's, or along the gradient
};

namespace {

constexpr double least_width = 2e-3;     // smallest width of a chosen kink; the map allows 1e-3
constexpr double most_exponent = 100.0;  // value of λ x0² above which the width of a kink does not grow
constexpr double margin = 0.1;           // smallest slope of a bent line
constexpr double full = 0.29;            // largest reach t B of a full Newton step for which the bound grows

// Means over the rows for one coordinate, and values that follow from these means.
struct KinkMeans {
    double x, xx, r, xr, q, rr, qq;

    HR_FN KinkMeans(const double* sums, double total, double center, double square)
        : x(sums[0] / total),
          xx(sums[1] / total),
          r(sums[2] / total),
          xr(sums[3] / total),
          q(sums[4] / total),
          rr(square + xx - 2.0 * center * x + center * center),
          qq(1.0 - square * (sums[5] / total)) {}

    // The mean ⟨y²⟩ of y = a x + b + c r.
    HR_FN double square_of(double a, double b, double c) const {
        return a * a * xx + b * b + c * c * rr + 2.0 * (a * b * x + a * c * xr + b * c * r);
    }
};

// The square of the width ε, where a normal density has the share 2 `neighbours` of the rows within ε of the center,
// and ε is at most a standard deviation. Near x0 the density N(0, 1/λ) has √(λ/2π) exp(-λ x0²/2) of the rows in a unit
// length, and the points within ε of x0 have the length 2 ε.
HR_FN double kink_square(double center, const KinkRule& rule) {
    const double u = rule.precision * center * center;
    double width = rule.neighbours * sqrt(6.283185307179586) * exp(0.5 * (u < most_exponent ? u : most_exponent));
    width = (width < 1.0 ? width : 1.0) / sqrt(rule.precision);
    return width < least_width ? least_width * least_width : width * width;
}

// Solves (A + ridge) u = g for u, where A is symmetric and positive semidefinite, in the order xx, x1, xr, 11, 1r, rr.
HR_FN void solve(const double (&a)[6], const double (&g)[3], double (&u)[3]) {
    const double ridge = 1e-12 * (a[0] + a[3] + a[5]);
    const double d0 = a[0] + ridge, l1 = a[1] / d0, l2 = a[2] / d0;
    const double d1 = a[3] + ridge - l1 * a[1], m = a[4] - l2 * a[1], l3 = m / d1;
    const double d2 = a[5] + ridge - l2 * a[2] - l3 * m;
    const double y1 = g[1] - l1 * g[0], y2 = g[2] - l2 * g[0] - l3 * y1;
    u[2] = y2 / d2;
    u[1] = y1 / d1 - l3 * u[2];
    u[0] = g[0] / d0 - l1 * u[1] - l2 * u[2];
}

HR_FN double form(const double (&a)[6], const double (&u)[3]) {
    return a[0] * u[0] * u[0] + a[3] * u[1] * u[1] + a[5] * u[2] * u[2] +
           2.0 * (a[1] * u[0] * u[1] + a[2] * u[0] * u[2] + a[4] * u[1] * u[2]);
}

// The kink at `center`, chosen from sums for this center; L grows by at least `least`. The result is the identity where
// a sum is not finite.
HR_FN Kink chosen_kink(const double* sums, double center, double square, const KinkRule& rule, double& least) {
    const KinkMeans m(sums, rule.total, center, square);
    const double p = rule.precision;
    const double gradient[3] = {1.0 - p * m.xx, -p * m.x, m.q - p * m.xr};
    const double slopes[6] = {1.0, 0.0, m.q, 0.0, 0.0, m.qq};
    const double values[6] = {p * m.xx, p * m.x, p * m.xr, p, p * m.r, p * m.rr};
    double u[3] = {gradient[0], gradient[1], gradient[2]};
    if (rule.newton) {
        double curvature[6];
        for (int i = 0; i < 6; ++i) curvature[i] = slopes[i] + values[i];
        solve(curvature, gradient, u);
    }
    const double growth = gradient[0] * u[0] + gradient[1] * u[1] + gradient[2] * u[2];
    const double of_slopes = form(slopes, u), of_values = form(values, u), reach = abs(u[0]) + abs(u[2]);
    double t = 1.0;
    if (!(rule.newton && reach <= full)) {
        double low = 0.0, high = (1.0 - margin) / (reach > 1e-12 ? reach : 1e-12);
        if (high > 1e6) high = 1e6;
        for (int i = 0; i < 50; ++i) {  // bisection: the slope of the bound decreases in t
            t = 0.5 * (low + high);
            const double left = 1.0 - t * reach;
            (growth - t * of_values - t * of_slopes / (left * left * left) > 0 ? low : high) = t;
        }
        t = low;
    }
    const double left = 1.0 - t * reach;
    least = t * growth - 0.5 * t * t * (of_slopes / (left * left) + of_values);
    if (!(least > 0)) least = t = u[0] = u[1] = u[2] = 0.0;  // at the optimum the bound may be negative by rounding
    return {1.0 + t * u[0], t * u[1], t * u[2], center, square};
}

}  // namespace
}  // namespace headrace
