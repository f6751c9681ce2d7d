// rq_spline: a monotone rational-quadratic spline between -bound and bound, the identity outside (Durkan, Bekasov,
// Murray, Papamakarios 2019, "Neural spline flows", eq. 4-8).
//
// Of K bins it takes K raw widths, K raw heights and K - 1 raw derivatives at the inner knots; the outer knots have
// derivative 1. Widths and heights are shares of 2 bound: softmax of a / (1 + 2 |a| / log(1 / slope)), so that the
// shares of two bins differ by a factor of at most 1 / slope. Derivatives are exp(a / (1 + |a| / log(1 / slope))).
//
// Within a bin all is written in the bin's own units: t and eta run from 0 to 1, derivatives are divided by the bin's
// slope s. Then, with r = 1 - t,
//   eta = (t^2 + d0 t r) / D,   D = t^2 + r^2 + (d0 + d1) t r,   dy/dx = s N / D^2,   N = d0 r^2 + 2 t r + d1 t^2,
// sums of positive terms, so that no logarithm and no division ever meets zero. Its inverse solves a quadratic equation
// whose discriminant is also a sum of squares, q^2 + 4 eta (1 - eta) with q = d0 (1 - eta) - d1 eta (from eq. 8 by
// collecting terms): it cannot be negative, and the root is taken on the side without cancellation.
//
// The 2 K unnormalised shares of the bins are kept in lanes, or where the accessor of parameters has room for them:
// p.room(k) is a place for number k (the GPU cannot index registers). forward and inverse read p(k), k < 2 K, once and
// before they write number k, so that it may be the same place; the vector-Jacobian products need it beside p.
#pragma once

#include "../lane.hpp"
#include "options.hpp"

namespace headrace {
namespace {

struct RqSpline {
    static constexpr int max_bins = 64;
    static constexpr double least_slope = 1e-6;  // below, N / D^2 may leave float32

    HR_FN static constexpr int n_params(int bins) { return 3 * bins - 1; }  // widths, heights, derivatives
    HR_FN static constexpr int n_room(int bins) { return 2 * bins; }
    static constexpr bool vjp_reads_built = false;  // so nobody need run the spline for it

    template <class V, class P>
    HR_FN static V forward(V x, const P& p, const MapOptions<Scalar<V>>& o, V& log_det) {
        Knots<V, P> knots(p, o);
        Bin<V> bin;
        Point<V> at;
        locate_x(x, p, o, knots, bin, at);
        return finish(x, knots, knots.across(bin.left_height, bin.height, knots.height_sum, at.eta(bin), o), bin, at,
                      Scalar<V>(1), o, log_det);
    }

    template <class V, class P>
    HR_FN static V inverse(V y, const P& p, const MapOptions<Scalar<V>>& o, V& log_det) {
        Knots<V, P> knots(p, o);
        Bin<V> bin;
        Point<V> at;
        locate_y(y, p, o, knots, bin, at);
        return finish(y, knots, knots.across(bin.left_width, bin.width, knots.width_sum, at.t, o), bin, at,
                      Scalar<V>(-1), o, log_det);
    }

    template <class V, class P, class G>
    HR_FN static V forward_vjp(V x, V, const P& p, const MapOptions<Scalar<V>>& o, V grad_y, V grad_log_det,
                               const G& grad) {
        Knots<V, P> knots(p, o);
        Bin<V> bin;
        Point<V> at;
        locate_x(x, p, o, knots, bin, at);
        return backward(x, knots, bin, at, p, o, grad_y, grad_log_det, grad);
    }

    // With y = f(x; p) and L = log f' at x: of the inverse, dx = (dy - f_p dp) / f' and its log-derivative is -L, so
    // that its gradients are those of f for other incoming ones.
    template <class V, class P, class G>
    HR_FN static V inverse_vjp(V y, V, const P& p, const MapOptions<Scalar<V>>& o, V grad_x, V grad_log_det,
                               const G& grad) {
        using T = Scalar<V>;
        Knots<V, P> knots(p, o);
        Bin<V> bin;
        Point<V> at;
        locate_y(y, p, o, knots, bin, at);
        const V n = at.n(bin), d = at.d(bin);
        const V log_slope_x =
            (at.n_t(bin) / n - T(2) * at.d_t(bin) / d) * knots.width_sum / (bin.width * T(2) * o.bound);
        const V slope = knots.slope(bin) * n / (d * d);
        V grad_y = (grad_x - grad_log_det * log_slope_x) / slope;
        grad_y = select(abs(y) > o.bound, grad_x, grad_y);
        backward(y, knots, bin, at, p, o, -grad_y, -grad_log_det, grad);
        return grad_y;
    }

    // ---- parameters that all rows share

    // The bins' ends on both sides, for the search; of each bin its lower corner, its sizes, and derivatives over its
    // slope; 0, or NaN if any parameter is.
    static constexpr int ready_factors = 1;
    static constexpr int bin_numbers = 6;
    HR_FN static constexpr int n_ready(int bins) { return (2 + bin_numbers) * bins + 1; }

    template <class V, class P, class Put>
    HR_FN static void prepare(const P& p, const MapOptions<Scalar<V>>& o, const Put& put) {
        using T = Scalar<V>;
        Knots<V, P> knots(p, o);
        V left_width = splat<V>(0), left_height = left_width;
        const auto derivative = [&](int k) {
            return k > 0 && k < o.bins ? exp(soft_clamp(V(p(2 * o.bins + k - 1)), o.inverse_clamp)) : splat<V>(1);
        };
        for (int k = 0; k < o.bins; ++k) {
            const V width = knots.shares.get(k), height = knots.shares.get(o.bins + k);
            const V slope = height * knots.width_sum / (width * knots.height_sum);
            const V x = left_width / knots.width_sum * (T(2) * o.bound) - o.bound;
            const V y = left_height / knots.height_sum * (T(2) * o.bound) - o.bound;
            put(k, x);
            put(o.bins + k, y);
            const V numbers[bin_numbers] = {x,
                                            width / knots.width_sum * (T(2) * o.bound),
                                            y,
                                            height / knots.height_sum * (T(2) * o.bound),
                                            derivative(k) / slope,
                                            derivative(k + 1) / slope};
            for (int i = 0; i < bin_numbers; ++i) put(2 * o.bins + k * bin_numbers + i, numbers[i]);
            left_width += width;
            left_height += height;
        }
        put(n_ready(o.bins) - 1, knots.poison);
    }
    template <class V>
    HR_FN static V ready_forward(V x, const Scalar<V>* ready, const MapOptions<Scalar<V>>& o, V& factor) {
        const Bin<V> bin = ready_bin(x, ready, ready, o);
        Point<V> at;
        at.set_t(x - bin.left_width, bin);
        return ready_finish(x, bin.height * at.eta(bin) + bin.left_height, bin, at, ready, o, factor);
    }
    template <class V>
    HR_FN static V ready_inverse(V y, const Scalar<V>* ready, const MapOptions<Scalar<V>>& o, V& factor) {
        const Bin<V> bin = ready_bin(y, ready + o.bins, ready, o);
        Point<V> at;
        at.solve(y - bin.left_height, bin);
        return ready_finish(y, bin.width * at.t + bin.left_width, bin, at, ready, o, factor);
    }

  private:
    // The bin that an input lies in: unnormalised shares, and derivatives over the bin's slope.
    template <class V>
    struct Bin {
        V index, left_width, width, left_height, height, d0, d1;
    };

    // Where the shares are kept: number k of the widths, then the heights.
    template <class V, class P, bool has_room = requires(const P& p) { p.room(0); }>
    struct Shares {
        V numbers[2 * max_bins];
        HR_FN explicit Shares(const P&) {}
        HR_FN V get(int k) const { return numbers[k]; }
        HR_FN void put(int k, V share) { numbers[k] = share; }
    };
    template <class V, class P>
    struct Shares<V, P, true> {
        const P& p;
        HR_FN explicit Shares(const P& params) : p(params) {}
        HR_FN V get(int k) const { return p.room(k); }
        HR_FN void put(int k, V share) { p.room(k) = share; }
    };

    template <class V, class P>
    struct Knots {
        Shares<V, P> shares;  // unnormalised
        V width_sum, height_sum;
        V poison;  // NaN if any parameter is, else 0: also where the identity would hide it

        HR_FN Knots(const P& p, const MapOptions<Scalar<V>>& o) : shares(p) {
            using T = Scalar<V>;
            width_sum = height_sum = poison = splat<V>(0);
            for (int k = 0; k < o.bins; ++k) {
                const V width = exp_moderate(soft_clamp(p(k), T(2) * o.inverse_clamp));
                const V height = exp_moderate(soft_clamp(p(o.bins + k), T(2) * o.inverse_clamp));
                shares.put(k, width);
                shares.put(o.bins + k, height);
                width_sum += width;
                height_sum += height;
            }
            for (int k = 2 * o.bins; k < n_params(o.bins); ++k) poison += soft_clamp(p(k), o.inverse_clamp);
            poison += width_sum + height_sum;
            poison -= poison;
        }

        // Goes through the bins and keeps the last one whose left end is not beyond the input: no gathers. The input is
        // a place among the heights, or among the widths.
        // `target`: the input, in the unnormalised shares of its side.
        template <bool of_heights>
        HR_FN Bin<V> find(V input, const P& p, const MapOptions<Scalar<V>>& o, V& target) {
            using T = Scalar<V>;
            target = (min(max(input, -o.bound), o.bound) + o.bound) * (T(0.5) / o.bound) *
                     (of_heights ? height_sum : width_sum);
            const V zero = splat<V>(0), one = splat<V>(1);
            V end = zero, width_end = zero, height_end = zero;
            Bin<V> bin{zero, zero, one, zero, one, zero, zero};  // NaN stays here
            for (int k = 0; k < o.bins; ++k) {
                const auto beyond = target >= end;
                const V width = shares.get(k), height = shares.get(o.bins + k);
                bin.index = select(beyond, splat<V>(k), bin.index);
                bin.left_width = select(beyond, width_end, bin.left_width);
                bin.width = select(beyond, width, bin.width);
                bin.left_height = select(beyond, height_end, bin.left_height);
                bin.height = select(beyond, height, bin.height);
                bin.d0 = select(beyond, k > 0 ? p(2 * o.bins + k - 1) : zero, bin.d0);
                bin.d1 = select(beyond, k + 1 < o.bins ? p(2 * o.bins + k) : zero, bin.d1);
                end += of_heights ? height : width;
                width_end += width;
                height_end += height;
            }
            const V inverse_slope = T(1) / slope(bin);
            bin.d0 = exp(soft_clamp(bin.d0, o.inverse_clamp)) * inverse_slope;
            bin.d1 = exp(soft_clamp(bin.d1, o.inverse_clamp)) * inverse_slope;
            return bin;
        }

        HR_FN V slope(const Bin<V>& bin) const { return bin.height * width_sum / (bin.width * height_sum); }

        // A place within a bin, from 0 to 1, to the interval of the spline.
        HR_FN V across(V left, V share, V sum, V place, const MapOptions<Scalar<V>>& o) const {
            return (left + share * place) / sum * (Scalar<V>(2) * o.bound) - o.bound;
        }
    };

    template <class V>
    struct Point {
        V t, r;  // place in the bin, and 1 - t

        HR_FN void set_t(V from_left, const Bin<V>& bin) {
            t = min(max(from_left / bin.width, Scalar<V>(0)), Scalar<V>(1));
            r = Scalar<V>(1) - t;
        }
        HR_FN void solve(V from_left, const Bin<V>& bin) {
            using T = Scalar<V>;
            const V eta = min(max(from_left / bin.height, T(0)), T(1)), rest = T(1) - eta;
            const V q = bin.d0 * rest - bin.d1 * eta;
            const V root = abs(q) + sqrt(q * q + T(4) * eta * rest);
            const auto low = q >= T(0);
            const V near = T(2) * select(low, eta, rest), denominator = near + root;
            const V a = near / denominator, b = root / denominator;
            t = select(low, a, b);
            r = select(low, b, a);
            const V bad = eta - eta;  // NaN stays NaN
            t += bad;
            r += bad;
        }
        HR_FN V n(const Bin<V>& bin) const { return bin.d0 * r * r + Scalar<V>(2) * t * r + bin.d1 * t * t; }
        HR_FN V n_t(const Bin<V>& bin) const { return Scalar<V>(2) * (bin.d1 * t - bin.d0 * r + r - t); }
        HR_FN V d(const Bin<V>& bin) const { return t * t + r * r + (bin.d0 + bin.d1) * t * r; }
        HR_FN V d_t(const Bin<V>& bin) const { return (bin.d0 + bin.d1 - Scalar<V>(2)) * (r - t); }
        HR_FN V eta(const Bin<V>& bin) const { return t * (t + bin.d0 * r) / d(bin); }
    };

    template <class V>
    HR_FN static V soft_clamp(V a, Scalar<V> inverse_limit) {
        return a / (abs(a) * inverse_limit + Scalar<V>(1));
    }
    template <class V>
    HR_FN static V soft_clamp_slope(V a, Scalar<V> inverse_limit) {
        const V f = Scalar<V>(1) / (abs(a) * inverse_limit + Scalar<V>(1));
        return f * f;
    }

    template <class V>
    HR_FN static Bin<V> ready_bin(V input, const Scalar<V>* ends, const Scalar<V>* ready,
                                  const MapOptions<Scalar<V>>& o) {
        Int<V> index{};
        for (int k = 1; k < o.bins; ++k) index += select(input >= ends[k], Int<V>{} + 1, Int<V>{});
        V n[bin_numbers];
        gather_row(ready + 2 * o.bins, index, bin_numbers, n);
        return {V{}, n[0], n[1], n[2], n[3], n[4], n[5]};
    }
    template <class V>
    HR_FN static V ready_finish(V input, V inside, const Bin<V>& bin, const Point<V>& at, const Scalar<V>* ready,
                                const MapOptions<Scalar<V>>& o, V& factor) {
        const V d = at.d(bin);
        const auto outside = abs(input) > o.bound;
        const Scalar<V> poison = ready[n_ready(o.bins) - 1];
        factor = select(outside, splat<V>(1), bin.height / bin.width * at.n(bin) / (d * d)) + poison;
        return select(outside, input, inside) + poison;
    }

    // Where an input lies: among the knots of its side, and within its bin.
    template <class V, class P>
    HR_FN static void locate_x(V x, const P& p, const MapOptions<Scalar<V>>& o, Knots<V, P>& knots, Bin<V>& bin,
                               Point<V>& at) {
        V target;
        bin = knots.template find<false>(x, p, o, target);
        at.set_t(target - bin.left_width, bin);
    }
    template <class V, class P>
    HR_FN static void locate_y(V y, const P& p, const MapOptions<Scalar<V>>& o, Knots<V, P>& knots, Bin<V>& bin,
                               Point<V>& at) {
        V target;
        bin = knots.template find<true>(y, p, o, target);
        at.solve(target - bin.left_height, bin);
    }

    template <class V, class P>
    HR_FN static V finish(V input, const Knots<V, P>& knots, V inside, const Bin<V>& bin, const Point<V>& at,
                          Scalar<V> sign, const MapOptions<Scalar<V>>& o, V& log_det) {
        const V d = at.d(bin);
        const auto outside = abs(input) > o.bound;  // false for NaN, which goes the way of the numbers
        log_det = select(outside, splat<V>(0), log(knots.slope(bin) * at.n(bin) / (d * d)) * sign) + knots.poison;
        return select(outside, input, inside) + knots.poison;
    }

    // Gradients of the direction from x to y at a point of a bin; `input` says whether it lies outside.
    template <class V, class P, class G>
    HR_FN static V backward(V input, const Knots<V, P>& knots, const Bin<V>& bin, const Point<V>& at, const P& p,
                            const MapOptions<Scalar<V>>& o, V grad_y, V grad_log_det, const G& grad) {
        using T = Scalar<V>;
        const V zero = splat<V>(0);
        const auto outside = abs(input) > o.bound;
        const V outer = grad_y;
        grad_y = select(outside, zero, grad_y);
        grad_log_det = select(outside, zero, grad_log_det);
        const T range = T(2) * o.bound;
        const V width = bin.width / knots.width_sum, height = bin.height / knots.height_sum;  // shares
        const V n = at.n(bin), d = at.d(bin), tr = at.t * at.r, eta = at.eta(bin);
        const V grad_eta = grad_y * height * range;
        const V grad_n = grad_log_det / n, grad_p = grad_eta / d;  // eta = p / d
        const V grad_d = -(T(2) * grad_log_det + grad_eta * eta) / d;
        const V grad_t = grad_p * (T(2) * at.t + bin.d0 * (at.r - at.t)) + grad_n * at.n_t(bin) + grad_d * at.d_t(bin);
        const V from_d0 = (grad_p * tr + grad_n * at.r * at.r + grad_d * tr) * bin.d0;  // by the logarithm of d0
        const V from_d1 = (grad_n * at.t * at.t + grad_d * tr) * bin.d1;
        const V grad_log_slope = grad_log_det - from_d0 - from_d1;
        // By the share to the left of the bin, and by that of the bin itself.
        const V by_left_width = -grad_t / width, by_width = (-grad_t * at.t - grad_log_slope) / width;
        const V by_left_height = grad_y * range, by_height = by_left_height * eta + grad_log_slope / height;
        const V mean_width = (by_left_width * bin.left_width + by_width * bin.width) / knots.width_sum;
        const V mean_height = (by_left_height * bin.left_height + by_height * bin.height) / knots.height_sum;
        for (int k = 0; k < o.bins; ++k) {  // through the softmax, then the clamp
            const auto left = bin.index > T(k);
            const auto here = bin.index == T(k);
            const V w = select(left, by_left_width, select(here, by_width, zero)) - mean_width;
            const V h = select(left, by_left_height, select(here, by_height, zero)) - mean_height;
            const V raw_width = p(k), raw_height = p(o.bins + k);
            grad(k, w * knots.shares.get(k) / knots.width_sum * soft_clamp_slope(raw_width, T(2) * o.inverse_clamp));
            grad(o.bins + k, h * knots.shares.get(o.bins + k) / knots.height_sum *
                                 soft_clamp_slope(raw_height, T(2) * o.inverse_clamp));
        }
        for (int k = 1; k < o.bins; ++k) {
            const int place = 2 * o.bins + k - 1;
            const V from = select(bin.index == T(k), from_d0, zero) + select(bin.index == T(k - 1), from_d1, zero);
            grad(place, from * soft_clamp_slope(p(place), o.inverse_clamp));
        }
        return select(outside, outer, grad_t / (width * range));
    }
};

}  // namespace
}  // namespace headrace
