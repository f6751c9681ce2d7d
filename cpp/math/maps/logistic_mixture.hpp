// logistic_mixture: z = logit F(x), where F is the distribution function of a mixture of K logistic distributions (Ho,
// Chen, Srinivas, Duan, Abbeel 2019, "Flow++", section 3.2). Under a logistic base, x has the density of the mixture.
// Raw parameters are K log-weights up to a constant, K means, and K log-scales, softly clamped (affine.hpp). With all
// raw parameters zero the map is the identity.
//
// With u = (x - mean) / scale and weights e^a, F is the sum of e^a sigmoid(u) over S + T, where S is the sum of e^a
// sigmoid(u), and T the sum of e^a sigmoid(-u). Therefore z = log S - log T, where the normaliser of the weights
// cancels. The derivative is
//   dz/dx = N (1 / S + 1 / T),   N = sum of e^a sigmoid(u) sigmoid(-u) / scale,
// a product of sums of positive terms. Each sum is stored as its largest exponent and a remainder that is neither large
// nor small, because far outside of all components, and in a wide gap between two of them, the terms themselves
// underflow.
//
// The inverse has no closed form. The quantiles of the components bracket the quantile of the mixture. Newton's method
// finds the root within this bracket, with a bisection where a step leaves the bracket or is more than half of the step
// before. A lane that has converged no longer changes, so that its bits do not depend on other lanes.
#pragma once

#include "../lane.hpp"
#include "affine.hpp"
#include "directions.hpp"
#include "options.hpp"

namespace headrace {
namespace {

struct LogisticMixture : Directions<LogisticMixture> {
    static constexpr int max_bins = 64;          // largest number of components
    static constexpr double least_slope = 1e-6;  // below this slope, squares of scales leave the range of float32
    static constexpr bool components_as_lanes = true;

    static constexpr char meaning[] = "the logit of a mixture's distribution function, of K components";
    static constexpr std::array<MapParameters, 3> parameters(int bins) {
        return {{{"weight", bins}, {"mean", bins}, {"log_scale", bins}}};
    }

    HR_FN static constexpr int n_params(int bins) { return 3 * bins; }
    HR_FN static constexpr int n_room(int bins) { return 3 * bins; }

    template <class Inverse, class V, class P>
    HR_FN static V run(Inverse inverse, V input, const P& p, const MapOptions<Scalar<V>>& o, V& log_det) {
        Components<V, P> components(p, o);
        const V poison = components.poison + (input - input);  // NaN for an infinite input, which has no position among
                                                               // the components
        const V x = inverse ? input : root(input, components, poison);
        const Sums<V> at(x, components);
        log_det = at.log_slope() * Scalar<V>(inverse ? 1 : -1) + poison;
        return (inverse ? at.logit() : x) + poison;
    }

    // Let h be the map from x to z, and L = log h'. The inverse has dx = (dz - h_p dp) / h' and the log-derivative -L,
    // so that gradients of the inverse are gradients of h for other incoming gradients.
    template <class Inverse, class V, class P, class G>
    HR_FN static V run_vjp(Inverse inverse, V given, V built, const P& p, const MapOptions<Scalar<V>>& o, V grad_built,
                           V grad_log_det, const G& grad) {
        using T = Scalar<V>;
        Components<V, P> components(p, o);
        const Sums<V> at(inverse ? given : built, components);
        const V slope = exp(max(at.log_slope(), is_single<V> ? T(-80) : T(-700)));  // limited, so that the divisor is a
                                                                                    // normal number
        V by_z = grad_built, by_log = grad_log_det, grad_given;
        if (inverse) {
            grad_given = fma(grad_built, slope, grad_log_det * at.bend());
        } else {
            grad_given = fma(-grad_log_det, at.bend(), grad_built) / slope;
            by_z = -grad_given;
            by_log = -grad_log_det;
        }
        const int n = components.n;
        HR_ROLLED
        for (int k = 0; k < n; ++k) {
            const Term<V> t(at.x, k, components);
            const V raw = p(2 * n + k), rate = components.rate(k);
            const V below = at.share_below(t), above = at.share_above(t), here = at.share_here(t, rate);
            const V right = below * t.right, left = above * t.left;
            const V of_slope = fma(at.below, left, fma(-at.above, right, here * (t.right - t.left)));
            const V by_u = fma(by_z, fma(below, t.right, left), by_log * of_slope);
            grad(k, fma(by_z, below - above, by_log * fma(-at.below, above, fma(-at.above, below, here))));
            grad(n + k, -by_u * rate);
            grad(2 * n + k, -fma(by_u, t.u, by_log * here) * SoftClamp::log_slope(raw, o));
        }
        return grad_given + components.poison;
    }

  private:
    // Log-weights relative to the largest, and 1 / scale, of each component: in lanes, or in the buffer of the accessor
    // of parameters, like the shares of splines (rq_spline.hpp).
    template <class V, class P, bool has_room = requires(const P& p) { p.room(0); }>
    struct Kept {
        V weights[max_bins], rates[max_bins];
        HR_FN Kept(const P&, int) { put(0, V{}, V{}); }  // compilers cannot infer that at least one component exists
        HR_FN V weight(int k) const { return weights[k]; }
        HR_FN V rate(int k) const { return rates[k]; }
        HR_FN void put(int k, V weight, V rate) {
            weights[k] = weight;
            rates[k] = rate;
        }
    };
    template <class V, class P>
    struct Kept<V, P, true> {
        const P& p;
        int n;
        HR_FN Kept(const P& params, int components) : p(params), n(components) {}
        HR_FN V weight(int k) const { return p.room(k); }
        HR_FN V rate(int k) const { return p.room(2 * n + k); }
        HR_FN void put(int k, V weight, V rate) {
            p.room(k) = weight;
            p.room(2 * n + k) = rate;
        }
    };

    template <class V>
    HR_FN static V larger(V x, V y) {
        return select(x > y, x, y);
    }

    template <class V, class P>
    struct Components : Kept<V, P> {
        const P& p;
        int n;
        V poison;  // NaN if any parameter is not finite, else 0

        HR_FN Components(const P& params, const MapOptions<Scalar<V>>& o)
            : Kept<V, P>(params, o.bins), p(params), n(o.bins) {
            V top = p(0);
            poison = splat<V>(0);
            HR_ROLLED
            for (int k = 0; k < n; ++k) top = larger(V(p(k)), top);
            HR_ROLLED
            for (int k = 0; k < n; ++k) {
                const V weight = p(k), mean = p(n + k), scale = p(2 * n + k);
                poison += (weight - weight) + (mean - mean) + (scale - scale);
                this->put(k, weight - top, exp_moderate(-SoftClamp::log_scale(scale, o)));
            }
        }
        HR_FN V mean(int k) const { return p(n + k); }
    };

    // The components of one element, as lanes of vectors P::Lanes: exponentials are computed for a vector of components
    // at a time, and terms are added one component after another, so that an element has the same bits alone and among
    // others. Lanes after the last component are zero.
    template <class T, class P>
        requires requires { typename P::Lanes; }
    struct Components<T, P> {
        using Lanes = typename P::Lanes;
        static constexpr int width = Lane<Lanes>::width;
        int n;
        T poison = 0;
        T weights[max_bins], means[max_bins], rates[max_bins];

        HR_FN Components(const P& p, const MapOptions<T>& o) : n(o.bins) {
            T top = p(0);
            for (int k = 1; k < n; ++k) top = larger(p(k), top);
            for (int k = 0; k < n; ++k) poison += (p(k) - p(k)) + (p(n + k) - p(n + k)) + (p(2 * n + k) - p(2 * n + k));
            int k = 0;
            do {  // at least one component exists: after a `for`, GCC 14 would warn of uninitialised values
                const Lanes scale = p.lanes(2 * n + k, n - k);
                put(weights + k, p.lanes(k, n - k) - top);
                put(means + k, p.lanes(n + k, n - k));
                put(rates + k, exp_moderate(-SoftClamp::log_scale(scale, o)));
                k += width;
            } while (k < n);
        }
        HR_FN T weight(int k) const { return weights[k]; }
        HR_FN T mean(int k) const { return means[k]; }
        HR_FN T rate(int k) const { return rates[k]; }

        // The weights and scales of a vector of components.
        struct Vectors {
            const Components& of;
            HR_FN Lanes weight(int k) const { return take(of.weights + k); }
            HR_FN Lanes mean(int k) const { return take(of.means + k); }
            HR_FN Lanes rate(int k) const { return take(of.rates + k); }
        };

        HR_FN static Lanes take(const T* p) {
            Lanes v;
            __builtin_memcpy(&v, p, sizeof v);
            return v;
        }
        HR_FN static void put(T* p, Lanes v) { __builtin_memcpy(p, &v, sizeof v); }
    };

    // Limits x, so that exponents do not overflow far outside of a component.
    template <class V>
    HR_FN static V within(V x) {
        const Scalar<V> farthest = is_single<V> ? Scalar<V>(1e37) : Scalar<V>(1e300);
        return max(min(x, farthest), -farthest);
    }

    // Terms of one component at x: u, sigmoid(u) and sigmoid(-u), and exponents of the terms in S, T and N.
    template <class V>
    struct Term {
        V u, left, right, larger_side, to_below, to_above, to_here;

        template <class C>
        HR_FN Term(V x, int k, const C& components) {
            using T = Scalar<V>;
            exponents(x, k, components);
            const V e = exp(-abs(u));
            larger_side = T(1) / (e + T(1));
            const V smaller_side = product(e, larger_side);
            const auto is_left = u < T(0);
            left = select(is_left, smaller_side, larger_side);
            right = select(is_left, larger_side, smaller_side);
        }
        struct ExponentsAlone {};
        template <class C>
        HR_FN Term(V x, int k, const C& components, ExponentsAlone) {
            exponents(x, k, components);
        }

      private:
        template <class C>
        HR_FN void exponents(V x, int k, const C& components) {
            using T = Scalar<V>;
            const V weight = components.weight(k);
            u = within(product(x - components.mean(k), components.rate(k)));
            to_below = weight + min(u, T(0));
            to_above = weight - max(u, T(0));
            to_here = weight - abs(u);
        }
    };

    // The sums S, T and N at x.
    template <class V>
    struct Sums {
        V x, below_top, above_top, here_top;  // position, and the largest exponents in S, T and N
        V below_rest, above_rest, here_rest;  // S, T and N, each divided by e^top
        V below_bend, above_bend, here_bend;  // derivatives of S, T and N by x, each divided by e^top
        V below, above;                       // shares S / (S + T) = F(x) and T / (S + T) = 1 - F(x)
        V log_either;                         // log(1 / S + 1 / T)

        template <class C>
        HR_FN Sums(V place, const C& components) : x(place) {
            below_top = above_top = here_top = -infinity<V>();
            below_rest = above_rest = here_rest = below_bend = above_bend = here_bend = splat<V>(0);
            if constexpr (requires { typename C::Vectors; }) {
                add_vectors(components);
            } else {
                add_each(components);
            }
            const V top = larger(-below_top, -above_top);
            const V one_below = exp(-below_top - top) / below_rest, one_above = exp(-above_top - top) / above_rest;
            const V either = one_below + one_above;
            above = one_below / either;
            below = one_above / either;
            log_either = top + log(either);
        }

        HR_FN V logit() const { return (below_top - above_top) + log(below_rest / above_rest); }
        HR_FN V log_slope() const { return (here_top + log_either) + log(here_rest); }
        // The derivative of log h'.
        HR_FN V bend() const {
            return here_bend / here_rest - above * below_bend / below_rest + below * above_bend / above_rest;
        }

        // Shares of a component in S and T, and in N.
        HR_FN V share_below(const Term<V>& t) const { return term_below(t) / below_rest; }
        HR_FN V share_above(const Term<V>& t) const { return term_above(t) / above_rest; }
        HR_FN V share_here(const Term<V>& t, V rate) const { return term_here(t, rate) / here_rest; }

      private:
        template <class C>
        HR_FN void add_each(const C& components) {
            HR_ROLLED
            for (int k = 0; k < components.n; ++k) {
                const Term<V> t(x, k, components, typename Term<V>::ExponentsAlone{});
                below_top = larger(t.to_below, below_top);
                above_top = larger(t.to_above, above_top);
                here_top = larger(t.to_here, here_top);
            }
            HR_ROLLED
            for (int k = 0; k < components.n; ++k) {
                const Term<V> t(x, k, components);
                const V rate = components.rate(k), of_below = term_below(t), of_above = term_above(t),
                        of_here = term_here(t, rate);
                below_rest += of_below;
                above_rest += of_above;
                here_rest += of_here;
                below_bend = fma(of_below * t.right, rate, below_bend);
                above_bend = fma(of_above * t.left, rate, above_bend);
                here_bend = fma(of_here * (t.right - t.left), rate, here_bend);
            }
        }

        // Adds components with the bits of add_each, but without the bends, which only the backward pass needs.
        template <class C>
        HR_FN void add_vectors(const C& components) {
            using P = typename C::Lanes;
            constexpr int W = C::width;
            const int n = components.n;
            const typename C::Vectors vectors{components};
            const P at = x - P{};
            V of_below[max_bins], of_above[max_bins], of_here[max_bins];
            for (int k = 0; k < n; k += W) {
                const Term<P> t(at, k, vectors, typename Term<P>::ExponentsAlone{});
                C::put(of_below + k, t.to_below);
                C::put(of_above + k, t.to_above);
                C::put(of_here + k, t.to_here);
            }
            for (int k = 0; k < n; ++k) {
                below_top = larger(of_below[k], below_top);
                above_top = larger(of_above[k], above_top);
                here_top = larger(of_here[k], here_top);
            }
            for (int k = 0; k < n; k += W) {
                const Term<P> t(at, k, vectors);
                C::put(of_below + k, term_below(t));
                C::put(of_above + k, term_above(t));
                C::put(of_here + k, term_here(t, vectors.rate(k)));
            }
            for (int k = 0; k < n; ++k) {
                below_rest += of_below[k];
                above_rest += of_above[k];
                here_rest += of_here[k];
            }
        }

        template <class P>
        HR_FN P term_below(const Term<P>& t) const {
            return product(exp(t.to_below - below_top), t.larger_side);
        }
        template <class P>
        HR_FN P term_above(const Term<P>& t) const {
            return product(exp(t.to_above - above_top), t.larger_side);
        }
        template <class P>
        HR_FN P term_here(const Term<P>& t, P rate) const {
            return product(exp(t.to_here - here_top) * (t.larger_side * t.larger_side), rate);
        }
    };

    // The root x of logit F(x) = z; an arbitrary value where `poison` is NaN, because no bracket would close there.
    template <class V, class C>
    HR_FN static V root(V z, const C& components, V poison) {
        using T = Scalar<V>;
        const T epsilon = is_single<V> ? T(4.8e-7) : T(8.9e-16);  // four units in the last place
        V low = quantile(z, 0, components), high = low;
        HR_ROLLED
        for (int k = 1; k < components.n; ++k) {
            const V x = quantile(z, k, components);
            low = -larger(V(-low), V(-x));
            high = larger(x, high);
        }
        V x = low * T(0.5) + high * T(0.5), last = high - low;
        V open = select(last > T(0), splat<V>(1), splat<V>(0));  // 1 where the root is not found yet, else 0
        open = select(poison == T(0), open, splat<V>(0));
        HR_ROLLED
        for (int i = 0; i < most_steps && any_lane<V>(bit_cast<Int<V>>(open)); ++i) {
            const Sums<V> at(x, components);
            const V difference = at.logit() - z, step = product(difference, exp(-at.log_slope()));
            const V newton = x - step;
            const auto is_below = difference < T(0);
            const V lower = select(is_below, x, low), upper = select(is_below, high, x);
            // A root is found when the difference is within the rounding error of the logit, or the step is within the
            // rounding error of x: only after a step of Newton's method, not after a bisection.
            const V rest = larger(fma(abs(z) + T(1), epsilon, -abs(difference)), fma(abs(x), epsilon, -abs(step)));
            const auto is_found = rest >= T(0);
            const V other = select(is_found, x, lower * T(0.5) + upper * T(0.5));
            V next = select(abs(step) * T(2) <= select(is_found, infinity<V>(), last), newton, other);
            next = select(next >= lower, next, other);  // the comparison is false for a NaN, so that a NaN is replaced
            next = select(next <= upper, next, other);
            const auto is_open = open > T(0);
            last = select(is_open, abs(next - x), last);
            x = select(is_open, next, x);
            low = select(is_open, lower, low);
            high = select(is_open, upper, high);
            open = select(is_found, splat<V>(0), open);
            open = select(last > T(0), open, splat<V>(0));
        }
        return x;
    }
    static constexpr int most_steps = 200;  // only bisections take this number of steps, until the ends of a bracket
                                            // differ in the last bit

    template <class V, class C>
    HR_FN static V quantile(V z, int k, const C& components) {
        return within(z / components.rate(k) + components.mean(k));
    }
};

}  // namespace
}  // namespace headrace
