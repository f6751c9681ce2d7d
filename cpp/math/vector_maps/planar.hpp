// planar: x = z + û h(wᵀz + b), eq. 28-29 of the notes (docs/references.md; Rezende, Mohamed 2015), with û such that an
// inverse always exists: s = 1 + wᵀû is a positive function of wᵀu.
//
// A vector map moves all coordinates in a common direction by one *amount*, a function of one *sum* over the
// coordinates. The map uses *ready* parameters, which `prepare` computes from raw parameters: once a call where all
// rows share them, or in lanes, one set for each row.
//
//   raw    [w (features), u (features), b]          ready    [w (features), û (features), b, s]
//
// `start` is the sum before the first coordinate, and `accumulate` adds one coordinate's share; `forward` and `inverse`
// turn sums into amounts and into the factors of the determinant of the *forward* direction at the latent side; `move`
// applies the amount to a coordinate. `reduced`, `reduce`, `backward` and `spread` are the vector-Jacobian product:
// sums over coordinates, then terms common to all coordinates, then gradients by single coordinates. As in maps/,
// put(k, value) receives parameter k's value and may overwrite p(k), so p(k) is read before the call of put. `prepare`
// and its vjp share their loops over coordinates (coordinates.hpp); in a group of lanes each lane stores the values of
// its coordinates, and every lane stores the values that follow the values of all coordinates.
#pragma once

#include "../coordinates.hpp"
#include "../lane.hpp"
#include "../maps/options.hpp"
#include "../positive.hpp"

namespace headrace {
namespace {

// The function h of the planar map at v: its value, and its first and second derivative.
template <class V>
struct Bend {
    V value, slope, curvature;
    V rest;  // 1 - slope, without cancellation
};

struct TanhBend {
    static constexpr int solve_rounds = 60;

    // h = tanh, with the slope sech² and the rest tanh², for B lanes at once; beyond `far` slope and rest are those at
    // `far`. Error: at most 3.2 ulp for value and slope, 7.5 ulp for the second derivative.
    template <int B, class V>
    HR_FN static void at(const V (&v)[B], const MapOptions<Scalar<V>>&, Bend<V> (&bend)[B]) {
        using T = Scalar<V>;
        constexpr T far = is_single<V> ? T(40) : T(350);
        V twice[B], e[B], r[B];
        ExpParts<V> parts[B];
        for (int j = 0; j < B; ++j) twice[j] = min(abs(v[j]), far);
        for (int j = 0; j < B; ++j) twice[j] += twice[j];
        exp_parts(twice, parts);
        for (int j = 0; j < B; ++j) {
            const V half = power_of_two<V>(parts[j].n - 1);
            e[j] = fma(parts[j].expm1_r, half, half - T(0.5));  // half of expm1, so that sums do not overflow
        }
        for (int j = 0; j < B; ++j) r[j] = T(1) / (e[j] + T(1));
        for (int j = 0; j < B; ++j) {
            const V value = copy_sign(e[j] * r[j], v[j]), slope = r[j] * (T(2) - r[j]);
            bend[j] = {value, slope, value * slope * T(-2), value * value};
        }
    }

    // Solves v + (s - 1) tanh v = y for v, B lanes at once, by Halley's method, kept between bounds by bisection. The
    // function v + (s - 1) tanh v is odd, and for positive v concave where s > 1 and convex where s < 1, so that
    // Newton's method from one of the bounds would not overshoot. The iteration ends where the residual is a rounding
    // error. `near`, where not null, has values close to v.
    template <int B, class V>
    HR_FN static void solve(const V (&y)[B], const V (&s)[B], const MapOptions<Scalar<V>>& o, V (&v)[B],
                            Bend<V> (&bend)[B], const V* near = nullptr) {
        using T = Scalar<V>;
        constexpr T rounding = is_single<V> ? T(2.4e-7) : T(4.5e-16);
        V low[B], high[B], target[B];
        for (int j = 0; j < B; ++j) {
            target[j] = abs(y[j]);
            const V excess = s[j] - T(1), by_slope = target[j] / s[j], by_limit = target[j] - excess;
            const auto grows = excess >= T(0);
            const V larger = select(by_slope > by_limit, by_slope, by_limit);
            const V smaller = select(by_slope > by_limit, by_limit, by_slope);
            low[j] = select(grows, larger, target[j]);
            high[j] = select(grows, target[j], smaller);
            v[j] = select(grows, low[j], high[j]);
            if (near) {
                const V start = select(y[j] < T(0), -near[j], near[j]);
                v[j] = select((start >= low[j]) & (start <= high[j]), start, v[j]);
            }
        }
        HR_ROLLED
        for (int round = 0; round < solve_rounds; ++round) {
            Int<V> open{};
            at(v, o, bend);
            for (int j = 0; j < B; ++j) {
                const V excess = s[j] - T(1);
                const V part = product(excess, bend[j].value), residual = (v[j] - target[j]) + part;
                const auto is_open = abs(residual) > (v[j] + abs(part)) * rounding;  // false for a NaN
                const auto above = residual > T(0);
                low[j] = select(above, low[j], v[j]);
                high[j] = select(above, v[j], high[j]);
                const V slope = fma(excess, bend[j].slope, T(1));
                const V newton = residual / slope;
                V next = v[j] - residual / fma(newton * excess, bend[j].curvature * T(-0.5), slope);
                const auto inside = (next >= low[j]) & (next <= high[j]);
                next = select(inside, next, (low[j] + high[j]) * T(0.5));
                v[j] = select(is_open, next, v[j]);
                open |= select(is_open, Int<V>{} + 1, Int<V>{});
            }
            if (!any_lane<V>(open)) break;
        }
        for (int j = 0; j < B; ++j) {
            v[j] = copy_sign(v[j], y[j]);
            bend[j].value = copy_sign(bend[j].value, y[j]);
            bend[j].curvature = bend[j].value * bend[j].slope * T(-2);
        }
    }
};

// Leaky ReLU as h: v for positive v, otherwise slope v.
struct LeakyReluBend {
    template <int B, class V>
    HR_FN static void at(const V (&v)[B], const MapOptions<Scalar<V>>& o, Bend<V> (&bend)[B]) {
        for (int j = 0; j < B; ++j) {
            const V slope = select(v[j] > Scalar<V>(0), splat<V>(1), V{} + o.slope);
            bend[j] = {v[j] * slope, slope, V{}, Scalar<V>(1) - slope};
        }
    }
    template <int B, class V>
    HR_FN static void solve(const V (&y)[B], const V (&s)[B], const MapOptions<Scalar<V>>& o, V (&v)[B],
                            Bend<V> (&bend)[B], const V* = nullptr) {
        for (int j = 0; j < B; ++j)
            v[j] = y[j] / select(y[j] > Scalar<V>(0), s[j], fma(s[j] - Scalar<V>(1), o.slope, Scalar<V>(1)));
        at(v, o, bend);
    }
};

template <class H, class V>
HR_FN Bend<V> bend_at(V v, const MapOptions<Scalar<V>>& o) {
    const V one[1] = {v};
    Bend<V> bend[1];
    H::at(one, o, bend);
    return bend[0];
}

template <class H>
struct Planar {
    using Prepared = Planar<TanhBend>;  // the preparation does not depend on h
    HR_FN static constexpr int n_raw(int features) { return 2 * features + 1; }
    HR_FN static constexpr int n_ready(int features) { return 2 * features + 2; }
    static constexpr int vectors = 2;               // parameters with a value for each coordinate, which come first
    static constexpr int factors = 1;               // number of factors of the determinant
    HR_FN static int power(int, int) { return 1; }  // exponent of each factor of the determinant

    // û = u + (s - 1 - x) w / |w|² with x = wᵀu; w is divided by its largest magnitude, so that intermediate results
    // neither underflow nor overflow, and w = 0 gives û = u. Where x is far below -1, most of u cancels; the rounding
    // error of û along w is then subtracted too, because wᵀû must equal s - 1.
    template <class V>
    struct Sums {
        V w_largest, boost, w_inverse;  // boost makes a subnormal w normal; w_inverse is 1 / (boost w_largest), or 0
        V square, along;                // |w|² and wᵀu, for the scaled w
        V gain;                         // (s - 1) / x
        Positive<V> s;
    };
    template <class V, class P>
    HR_FN static Sums<V> sums(const P& p, int features) {
        using T = Scalar<V>;
        Sums<V> q;
        q.w_largest = V{};
        HR_ROLLED
        for (int c = first_coordinate(p); c < features; c += coordinate_step(p)) {
            const V a = abs(V(p(c)));
            q.w_largest = select(a > q.w_largest, a, q.w_largest);
        }
        q.w_largest = largest_of_coordinates(p, q.w_largest);
        q.boost = select(q.w_largest < Format<T>::smallest_normal, splat<V>(Format<T>::to_normal), splat<V>(1));
        q.w_inverse = select(q.w_largest > T(0), T(1) / (q.w_largest * q.boost), V{});
        q.square = q.along = V{};
        V dot{};
        HR_ROLLED
        for (int c = first_coordinate(p); c < features; c += coordinate_step(p)) {
            const V w = p(c), scaled = w * q.boost * q.w_inverse, u = p(features + c);
            q.square = fma(scaled, scaled, q.square);
            q.along = fma(scaled, u, q.along);
            dot = fma(w, u, dot);
        }
        q.square = sum_of_coordinates(p, q.square);
        q.along = sum_of_coordinates(p, q.along);
        dot = sum_of_coordinates(p, dot);
        q.square = select(q.square > T(0), q.square, splat<V>(1));  // a NaN is already in `dot`
        const V x = select(q.w_inverse > T(0), product(q.along, q.w_largest), dot);
        q.s = positive(x);
        q.gain = select(abs(x) > Format<T>::smallest_normal, q.s.excess / x, splat<V>(positive_slope));
        return q;
    }

    template <class V, class P, class Put>
    HR_FN static void prepare(const P& p, int features, const Put& put) {
        const Sums<V> q = sums<V>(p, features);
        const V part = q.along / q.square;
        V rest{};
        HR_ROLLED
        for (int c = first_coordinate(p); c < features; c += coordinate_step(p)) {
            const V scaled = V(p(c)) * q.boost * q.w_inverse;
            rest = fma(scaled, fma(-scaled, part, V(p(features + c))), rest);
        }
        rest = sum_of_coordinates(p, rest);
        const V factor = fma(q.gain, q.along, -rest) / q.square;
        HR_ROLLED
        for (int c = first_coordinate(p); c < features; c += coordinate_step(p)) {
            const V w = p(c), scaled = w * q.boost * q.w_inverse, u = p(features + c);
            put(c, w);
            put(features + c, fma(scaled, factor, fma(-scaled, part, u)));
        }
        put(2 * features, p(2 * features));
        put(2 * features + 1, q.s.value);
    }

    // The gradient by the raw parameters from the gradient g by the ready parameters.
    template <class V, class P, class G, class Put>
    HR_FN static void prepare_vjp(const P& p, const G& g, int features, const Put& put) {
        using T = Scalar<V>;
        const Sums<V> q = sums<V>(p, features);
        V dot{};
        HR_ROLLED
        for (int c = first_coordinate(p); c < features; c += coordinate_step(p))
            dot = fma(V(p(c)) * q.boost * q.w_inverse, V(g(features + c)), dot);
        dot = sum_of_coordinates(p, dot);
        const V by_s = V(g(2 * features + 1)) * q.s.slope;
        const V coefficient = (q.gain - T(1)) * q.along / q.square, by_along = dot * q.s.slope_excess / q.square;
        const V by_square = dot * coefficient / q.square * T(-2);
        HR_ROLLED
        for (int c = first_coordinate(p); c < features; c += coordinate_step(p)) {
            const V w = p(c), scaled = w * q.boost * q.w_inverse, u = p(features + c);
            const V grad_w = g(c), grad_u = g(features + c);
            const V by_scaled = fma(by_square, scaled, fma(coefficient, grad_u, by_along * u));
            put(features + c, fma(by_s, w, fma(by_along, scaled, grad_u)));
            put(c, fma(by_scaled * q.w_inverse, q.boost, fma(by_s, u, grad_w)));
        }
        put(2 * features, g(2 * features));
    }

    // The limit of the factor of the determinant: the factor is between 1 and this value.
    template <class T>
    HR_FN static T limit(const T* ready, int features) {
        return ready[2 * features + 1];
    }
    template <class V, class P>
    HR_FN static V start(const P& p, int features, int j = 0) {
        return p(2 * features, j);
    }
    template <class V, class P>
    HR_FN static V accumulate(V sum, V value, const P& p, int c, int, int j = 0) {
        return fma(value, V(p(c, j)), sum);
    }
    template <class V, class P>
    HR_FN static V move(V value, V amount, const P& p, int c, int features, int j = 0) {
        return fma(V(p(features + c, j)), amount, value);
    }

    template <int B, class V, class P>
    HR_FN static void forward(const V (&sum)[B], const P& p, int features, const MapOptions<Scalar<V>>& o,
                              V (&amount)[B], V (&factor)[B][1]) {
        Bend<V> h[B];
        H::at(sum, o, h);
        for (int j = 0; j < B; ++j) {
            const V s = p(2 * features + 1, j);
            amount[j] = h[j].value;
            factor[j][0] = determinant(h[j], s);
        }
    }
    template <int B, class V, class P>
    HR_FN static void inverse(const V (&sum)[B], const P& p, int features, const MapOptions<Scalar<V>>& o,
                              V (&amount)[B], V (&factor)[B][1]) {
        V s[B], v[B];
        Bend<V> h[B];
        for (int j = 0; j < B; ++j) s[j] = p(2 * features + 1, j);
        H::solve(sum, s, o, v, h);
        for (int j = 0; j < B; ++j) {
            amount[j] = -h[j].value;
            factor[j][0] = determinant(h[j], s[j]);
        }
    }

    template <class V>
    struct Backward {
        V amount, by_sum;
    };
    template <class V>
    struct Reduced {
        V given, latent, dot;  // w times the input and w times z, each plus b; and ûᵀ grad

        template <class F>
        HR_FN void each(const F& f) {
            f(given);
            f(latent);
            f(dot);
        }
    };
    template <class V>
    HR_FN static Reduced<V> reduced(V start) {
        return {start, start, V{}};
    }
    template <class V, class P>
    HR_FN static void reduce(Reduced<V>& r, V given, V latent, V grad, const P& p, int c, int features) {
        r.given = accumulate(r.given, given, p, c, features);
        r.latent = accumulate(r.latent, latent, p, c, features);
        r.dot = fma(V(p(features + c)), grad, r.dot);
    }
    // In the inverse direction most of wᵀz + b cancels where wᵀû is large, so that v is computed again, by iterations
    // from wᵀz + b.
    template <bool inverse, class V, class P, class Put>
    HR_FN static Backward<V> backward(const Reduced<V>& r, V grad_log_det, const P& p, int features,
                                      const MapOptions<Scalar<V>>& o, const Put& put) {
        const V s = p(2 * features + 1), excess = s - Scalar<V>(1);
        Bend<V> h;
        if constexpr (inverse) {
            V v[1];
            Bend<V> bend[1];
            H::solve({r.given}, {s}, o, v, bend, &r.latent);
            h = bend[0];
        } else {
            h = bend_at<H>(r.given, o);
        }
        const V det = determinant(h, s), by_log = (inverse ? -grad_log_det : grad_log_det) / det;
        V by_sum = fma(inverse ? -r.dot : r.dot, h.slope, by_log * excess * h.curvature);
        V by_s = product(by_log, h.slope);
        if constexpr (inverse) {  // implicit differentiation of v + (s - 1) h(v) = wᵀx + b
            by_sum = by_sum / det;
            by_s = fma(-by_sum, h.value, by_s);
        }
        put(2 * features, by_sum);
        put(2 * features + 1, by_s);
        return {inverse ? -h.value : h.value, by_sum};
    }
    template <class V, class P, class Put>
    HR_FN static V spread(const Backward<V>& r, V given, V grad, const P& p, int c, int features, const Put& put) {
        const V w = p(c);
        put(c, given * r.by_sum);
        put(features + c, grad * r.amount);
        return fma(w, r.by_sum, grad);
    }

  private:
    // The determinant 1 + (s - 1) h', written as a sum of positive terms.
    template <class V>
    HR_FN static V determinant(const Bend<V>& h, V s) {
        return fma(s, h.slope, h.rest);
    }
};

}  // namespace
}  // namespace headrace
