// radial: x = z + β (z - center) / (α + |z - center|), eq. 30-31 of the notes (docs/references.md; Rezende, Mohamed
// 2015), with α and p = α + β positive, so that the map always has an inverse. Among vector maps (planar.hpp), radial
// has the squared distance from the center as its sum, and the stretch of the offset from the center as its amount.
//
// raw [center (features), α, β]: values of any sign; where raw α and raw β are equal, β is 0
//   ready  [center (features), α, p]
//
// At distance r of z the determinant is (1 + β / (α + r))^(features - 1) times dr'/dr, where r' is the distance of x;
// both factors are sums of positive terms: q = (p + r) / (α + r) and N / (α + r)² with N = r (2 α + r) + α p.
#pragma once

#include "../coordinates.hpp"
#include "../lane.hpp"
#include "../maps/options.hpp"
#include "../positive.hpp"

namespace headrace {
namespace {

struct Radial {
    HR_FN static constexpr int n_raw(int features) { return features + 2; }
    HR_FN static constexpr int n_ready(int features) { return features + 2; }
    static constexpr int vectors = 1;
    static constexpr int factors = 2;
    HR_FN static int power(int factor, int features) { return factor == 0 ? features - 1 : 1; }

    template <class V, class P, class Put>
    HR_FN static void prepare(const P& p, int features, const Put& put) {
        HR_ROLLED
        for (int c = first_coordinate(p); c < features; c += coordinate_step(p)) put(c, p(c));
        HR_ROLLED
        for (int k = features; k < features + 2; ++k) put(k, positive(V(p(k))).value);
    }
    template <class V, class P, class G, class Put>
    HR_FN static void prepare_vjp(const P& p, const G& g, int features, const Put& put) {
        HR_ROLLED
        for (int c = first_coordinate(p); c < features; c += coordinate_step(p)) put(c, g(c));
        HR_ROLLED
        for (int k = features; k < features + 2; ++k) put(k, V(g(k)) * positive(V(p(k))).slope);
    }

    template <class T>
    HR_FN static T limit(const T* ready, int features) {
        return ready[features + 1] / ready[features];
    }
    template <class V, class P>
    HR_FN static V start(const P&, int, int = 0) {
        return V{};
    }
    template <class V, class P>
    HR_FN static V accumulate(V sum, V value, const P& p, int c, int, int j = 0) {
        const V offset = value - V(p(c, j));
        return fma(offset, offset, sum);
    }
    template <class V, class P>
    HR_FN static V move(V value, V amount, const P& p, int c, int, int j = 0) {
        return fma(value - V(p(c, j)), amount, value);
    }

    template <int B, class V, class P>
    HR_FN static void forward(const V (&sum)[B], const P& p, int features, const MapOptions<Scalar<V>>&, V (&amount)[B],
                              V (&factor)[B][2]) {
        for (int j = 0; j < B; ++j) {
            const V alpha = p(features, j), end = p(features + 1, j);
            const V r = distance(sum[j]), inverse_reach = Scalar<V>(1) / (alpha + r);
            amount[j] = (end - alpha) * inverse_reach;
            factors_at(r, alpha, end, inverse_reach, factor[j]);
        }
    }
    template <int B, class V, class P>
    HR_FN static void inverse(const V (&sum)[B], const P& p, int features, const MapOptions<Scalar<V>>&, V (&amount)[B],
                              V (&factor)[B][2]) {
        for (int j = 0; j < B; ++j) {
            const V alpha = p(features, j), end = p(features + 1, j);
            const V r = latent_distance(distance(sum[j]), alpha, end);
            amount[j] = (alpha - end) / (end + r);
            factors_at(r, alpha, end, Scalar<V>(1) / (alpha + r), factor[j]);
        }
    }

    template <class V>
    struct Backward {
        V amount, by_offset;  // gradient by a coordinate: grad (1 + amount) + offset by_offset
    };
    template <class V>
    struct Reduced {
        V sum, dot;  // squared distance of the input from the center, and offset from the center times grad

        template <class F>
        HR_FN void each(const F& f) {
            f(sum);
            f(dot);
        }
    };
    template <class V>
    HR_FN static Reduced<V> reduced(V start) {
        return {start, V{}};
    }
    template <class V, class P>
    HR_FN static void reduce(Reduced<V>& r, V given, V, V grad, const P& p, int c, int) {
        const V offset = given - V(p(c));
        r.sum = fma(offset, offset, r.sum);
        r.dot = fma(offset, grad, r.dot);
    }
    template <bool inverse, class V, class P, class Put>
    HR_FN static Backward<V> backward(const Reduced<V>& reduced, V grad_log_det, const P& p, int features,
                                      const MapOptions<Scalar<V>>&, const Put& put) {
        using T = Scalar<V>;
        const V alpha = p(features), end = p(features + 1);
        const V given = distance(reduced.sum), r = inverse ? latent_distance(given, alpha, end) : given;
        const auto is_far = given >= farthest<V>();
        const V dot = select(is_far, V{}, reduced.dot);  // left out far from the center, where distances are
                                                         // limited and this product is not
        const V reach = alpha + r, beta = end - alpha, by_log = inverse ? -grad_log_det : grad_log_det;
        const V n = n_at(r, alpha, end), others = splat<V>(features - 1);
        // Derivatives of the log-determinant, (features - 1) log q + log N - 2 log reach.
        const V log_by_r = -others * beta / ((end + r) * reach) - alpha * T(2) * beta / (n * reach);
        const V log_by_alpha = -others / reach + fma(r, T(2), end) / n - T(2) / reach;
        const V log_by_end = others / (end + r) + alpha / n;
        V amount, by_distance, by_alpha, by_end;
        if constexpr (inverse) {  // z has the offset of x times k(r) = reach / (p + r); the distance of x is r / k(r)
            const V k = reach / (end + r), inverse_end = T(1) / (end + r);
            const V slope = n / (reach * reach);  // derivative of the distance of x by r
            amount = -beta * inverse_end;
            by_distance = fma(dot * beta * inverse_end, inverse_end, by_log * log_by_r) / slope;
            by_alpha = fma(dot, inverse_end, by_log * log_by_alpha) + by_distance * r / (k * reach);
            by_end = fma(-dot * k, inverse_end, by_log * log_by_end) - by_distance * r / reach;
        } else {
            amount = beta / reach;
            by_distance = fma(by_log, log_by_r, -(dot * amount / reach));
            by_alpha = fma(by_log, log_by_alpha, -(dot * (end + r) / (reach * reach)));
            by_end = fma(by_log, log_by_end, dot / reach);
        }
        put(features, by_alpha);
        put(features + 1, by_end);
        const V by_offset = select(given > T(0), by_distance / given, V{});  // at the center the direction is undefined
        return {amount, select(is_far, V{}, by_offset)};
    }
    template <class V, class P, class Put>
    HR_FN static V spread(const Backward<V>& r, V given, V grad, const P& p, int c, int, const Put& put) {
        const V by_center = fma(grad, r.amount, (given - V(p(c))) * r.by_offset);
        put(c, -by_center);
        return grad + by_center;
    }

  private:
    // The limit of distances, so that their squares stay finite; farther away the map's effect is below rounding.
    template <class V>
    HR_FN static Scalar<V> farthest() {
        return is_single<V> ? Scalar<V>(1e18) : Scalar<V>(1e150);
    }
    template <class V>
    HR_FN static V distance(V square) {
        return min(sqrt(square), farthest<V>());
    }
    // The r for which r (p + r) / (α + r) = distance: the positive root of r² + (p - distance) r - α distance.
    template <class V>
    HR_FN static V latent_distance(V distance, V alpha, V end) {
        using T = Scalar<V>;
        const V b = distance - end, root = sqrt(fma(b, b, alpha * distance * T(4)));
        return select(b > T(0), (b + root) * T(0.5), alpha * T(2) * distance / (root - b));
    }
    template <class V>
    HR_FN static V n_at(V r, V alpha, V end) {
        return fma(r, fma(alpha, Scalar<V>(2), r), alpha * end);
    }
    template <class V>
    HR_FN static void factors_at(V r, V alpha, V end, V inverse_reach, V (&factor)[2]) {
        factor[0] = (end + r) * inverse_reach;
        factor[1] = n_at(r, alpha, end) * inverse_reach * inverse_reach;
    }
};

}  // namespace
}  // namespace headrace
