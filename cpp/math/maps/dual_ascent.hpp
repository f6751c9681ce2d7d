// dual_ascent: x = a z + b + c sqrt(epsilon² + (z - center)²), the family of eq. 25 of the notes (docs/references.md;
// there a = 1 - σ, c = γ, b = φ0, and center and epsilon are divided by 1 - σ): a straight line that bends at the
// center.
//
// Raw parameters of any size: log a is softly clamped as in maps/affine.hpp, c = a γ with |γ| below 1 - slope, so that
// the map grows; epsilon is positive (positive.hpp). With all raw parameters zero the map is the identity. The inverse
// has a closed form, and belongs to the same family.
#pragma once

#include "../lane.hpp"
#include "../positive.hpp"
#include "affine.hpp"
#include "directions.hpp"
#include "options.hpp"

namespace headrace {
namespace {

struct DualAscent : Directions<DualAscent> {
    static constexpr double least_slope = 1e-6;  // below this slope, 1 - slope may be 1 in float32

    static constexpr char meaning[] = "a line that bends, eq. 25 of the notes";
    static constexpr std::array<MapParameters, 5> parameters(int) {  // raw values of log a, b, γ, center and epsilon
        return {{{"stretch", 1}, {"shift", 1}, {"bend", 1}, {"center", 1}, {"width", 1}}};
    }

    HR_FN static constexpr int n_params(int) { return 5; }

    // The terms r = sqrt(epsilon² + w²) and q = w / r at w = z - center.
    template <class V>
    struct Parts {
        V log_a, a, b, gamma, center, epsilon;
        template <class P>
        HR_FN Parts(const P& p, const MapOptions<Scalar<V>>& o)
            : log_a(SoftClamp::log_scale(V(p(0)), o)),
              a(exp(log_a)),
              b(p(1)),
              gamma(bend(p(2), o)),
              center(p(3)),
              epsilon(positive(V(p(4))).value) {}
    };

    template <class V, class P>
    HR_FN static V forward(V z, const P& p, const MapOptions<Scalar<V>>& o, V& log_det) {
        const Parts<V> m(p, o);
        const V w = z - m.center, r = hypotenuse(m.epsilon, w);
        log_det = m.log_a + log(fma(m.gamma, w / r, Scalar<V>(1)));
        return line(z, r, m.gamma, m.a, m.b);
    }
    // Solves w + γ sqrt(epsilon² + w²) = t, a quadratic equation in w, without cancellation. An infinite t gives an
    // infinite w.
    template <class V, class P>
    HR_FN static V inverse(V x, const P& p, const MapOptions<Scalar<V>>& o, V& log_det) {
        using T = Scalar<V>;
        const Parts<V> m(p, o);
        const V t = fma(x - m.b, exp(-m.log_a), -m.center);
        const V rest = (T(1) - m.gamma) * (m.gamma + T(1)), bent = product(abs(m.gamma), m.epsilon);
        const V root = hypotenuse(m.epsilon * sqrt(rest), t);  // the square root of t² + epsilon² (1 - γ²)
        const auto cancels = m.gamma * t > T(0), over = abs(t) > largest<V>();
        const V near = t * T(0.5), ratio = fma(bent, T(0.5), near) / fma(m.gamma * T(0.5), root, near);
        const V w = select(over, t, select(cancels, product(t - bent, ratio), fma(-m.gamma, root, t) / rest));
        const V q = select(over, copy_sign(splat<V>(1), t), w / hypotenuse(m.epsilon, w));
        log_det = -(m.log_a + log(fma(m.gamma, q, T(1))));
        return w + m.center;
    }

    // The backward pass of z = f⁻¹(x) and of -log f'(z): gradients by z are divided by f'(z).
    template <class Inverse, class V, class P, class G>
    HR_FN static V run_vjp(Inverse inverse, V given, V built, const P& p, const MapOptions<Scalar<V>>& o, V grad_built,
                           V grad_log_det, const G& grad) {
        const V raw_a = p(0), raw_gamma = p(2), raw_epsilon = p(4), z = inverse ? built : given;
        const Parts<V> m(p, o);
        V grad_x = grad_built, grad_log = grad_log_det;
        if (inverse) {
            const V w = z - m.center, q = w / hypotenuse(m.epsilon, w);
            grad_log = -grad_log_det;
            const Slopes<V> of_log(m, z, V{}, grad_log);
            grad_x = (grad_built + of_log.by_z) / (m.a * fma(m.gamma, q, Scalar<V>(1)));
        }
        const V by_x = inverse ? -grad_x : grad_x;
        const Slopes<V> s(m, z, by_x, grad_log);
        grad(0, (s.by_log_a + grad_log) * SoftClamp::log_slope(raw_a, o));
        grad(1, by_x);
        grad(2, s.by_gamma * bend_slope(raw_gamma, o));
        grad(3, s.by_center);
        grad(4, s.by_epsilon * positive(raw_epsilon).slope);
        return inverse ? grad_x : s.by_z;
    }

    // ---- parameters that all rows share

    static constexpr int ready_factors = 2;  // each factor is between slope² and 2 / slope
    // Ready parameters: a, b, γ, center, epsilon, 1 / a, epsilon sqrt(1 - γ²), 1 / (1 - γ²).
    HR_FN static constexpr int n_ready(int) { return 8; }

    template <class V, class P, class Put>
    HR_FN static void prepare(const P& p, const MapOptions<Scalar<V>>& o, const Put& put) {
        const Parts<V> m(p, o);
        put(0, m.a);
        put(1, m.b);
        put(2, m.gamma);
        put(3, m.center);
        put(4, m.epsilon);
        put(5, Scalar<V>(1) / m.a);
        const V rest = (Scalar<V>(1) - m.gamma) * (m.gamma + Scalar<V>(1));
        put(6, m.epsilon * sqrt(rest));
        put(7, Scalar<V>(1) / rest);
    }
    template <class V>
    HR_FN static V ready_forward(V z, const Scalar<V>* ready, const MapOptions<Scalar<V>>&, V& factor) {
        using T = Scalar<V>;
        const T a = ready[0], gamma = ready[2];
        const V w = z - ready[3];
        V q;
        const V r = short_hypotenuse(ready[4], w, q);
        factor = fma(q, a * gamma, a);
        return line(z, r, gamma, a, ready[1]);
    }
    template <class V>
    HR_FN static V ready_inverse(V x, const Scalar<V>* ready, const MapOptions<Scalar<V>>&, V& factor) {
        using T = Scalar<V>;
        const T a = ready[0], gamma = ready[2], epsilon = ready[4];
        const T bent = product(gamma < T(0) ? -gamma : gamma, epsilon);
        const V t = fma(x - ready[1], ready[5], -ready[3]);
        V q;
        const V root = short_hypotenuse(ready[6], t, q);
        const auto cancels = t * gamma > T(0);
        const V numerator = select(cancels, t - bent, fma(root, -gamma, t));
        const T half_gamma = gamma * T(0.5);
        const V near = t * T(0.5), ratio = fma(bent, T(0.5), near) / fma(root, half_gamma, near);
        const V other = select(cancels, ratio, V(ready[7] - V{}));
        const V w = select(abs(t) > largest<V>(), t, product(numerator, other));
        short_hypotenuse(epsilon, w, q);
        factor = fma(q, a * gamma, a);
        return w + ready[3];
    }

  private:
    template <class V>
    HR_FN static constexpr Scalar<V> largest() {
        return is_single<V> ? Scalar<V>(3.4028234663852886e38) : Scalar<V>(1.7976931348623157e308);
    }

    // The value (γ r + z) a + b. Halved terms prevent overflow of a sum of two values near the largest float, and
    // change no bit of other sums.
    template <class V, class P>
    HR_FN static V line(V z, V r, P gamma, P a, P b) {
        const Scalar<V> half = Scalar<V>(0.5);
        const P bend = gamma * half;
        return fma(fma(r, bend, z * half), a + a, b);
    }
    // The root sqrt(x² + y²) and q = y / sqrt(x² + y²); |y| and the sign of y where y² would overflow.
    template <class V>
    HR_FN static V short_hypotenuse(Scalar<V> x, V y, V& q) {
        using T = Scalar<V>;
        if (x > (is_single<V> ? T(2e11) : T(1e142))) {  // x is not negligible beside a y whose square overflows
            const V r = hypotenuse(splat<V>(double(x)), y);
            q = y / r;
            return r;
        }
        const V square = fma(y, y, x * x), inverse = rsqrt(square), size = abs(y);
        const auto far = size > (is_single<V> ? T(1e15) : T(1e150));
        q = select(far, copy_sign(splat<V>(1), y), y * inverse);
        return select(far, size, square * inverse);
    }
    // sqrt(x² + y²) for positive x without overflow: x and y are divided by the larger of x and |y| before squaring.
    template <class V>
    HR_FN static V hypotenuse(V x, V y) {
        const V size = abs(y), larger = select(size > x, size, x), ratio = select(size > x, x, size) / larger;
        return larger * sqrt(fma(ratio, ratio, Scalar<V>(1)));
    }
    // The bend γ = raw / sqrt(1 + raw²), scaled to stay below 1 - slope.
    template <class V>
    HR_FN static V bend(V raw, const MapOptions<Scalar<V>>& o) {
        return product(raw / hypotenuse(splat<V>(1), raw), Scalar<V>(1) - o.slope);
    }
    template <class V>
    HR_FN static V bend_slope(V raw, const MapOptions<Scalar<V>>& o) {
        const V f = Scalar<V>(1) / hypotenuse(splat<V>(1), raw);
        return f * f * f * (Scalar<V>(1) - o.slope);
    }

    // Gradients of the scalar grad_x x + grad_log log f'(z), without the terms that log a adds to log f'.
    template <class V>
    struct Slopes {
        V by_z, by_log_a, by_gamma, by_center, by_epsilon;
        HR_FN Slopes(const Parts<V>& m, V z, V grad_x, V grad_log) {
            using T = Scalar<V>;
            const V w = z - m.center, inverse_r = T(1) / hypotenuse(m.epsilon, w), r = T(1) / inverse_r;
            const V q = w * inverse_r, share = m.epsilon * inverse_r;  // q² + share² = 1
            const V by_value = product(grad_x, m.a);
            const V by_q = grad_log / fma(m.gamma, q, T(1));  // gradient by γ q
            // The derivatives dq/dw = share² / r and dq/dε = -q share / r.
            const V by_w = product(fma(by_value, q, by_q * share * share * inverse_r), m.gamma);
            by_z = by_value + by_w;
            by_log_a = product(fma(m.gamma, r, z), by_value);
            by_gamma = fma(by_value, r, by_q * q);
            by_center = -by_w;
            by_epsilon = fma(by_value, share, -(by_q * q * share * inverse_r)) * m.gamma;
        }
    };
};

}  // namespace
}  // namespace headrace
