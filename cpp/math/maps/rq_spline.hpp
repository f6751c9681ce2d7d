// A monotone rational-quadratic spline within an interval (Durkan, Bekasov, Murray, Papamakarios 2019, "Neural spline
// flows", eq. 4-8), of K bins with raw widths, raw heights and raw derivatives at knots. Kind (spline_knots.hpp)
// defines the meaning of raw parameters and the map outside of the interval.
//
// Within a bin, t and eta are positions from 0 to 1, and derivatives d0 and d1 are divided by the bin's slope s. With r
// = 1 - t,
//   eta = (t^2 + d0 t r) / D,   D = t^2 + r^2 + (d0 + d1) t r,   dy/dx = s N / D^2,   N = d0 r^2 + 2 t r + d1 t^2,
// D and N are sums of positive terms, so that no logarithm is taken of zero, and no divisor is zero. The inverse solves
// a quadratic equation whose discriminant is also a sum of terms that are not negative, q^2 + 4 eta (1 - eta) with q =
// d0 (1 - eta) - d1 eta (from eq. 8 by collecting terms); the root is computed without cancellation.
//
// The 2 K unnormalised shares of the bins are kept in lanes, or in the buffer of the accessor of parameters: p.room(k)
// is the element for share k (the GPU cannot index registers). `forward` and `inverse` read p(k), k < 2 K, once and
// before they write share k, so that p.room(k) may be p(k); vector-Jacobian products need separate elements.
#pragma once

#include "../lane.hpp"
#include "directions.hpp"
#include "options.hpp"
#include "spline_knots.hpp"

namespace headrace {
namespace {

template <class Kind>
struct Spline : Directions<Spline<Kind>> {
    static constexpr int max_bins = 64;
    static constexpr double least_slope = 1e-6;  // below this slope, N / D^2 may leave the range of float32

    template <class T>
    HR_FN static constexpr int n_params(const MapOptions<T>& o) {
        return 2 * o.bins + Kind::n_derivatives(o.bins, o.ends);
    }
    HR_FN static constexpr int n_room(int bins) { return 2 * bins; }
    static constexpr bool vjp_reads_built = false;  // the backward pass does not need the spline's output

    template <class Inverse, class V, class P>
    HR_FN static V run(Inverse inverse, V input, const P& p, const MapOptions<Scalar<V>>& o, V& log_det) {
        const auto entered = Kind::enter(input, o);
        Knots<V, P> knots(p, o);
        Bin<V> bin;
        Point<V> at;
        locate(inverse, entered.value, p, o, knots, bin, at);
        const V inside = inverse ? knots.across(bin.left_width, bin.width, knots.width_sum, at.t, o)
                                 : knots.across(bin.left_height, bin.height, knots.height_sum, at.eta(bin), o);
        const V slope = derivative(knots, bin, at);
        log_det = log(slope) * Scalar<V>(inverse ? -1 : 1);
        if (Kind::tails(o) == Tails::identity) log_det = select(Kind::outside(entered.value, o), splat<V>(0), log_det);
        log_det += knots.poison;
        return leave(inverse, entered, inside, slope, o) + knots.poison;
    }

    // Let y = f(x; p), and L = log f' at x. The inverse has dx = (dy - f_p dp) / f' and the log-derivative -L, so that
    // gradients of the inverse are gradients of f for other incoming gradients.
    template <class Inverse, class V, class P, class G>
    HR_FN static V run_vjp(Inverse inverse, V input, V, const P& p, const MapOptions<Scalar<V>>& o, V grad_built,
                           V grad_log_det, const G& grad) {
        using T = Scalar<V>;
        const auto entered = Kind::enter(input, o);
        Knots<V, P> knots(p, o);
        Bin<V> bin;
        Point<V> at;
        locate(inverse, entered.value, p, o, knots, bin, at);
        V rise = entered.beyond, grad_y = grad_built, by_y = grad_built, by_log = grad_log_det;
        if (inverse) {
            const V n = at.n(bin), d = at.d(bin);
            V log_slope_x = (at.n_t(bin) / n - T(2) * at.d_t(bin) / d) * knots.width_sum / (bin.width * Kind::range(o));
            if (Kind::tails(o) == Tails::linear)
                log_slope_x = select(Kind::outside(entered.value, o), splat<V>(0), log_slope_x);
            grad_y = fma(-grad_log_det, log_slope_x, grad_built) / derivative(knots, bin, at);
            if (Kind::tails(o) == Tails::identity) grad_y = select(Kind::outside(entered.value, o), grad_built, grad_y);
            by_y = -grad_y;
            by_log = -grad_log_det;
        } else if (Kind::tails(o) == Tails::linear) {
            rise = entered.beyond * derivative(knots, bin, at);
        }
        const V grad_x = backward(entered, rise, knots, bin, at, p, o, by_y, by_log, grad);
        return inverse ? grad_y : grad_x;
    }

    // ---- parameters that all rows share

    // Ready values are the bins' ends on both sides, for the search; then for each bin its lower corner, its sizes, and
    // derivatives divided by its slope; then 0, or NaN if any parameter is NaN.
    static constexpr int ready_factors = 1;
    static constexpr int bin_numbers = 6;
    HR_FN static constexpr int n_ready(int bins) { return (2 + bin_numbers) * bins + 1; }

    template <class V, class P, class Put>
    HR_FN static void prepare(const P& p, const MapOptions<Scalar<V>>& o, const Put& put) {
        Knots<V, P> knots(p, o);
        V left_width = splat<V>(0), left_height = left_width;
        const auto at_knot = [&](int k) {
            const int place = Kind::place(k, o);
            return place >= 0 ? Kind::derivative(V(p(2 * o.bins + place)), o) : splat<V>(1);
        };
        HR_ROLLED
        for (int k = 0; k < o.bins; ++k) {
            const V width = knots.width(k, o), height = knots.height(k, o);
            const V slope = height * knots.width_sum / (width * knots.height_sum);
            const V x = Kind::spread(left_width / knots.width_sum, o);
            const V y = Kind::spread(left_height / knots.height_sum, o);
            put(k, x);
            put(o.bins + k, y);
            const V numbers[bin_numbers] = {x,
                                            width / knots.width_sum * Kind::range(o),
                                            y,
                                            height / knots.height_sum * Kind::range(o),
                                            at_knot(k) / slope,
                                            at_knot(k + 1) / slope};
            for (int i = 0; i < bin_numbers; ++i) put(2 * o.bins + k * bin_numbers + i, numbers[i]);
            left_width += width;
            left_height += height;
        }
        put(n_ready(o.bins) - 1, knots.poison);
    }
    template <class Inverse, class V>
    HR_FN static V run_ready(Inverse inverse, V input, const Scalar<V>* ready, const MapOptions<Scalar<V>>& o,
                             V& factor) {
        const auto entered = Kind::enter(input, o);
        const Bin<V> bin = ready_bin(inverse, entered.value, ready, o);
        Point<V> at;
        at.set(inverse, entered.value - (inverse ? bin.left_height : bin.left_width), bin);
        at.snap(entered.value, o);
        const V inside = inverse ? fma(bin.width, at.t, bin.left_width) : fma(bin.height, at.eta(bin), bin.left_height);
        const Scalar<V> poison = ready[n_ready(o.bins) - 1];
        const V slope = derivative_of(bin.height / bin.width, bin, at);
        factor = slope + poison;
        if (Kind::tails(o) == Tails::identity)
            factor = select(Kind::outside(entered.value, o), splat<V>(1), slope) + poison;
        return leave(inverse, entered, inside, slope, o) + poison;
    }

    static constexpr bool has_ready_derivative = true;

    // The derivative at an input, and `bend`, the derivative of its logarithm.
    template <class Inverse, class V>
    HR_FN static V ready_derivative(Inverse inverse, V input, const Scalar<V>* ready, const MapOptions<Scalar<V>>& o,
                                    V& bend) {
        using T = Scalar<V>;
        const auto entered = Kind::enter(input, o);
        const Bin<V> bin = ready_bin(inverse, entered.value, ready, o);
        Point<V> at;
        at.set(inverse, entered.value - (inverse ? bin.left_height : bin.left_width), bin);
        at.snap(entered.value, o);
        const T poison = ready[n_ready(o.bins) - 1];
        const V slope = derivative_of(bin.height / bin.width, bin, at);
        V derivative = inverse ? T(1) / slope : slope;
        bend = (at.n_t(bin) / at.n(bin) - T(2) * at.d_t(bin) / at.d(bin)) / bin.width;
        if (inverse) bend = -bend * derivative;
        if (Kind::tails(o) != Tails::periodic) bend = select(Kind::outside(entered.value, o), splat<V>(0), bend);
        if (Kind::tails(o) == Tails::identity)
            derivative = select(Kind::outside(entered.value, o), splat<V>(1), derivative);
        bend += poison;
        return derivative + poison;
    }

  private:
    // The bin of an input: unnormalised shares, derivatives divided by the bin's slope, and raw derivatives.
    template <class V>
    struct Bin {
        V index, left_width, width, left_height, height, d0, d1, raw0, raw1;
    };

    // Storage of the shares of bins: K widths, then K heights.
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
        Shares<V, P> shares;  // unnormalised shares of the bins
        V width_sum, height_sum;
        V poison;  // NaN if any parameter is NaN, even where the input is outside of the interval; else 0

        HR_FN Knots(const P& p, const MapOptions<Scalar<V>>& o) : shares(p) {
            width_sum = height_sum = poison = splat<V>(0);
            const V top_width = Kind::template top<V>(p, 0, o.bins),
                    top_height = Kind::template top<V>(p, o.bins, o.bins);
            HR_ROLLED
            for (int k = 0; k < o.bins; ++k) {
                const V raw_width = p(k), raw_height = p(o.bins + k);
                const V width = Kind::part(raw_width, top_width, o), height = Kind::part(raw_height, top_height, o);
                if constexpr (!Kind::parts_show_all) poison += (raw_width - raw_width) + (raw_height - raw_height);
                shares.put(k, width);
                shares.put(o.bins + k, height);
                width_sum += width;
                height_sum += height;
            }
            HR_ROLLED
            for (int k = 2 * o.bins; k < n_params(o); ++k) poison += Kind::poison(V(p(k)), o);
            poison += width_sum + height_sum;
            poison = poison - poison;
        }

        // Sizes of bin k, in the unit of the sums of sizes.
        HR_FN V width(int k, const MapOptions<Scalar<V>>& o) const {
            return Kind::size(shares.get(k), width_sum, k, o);
        }
        HR_FN V height(int k, const MapOptions<Scalar<V>>& o) const {
            return Kind::size(shares.get(o.bins + k), height_sum, k, o);
        }

        // Visits all bins and keeps the last bin whose left end is not beyond the input, without gathers. The input is
        // a position among the heights, or among the widths.
        // `target`: the input in the unit of the unnormalised shares of its side.
        template <class OfHeights>
        HR_FN Bin<V> find(OfHeights of_heights, V input, const P& p, const MapOptions<Scalar<V>>& o, V& target) {
            using T = Scalar<V>;
            target = product(Kind::share_below(input, o), of_heights ? height_sum : width_sum);
            const V zero = splat<V>(0), one = splat<V>(1);
            const auto raw_at = [&](int k) {
                const int place = Kind::place(k, o);
                return place >= 0 ? p(2 * o.bins + place) : zero;
            };
            V end = zero, width_end = zero, height_end = zero;
            Bin<V> bin{zero, zero, one, zero, one, zero, zero, zero, zero};  // the result for a NaN input
            HR_ROLLED
            for (int k = 0; k < o.bins; ++k) {
                const auto beyond = target >= end;
                const V width = this->width(k, o), height = this->height(k, o);
                bin.index = select(beyond, splat<V>(k), bin.index);
                bin.left_width = select(beyond, width_end, bin.left_width);
                bin.width = select(beyond, width, bin.width);
                bin.left_height = select(beyond, height_end, bin.left_height);
                bin.height = select(beyond, height, bin.height);
                bin.raw0 = select(beyond, raw_at(k), bin.raw0);
                bin.raw1 = select(beyond, raw_at(k + 1), bin.raw1);
                end += of_heights ? height : width;
                width_end += width;
                height_end += height;
            }
            const V inverse_slope = T(1) / slope(bin);
            bin.d0 = Kind::derivative(bin.raw0, o);
            bin.d1 = Kind::derivative(bin.raw1, o);
            if (Kind::sets_ends(o)) {
                bin.d0 = select(bin.index == T(0), one, bin.d0);
                bin.d1 = select(bin.index == T(o.bins - 1), one, bin.d1);
            }
            bin.d0 = product(bin.d0, inverse_slope);
            bin.d1 = product(bin.d1, inverse_slope);
            return bin;
        }

        HR_FN V slope(const Bin<V>& bin) const { return bin.height * width_sum / (bin.width * height_sum); }

        // Converts a position within a bin, from 0 to 1, to a value in the spline's interval.
        HR_FN V across(V left, V share, V sum, V place, const MapOptions<Scalar<V>>& o) const {
            return Kind::spread(fma(share, place, left) / sum, o);
        }
    };

    template <class V>
    struct Point {
        V t, r;  // position in the bin, and 1 - t

        template <class Inverse>
        HR_FN void set(Inverse inverse, V from_left, const Bin<V>& bin) {
            if (inverse) {
                solve(from_left, bin);
            } else {
                set_t(from_left, bin);
            }
        }
        HR_FN void set_t(V from_left, const Bin<V>& bin) {
            t = min(max(from_left / bin.width, Scalar<V>(0)), Scalar<V>(1));
            r = Scalar<V>(1) - t;
        }
        HR_FN void solve(V from_left, const Bin<V>& bin) {
            using T = Scalar<V>;
            const V eta = min(max(from_left / bin.height, T(0)), T(1)), rest = T(1) - eta;
            const V q = fma(bin.d0, rest, -(bin.d1 * eta));
            V root = sqrt(fma(q, q, T(4) * eta * rest));
            if constexpr (!Kind::is_moderate) root = select(abs(q) > T(1e15), abs(q), root);  // q * q may overflow
            root = abs(q) + root;
            const auto low = q >= T(0);
            const V near = T(2) * select(low, eta, rest), denominator = near + root;
            const V a = near / denominator, b = root / denominator;
            t = select(low, a, b);
            r = select(low, b, a);
            const V bad = eta - eta;  // 0, or NaN where eta is NaN
            t += bad;
            r += bad;
        }
        // Moves the point to the end of the interval where the input is on a linear tail, because the derivative may
        // change much within a rounding error of the end.
        HR_FN void snap(V input, const MapOptions<Scalar<V>>& o) {
            if (Kind::tails(o) == Tails::linear) {
                const V zero = splat<V>(0), one = splat<V>(1);
                t = select(input >= o.bound, one, select(input <= o.low, zero, t));
                r = select(input >= o.bound, zero, select(input <= o.low, one, r));
            }
        }
        HR_FN V n(const Bin<V>& bin) const { return fma(bin.d1 * t, t, fma(bin.d0 * r, r, Scalar<V>(2) * t * r)); }
        HR_FN V n_t(const Bin<V>& bin) const { return Scalar<V>(2) * (fma(bin.d1, t, -(bin.d0 * r)) + r - t); }
        HR_FN V d(const Bin<V>& bin) const { return fma((bin.d0 + bin.d1) * t, r, fma(t, t, r * r)); }
        HR_FN V d_t(const Bin<V>& bin) const { return product(bin.d0 + bin.d1 - Scalar<V>(2), r - t); }
        HR_FN V eta(const Bin<V>& bin) const { return t * fma(bin.d0, r, t) / d(bin); }
    };

    // The derivative slope N / D^2, computed for unbounded derivatives without overflow of D^2.
    template <class V>
    HR_FN static V derivative_of(V slope, const Bin<V>& bin, const Point<V>& at) {
        const V d = at.d(bin);
        if constexpr (Kind::is_moderate) {
            return slope * at.n(bin) / (d * d);
        } else {
            return at.n(bin) / d / d * slope;
        }
    }
    template <class V, class P>
    HR_FN static V derivative(const Knots<V, P>& knots, const Bin<V>& bin, const Point<V>& at) {
        return derivative_of(knots.slope(bin), bin, at);
    }

    template <class Inverse, class V>
    HR_FN static Bin<V> ready_bin(Inverse inverse, V input, const Scalar<V>* ready, const MapOptions<Scalar<V>>& o) {
        const Scalar<V>* const ends = inverse ? ready + o.bins : ready;
        Int<V> index{};
        HR_ROLLED
        for (int k = 1; k < o.bins; ++k) index += select(input >= ends[k], Int<V>{} + 1, Int<V>{});
        V n[bin_numbers];
        gather_row(ready + 2 * o.bins, index, bin_numbers, n);
        return {V{}, n[0], n[1], n[2], n[3], n[4], n[5], V{}, V{}};
    }
    // The spline's value at the input from its value within the interval. Rounding must not lead out of the interval,
    // because a uniform base has no density outside.
    template <class Inverse, class V, class E>
    HR_FN static V leave(Inverse inverse, const E& entered, V inside, V slope, const MapOptions<Scalar<V>>& o) {
        const V low = Kind::spread(splat<V>(0), o), high = splat<V>(double(o.bound));
        inside = select(inside > high, high, select(inside < low, low, inside));  // a NaN stays NaN
        if (Kind::tails(o) == Tails::identity) {
            return select(Kind::outside(entered.value, o), entered.value, inside);
        } else if (Kind::tails(o) == Tails::linear) {
            return inverse ? inside + entered.beyond / slope : fma(entered.beyond, slope, inside);
        } else {
            return inside + entered.beyond;
        }
    }

    // Finds the bin of an input among the knots of its side, and the input's position within the bin.
    template <class Inverse, class V, class P>
    HR_FN static void locate(Inverse inverse, V input, const P& p, const MapOptions<Scalar<V>>& o, Knots<V, P>& knots,
                             Bin<V>& bin, Point<V>& at) {
        V target;
        bin = knots.find(inverse, input, p, o, target);
        at.set(inverse, target - (inverse ? bin.left_height : bin.left_width), bin);
        at.snap(input, o);
    }

    // Gradients of the direction from x to y at a point of a bin. `rise` is the distance of y from the interval on a
    // linear tail.
    template <class V, class P, class E, class G>
    HR_FN static V backward(const E& entered, V rise, const Knots<V, P>& knots, const Bin<V>& bin, const Point<V>& at,
                            const P& p, const MapOptions<Scalar<V>>& o, V grad_y, V grad_log_det, const G& grad) {
        using T = Scalar<V>;
        const V zero = splat<V>(0);
        const V outer = grad_y;
        if (Kind::tails(o) == Tails::identity) {
            grad_y = select(Kind::outside(entered.value, o), zero, grad_y);
            grad_log_det = select(Kind::outside(entered.value, o), zero, grad_log_det);
        } else if (Kind::tails(o) == Tails::linear) {
            grad_log_det = fma(grad_y, rise, grad_log_det);
        }
        const T range = Kind::range(o);
        const V width = bin.width / knots.width_sum, height = bin.height / knots.height_sum;  // shares
        const V n = at.n(bin), d = at.d(bin), tr = at.t * at.r, eta = at.eta(bin);
        const V grad_eta = grad_y * height * range;
        const V grad_n = grad_log_det / n, grad_p = grad_eta / d;  // eta = p / d
        const V grad_d = -fma(T(2), grad_log_det, grad_eta * eta) / d;
        V grad_t = fma(grad_p, fma(T(2), at.t, bin.d0 * (at.r - at.t)), grad_n * at.n_t(bin));
        grad_t = fma(grad_d, at.d_t(bin), grad_t);
        if (Kind::tails(o) == Tails::linear)
            grad_t = select(Kind::outside(entered.value, o), zero, grad_t);  // outside of the interval t is 0 or 1,
                                                                             // whatever the input
        const V from_d0 =
            product(fma(grad_d, tr, fma(grad_p, tr, grad_n * at.r * at.r)), bin.d0);  // gradient by the logarithm of d0
        const V from_d1 = product(fma(grad_n * at.t, at.t, grad_d * tr), bin.d1);
        const V grad_log_slope = grad_log_det - from_d0 - from_d1;
        // Gradients by the share to the left of the bin, and by the share of the bin.
        const V by_left_width = -grad_t / width, by_width = fma(-grad_t, at.t, -grad_log_slope) / width;
        const V by_left_height = product(grad_y, range), by_height = fma(by_left_height, eta, grad_log_slope / height);
        const auto mean = [&](V by_left, V left, V by_bin, V size, V sum) {
            return fma(by_left, Kind::parts_below(left, bin.index, sum, o),
                       by_bin * Kind::part_of(size, bin.index, sum, o)) /
                   sum;
        };
        const V mean_width = mean(by_left_width, bin.left_width, by_width, bin.width, knots.width_sum);
        const V mean_height = mean(by_left_height, bin.left_height, by_height, bin.height, knots.height_sum);
        HR_ROLLED
        for (int k = 0; k < o.bins; ++k) {  // gradients by raw values, through the softmax and the functions before and
                                            // after it
            const auto left = bin.index > T(k);
            const auto here = bin.index == T(k);
            const V w = select(left, by_left_width, select(here, by_width, zero)) - mean_width;
            const V h = select(left, by_left_height, select(here, by_height, zero)) - mean_height;
            const V raw_width = p(k), raw_height = p(o.bins + k);
            grad(k, w * knots.shares.get(k) / knots.width_sum * Kind::part_slope(raw_width, o));
            grad(o.bins + k, h * knots.shares.get(o.bins + k) / knots.height_sum * Kind::part_slope(raw_height, o));
        }
        V by_d0 = from_d0 + zero, by_d1 = from_d1 + zero;  // a -0 becomes 0
        if constexpr (!Kind::slopes_are_cheap) {           // computed only at the two knots whose derivatives have a
                                                           // gradient
            by_d0 *= Kind::log_derivative_slope(bin.raw0, o);
            by_d1 *= Kind::log_derivative_slope(bin.raw1, o);
        }
        const int n_derivatives = Kind::n_derivatives(o.bins, o.ends);
        HR_ROLLED
        for (int j = 0; j < n_derivatives; ++j) {
            const int place = 2 * o.bins + j, k = Kind::knot(j, o);
            const int before = Kind::is_circular(o) && k == 0 ? o.bins - 1 : k - 1;
            const V raw = p(place);
            V by_raw = select(bin.index == T(k), by_d0, select(bin.index == T(before), by_d1, zero));
            if constexpr (Kind::slopes_are_cheap) {
                by_raw *= Kind::log_derivative_slope(raw, o);
            } else {
                by_raw = select(raw == raw, by_raw, raw);  // a NaN stays NaN
            }
            grad(place, by_raw);
        }
        const V inner = grad_t / (width * range);
        if (Kind::tails(o) == Tails::identity) return select(Kind::outside(entered.value, o), outer, inner);
        if (Kind::tails(o) == Tails::linear)
            return select(Kind::outside(entered.value, o), outer * derivative(knots, bin, at), inner);
        return inner;
    }
};

// A spline under its name in the list of maps. All maps with one kind of knots share a kernel, which reads ends and
// tails from options.
template <class Kind, Ends ends_, Tails tails_>
struct NamedSpline {
    using Kernel = Spline<Kind>;
    static constexpr Ends ends = ends_;
    static constexpr Tails tails = tails_;
    static constexpr int max_bins = Kernel::max_bins;
    static constexpr double least_slope = Kernel::least_slope;
    static constexpr double least_bin = Kind::least_bin;

    static constexpr std::array<MapParameters, 3> parameters(int bins) {
        return {{{"width", bins}, {"height", bins}, {"derivative", Kind::n_derivatives(bins, ends), Kind::identity}}};
    }

    HR_FN static constexpr int n_params(int bins) { return 2 * bins + Kind::n_derivatives(bins, ends); }
};

struct RqSpline : NamedSpline<SoftClampedKnots, Ends::one, Tails::identity> {
    static constexpr char meaning[] =
        "a monotone rational-quadratic spline (Durkan et al. 2019), in the parametrisation of zuko";
};
struct NflowsSpline : NamedSpline<AdditiveKnots, Ends::one, Tails::identity> {
    static constexpr char meaning[] =
        "a spline whose bins have a least size, of derivative 1 at the ends of its interval, the identity outside";
};
struct FreeSpline : NamedSpline<AdditiveKnots, Ends::free, Tails::linear> {
    static constexpr char meaning[] = "such a spline with derivatives at the ends, continued by straight lines";
};
struct FlowjaxSpline : NamedSpline<AdditiveKnots, Ends::free, Tails::identity> {
    static constexpr char meaning[] = "such a spline with derivatives at the ends, the identity outside";
};
struct HalvedSpline : NamedSpline<AdditiveKnots, Ends::halved, Tails::identity> {
    static constexpr char meaning[] = "the same, where the first and the last bin have half the least size of others";
};
struct CircularSpline : NamedSpline<AdditiveKnots, Ends::shared, Tails::periodic> {
    static constexpr char meaning[] = "such a spline on a period";
};

}  // namespace
}  // namespace headrace
