// Conversion of raw parameters to the knots of a spline (rq_spline.hpp), and the map outside of the spline's interval.
//
// A kind of spline is defined by static functions. `part` is the positive value of a bin from which a softmax is
// computed, and `size` the bin's size from its part, in a unit in which the sizes of a side have the same sum as the
// parts. `place` is the index of a knot's raw derivative, or -1 where the derivative is 1; `knot` is the inverse of
// `place`. `enter` converts an input to a value within the interval, at which the spline is evaluated, and the value to
// add afterwards.
#pragma once

#include "../lane.hpp"
#include "options.hpp"

namespace headrace {
namespace {

// `beyond` is the input's distance from the interval for a linear tail, and the subtracted periods for a periodic
// spline.
template <class V>
struct Entered {
    V value, beyond;
};

// Knots in [-bound, bound], with the identity outside. Widths and heights are softmax of a / (1 + 2 |a| / log(1 /
// slope)), so that two bins differ by a factor of at most 1 / slope; derivatives at the K - 1 inner knots are exp(a /
// (1 + |a| / log(1 / slope))).
struct SoftClampedKnots {
    static constexpr IdentityAt identity = IdentityAt::zero;  // raw derivatives for which the derivatives at knots are
                                                              // 1
    static constexpr double least_bin = 0;                    // bins have no least size
    static constexpr bool is_moderate = true;                 // whether derivatives are between slope and 1 / slope
    static constexpr bool parts_show_all = true;              // whether an infinite raw value makes a part NaN
    static constexpr bool slopes_are_cheap = true;            // whether log_derivative_slope has no exponentials

    template <class T>
    HR_FN static constexpr Tails tails(const MapOptions<T>&) {
        return Tails::identity;
    }
    template <class T>
    HR_FN static constexpr bool sets_ends(const MapOptions<T>&) {
        return false;  // not needed, because the raw derivative 0 gives the derivative 1
    }
    template <class T>
    HR_FN static constexpr bool is_circular(const MapOptions<T>&) {
        return false;
    }

    HR_FN static constexpr int n_derivatives(int bins, Ends) { return bins - 1; }
    template <class T>
    HR_FN static constexpr int place(int knot, const MapOptions<T>& o) {
        return knot < o.bins ? knot - 1 : -1;
    }
    template <class T>
    HR_FN static constexpr int knot(int place, const MapOptions<T>&) {
        return place + 1;
    }

    template <class V>
    HR_FN static Entered<V> enter(V input, const MapOptions<Scalar<V>>&) {
        return {input, V{}};
    }
    template <class V>
    HR_FN static auto outside(V value, const MapOptions<Scalar<V>>& o) {
        return abs(value) > o.bound;  // false for NaN, which is computed like finite values
    }
    template <class T>
    HR_FN static T range(const MapOptions<T>& o) {
        return T(2) * o.bound;
    }
    template <class V>
    HR_FN static V share_below(V value, const MapOptions<Scalar<V>>& o) {
        return (min(max(value, -o.bound), o.bound) + o.bound) * (Scalar<V>(0.5) / o.bound);
    }
    template <class V>
    HR_FN static V spread(V share, const MapOptions<Scalar<V>>& o) {
        return fma(share, Scalar<V>(2) * o.bound, -o.bound);
    }

    template <class V, class P>
    HR_FN static V top(const P&, int, int) {
        return V{};
    }
    template <class V>
    HR_FN static V part(V raw, V, const MapOptions<Scalar<V>>& o) {
        return exp_moderate(soft_clamp(raw, Scalar<V>(2) * o.inverse_clamp));
    }
    template <class V>
    HR_FN static V part_slope(V raw, const MapOptions<Scalar<V>>& o) {
        return soft_clamp_slope(raw, Scalar<V>(2) * o.inverse_clamp);
    }
    template <class V>
    HR_FN static V size(V part, V, int, const MapOptions<Scalar<V>>&) {
        return part;
    }
    template <class V>
    HR_FN static V parts_below(V sizes, V, V, const MapOptions<Scalar<V>>&) {
        return sizes;
    }
    template <class V>
    HR_FN static V part_of(V size, V, V, const MapOptions<Scalar<V>>&) {
        return size;
    }

    template <class V>
    HR_FN static V derivative(V raw, const MapOptions<Scalar<V>>& o) {
        return exp(soft_clamp(raw, o.inverse_clamp));
    }
    template <class V>
    HR_FN static V log_derivative_slope(V raw, const MapOptions<Scalar<V>>& o) {
        return soft_clamp_slope(raw, o.inverse_clamp);
    }
    template <class V>
    HR_FN static V poison(V raw, const MapOptions<Scalar<V>>& o) {
        return soft_clamp(raw, o.inverse_clamp);
    }

  private:
    template <class V>
    HR_FN static V soft_clamp(V a, Scalar<V> inverse_limit) {
        return a / fma(abs(a), inverse_limit, Scalar<V>(1));
    }
    template <class V>
    HR_FN static V soft_clamp_slope(V a, Scalar<V> inverse_limit) {
        const V f = Scalar<V>(1) / fma(abs(a), inverse_limit, Scalar<V>(1));
        return f * f;
    }
};

// Knots in [low, bound]. A width or height is min_bin + (1 - min_bin K) softmax(raw), as a share of the interval;
// derivatives are slope + log(1 + e^a). On a circle both ends have the same raw derivative. Ends and tails are options,
// equal for all rows, because a kernel for each name would make all kernels together half as large again. With
// `Ends::halved` the first and the last bin have half of min_bin, and the softmax divides 1 - min_bin (K - 1).
struct AdditiveKnots {
    static constexpr IdentityAt identity = IdentityAt::softplus;
    static constexpr double least_bin = 1e-6;
    static constexpr bool is_moderate = false;
    static constexpr bool parts_show_all = false;
    static constexpr bool slopes_are_cheap = false;

    template <class T>
    HR_FN static constexpr Tails tails(const MapOptions<T>& o) {
        return o.tails;
    }
    template <class T>
    HR_FN static constexpr bool sets_ends(const MapOptions<T>& o) {
        return o.ends == Ends::one;
    }
    template <class T>
    HR_FN static constexpr bool is_circular(const MapOptions<T>& o) {
        return o.ends == Ends::shared;
    }

    HR_FN static constexpr int n_derivatives(int bins, Ends ends) {
        return ends == Ends::one ? bins - 1 : ends == Ends::shared ? bins : bins + 1;
    }
    template <class T>
    HR_FN static constexpr int place(int knot, const MapOptions<T>& o) {
        if (o.ends == Ends::one) return knot < o.bins ? knot - 1 : -1;
        return o.ends == Ends::shared && knot == o.bins ? 0 : knot;
    }
    template <class T>
    HR_FN static constexpr int knot(int place, const MapOptions<T>& o) {
        return o.ends == Ends::one ? place + 1 : place;
    }

    template <class V>
    HR_FN static Entered<V> enter(V input, const MapOptions<Scalar<V>>& o) {
        using T = Scalar<V>;
        if (o.tails == Tails::identity) return {input, V{}};
        if (o.tails == Tails::linear) return {input, input - clamp(input, o)};
        // The number of periods from the middle to the input. An input so far away that rounding removes its position
        // within a period is moved to the middle.
        const T middle = fma(o.bound - o.low, T(0.5), o.low);
        const V periods = product(input - middle, T(1) / range(o)), round = splat<V>(Format<T>::round);
        const V whole = select(abs(periods) < T(0.25) * Format<T>::round, (periods + round) - round, periods);
        const V beyond = product(whole, range(o));
        return {input - beyond, beyond};
    }
    template <class V>
    HR_FN static auto outside(V value, const MapOptions<Scalar<V>>& o) {
        return (value < o.low) | (value > o.bound);
    }
    template <class T>
    HR_FN static T range(const MapOptions<T>& o) {
        return o.bound - o.low;
    }
    template <class V>
    HR_FN static V share_below(V value, const MapOptions<Scalar<V>>& o) {
        return (clamp(value, o) - o.low) * (Scalar<V>(1) / range(o));
    }
    template <class V>
    HR_FN static V spread(V share, const MapOptions<Scalar<V>>& o) {
        return fma(share, range(o), o.low);
    }

    template <class V, class P>
    HR_FN static V top(const P& p, int first, int n) {
        V top = p(first);
        HR_ROLLED
        for (int k = 1; k < n; ++k) {
            const V raw = p(first + k);
            top = select(raw > top, raw, top);
        }
        return top;
    }
    template <class V>
    HR_FN static V part(V raw, V top, const MapOptions<Scalar<V>>&) {
        return exp(raw - top);
    }
    template <class V>
    HR_FN static V part_slope(V, const MapOptions<Scalar<V>>& o) {
        return splat<V>(double(left_over(o)));
    }
    template <class V>
    HR_FN static V size(V part, V sum, int k, const MapOptions<Scalar<V>>& o) {
        using T = Scalar<V>;
        const bool is_halved = o.ends == Ends::halved && (k == 0 || k == o.bins - 1);
        return fma(part, left_over(o), sum * (is_halved ? T(0.5) * o.min_bin : o.min_bin));
    }
    // Converts the sum of the sizes of all bins below `bin` to the sum of their parts, in the backward pass.
    template <class V>
    HR_FN static V parts_below(V sizes, V bin, V sum, const MapOptions<Scalar<V>>& o) {
        using T = Scalar<V>;
        return parts_of(sizes, o.ends == Ends::halved ? max(bin - T(0.5), T(0)) : bin, sum, o);
    }
    template <class V>
    HR_FN static V part_of(V size, V bin, V sum, const MapOptions<Scalar<V>>& o) {
        using T = Scalar<V>;
        V n = splat<V>(1);
        if (o.ends == Ends::halved) n = select((bin == T(0)) | (bin == T(o.bins - 1)), splat<V>(0.5), n);
        return parts_of(size, n, sum, o);
    }

    template <class V>
    HR_FN static V derivative(V raw, const MapOptions<Scalar<V>>& o) {
        return softplus(raw) + o.slope;
    }
    template <class V>
    HR_FN static V log_derivative_slope(V raw, const MapOptions<Scalar<V>>& o) {
        return sigmoid(raw) / (softplus(raw) + o.slope);
    }
    template <class V>
    HR_FN static V poison(V raw, const MapOptions<Scalar<V>>&) {
        return raw - raw;
    }

  private:
    template <class V>
    HR_FN static V clamp(V value, const MapOptions<Scalar<V>>& o) {
        return min(max(value, o.low), o.bound);
    }
    // The share of the interval that least sizes leave for the softmax.
    template <class T>
    HR_FN static T left_over(const MapOptions<T>& o) {
        return fma(-T(o.bins - (o.ends == Ends::halved ? 1 : 0)), o.min_bin, T(1));
    }
    // Converts a sum of sizes, which includes `n` least sizes, to the sum of the parts.
    template <class V>
    HR_FN static V parts_of(V sizes, V n, V sum, const MapOptions<Scalar<V>>& o) {
        return fma(n * sum, -o.min_bin, sizes) * (Scalar<V>(1) / left_over(o));
    }
};

}  // namespace
}  // namespace headrace
