// polyline: a map that only tests have, and only in _emu, to show that a new map needs only lines in the lists. No map
// of the library has all properties of this map: bins without storage for their values, a backward pass that reads the
// output, and a form for parameters that all rows share.
//
// The interval [-bound, bound] is divided into K equal pieces, each with a separate slope; the outer pieces continue
// beyond the interval. Parameters are the shift of the left end and K raw slopes, softly clamped. With all parameters
// zero the map is the identity.
#pragma once

#include "../../cpp/math/maps/affine.hpp"

namespace headrace {
namespace {

struct Polyline {
    static constexpr int max_bins = 6;
    static constexpr double least_slope = 1e-5;

    static constexpr char meaning[] = "pieces of straight lines";
    static constexpr std::array<MapParameters, 2> parameters(int bins) { return {{{"shift", 1}, {"slope", bins}}}; }

    HR_FN static constexpr int n_params(int bins) { return 1 + bins; }

    template <class V, class P>
    HR_FN static V forward(V z, const P& p, const MapOptions<Scalar<V>>& o, V& log_det) {
        const Piece<V> piece(z, false, p, o);
        log_det = piece.log_slope;
        return piece.low + piece.slope * (z - piece.left);
    }
    template <class V, class P>
    HR_FN static V inverse(V x, const P& p, const MapOptions<Scalar<V>>& o, V& log_det) {
        const Piece<V> piece(x, true, p, o);
        log_det = -piece.log_slope;
        return piece.left + (x - piece.low) / piece.slope;
    }
    template <class V, class P, class G>
    HR_FN static V forward_vjp(V z, V, const P& p, const MapOptions<Scalar<V>>& o, V grad_x, V grad_log_det,
                               const G& grad) {
        const Piece<V> piece(z, false, p, o);
        backward(piece, z, p, o, grad_x, grad_log_det, grad);
        return grad_x * piece.slope;
    }
    template <class V, class P, class G>
    HR_FN static V inverse_vjp(V x, V z, const P& p, const MapOptions<Scalar<V>>& o, V grad_z, V grad_log_det,
                               const G& grad) {
        const Piece<V> piece(x, true, p, o);
        const V grad_x = grad_z / piece.slope;
        backward(piece, z, p, o, -grad_x, -grad_log_det, grad);
        return grad_x;
    }

    // ---- parameters that all rows share: the lower corner and the slope of each piece

    static constexpr int ready_factors = 4;
    HR_FN static constexpr int n_ready(int bins) { return 3 * bins; }

    template <class V, class P, class Put>
    HR_FN static void prepare(const P& p, const MapOptions<Scalar<V>>& o, const Put& put) {
        const V width = splat<V>(2.0 * double(o.bound) / o.bins);
        V left = splat<V>(-double(o.bound)), low = left + V(p(0));
        for (int k = 0; k < o.bins; ++k) {
            const V slope = exp(SoftClamp::log_scale(V(p(1 + k)), o));
            put(k, left);
            put(o.bins + k, low);
            put(2 * o.bins + k, slope);
            left += width;
            low += slope * width;
        }
    }
    template <class V>
    HR_FN static V ready_forward(V z, const Scalar<V>* ready, const MapOptions<Scalar<V>>& o, V& factor) {
        const ReadyPiece<V> piece(z, ready, ready, o.bins);
        factor = piece.slope;
        return piece.low + piece.slope * (z - piece.left);
    }
    template <class V>
    HR_FN static V ready_inverse(V x, const Scalar<V>* ready, const MapOptions<Scalar<V>>& o, V& factor) {
        const ReadyPiece<V> piece(x, ready + o.bins, ready, o.bins);
        factor = piece.slope;
        return piece.left + (x - piece.low) / piece.slope;
    }

  private:
    // The piece that contains a value, which is x if `built`, otherwise z: its index, lower corner and slope.
    template <class V>
    struct Piece {
        V index, left, low, log_slope, slope;

        template <class P>
        HR_FN Piece(V value, bool built, const P& p, const MapOptions<Scalar<V>>& o)
            : index(splat<V>(0)), left(splat<V>(-double(o.bound))), low(left + V(p(0))) {
            const V width = splat<V>(2.0 * double(o.bound) / o.bins);
            log_slope = SoftClamp::log_scale(V(p(1)), o);
            slope = exp(log_slope);
            V next_left = left, next_low = low, last = slope;
            for (int k = 1; k < o.bins; ++k) {
                next_left += width;
                next_low += last * width;
                const V log_next = SoftClamp::log_scale(V(p(1 + k)), o);
                last = exp(log_next);
                const auto beyond = value > (built ? next_low : next_left);
                index = select(beyond, splat<V>(k), index);
                left = select(beyond, next_left, left);
                low = select(beyond, next_low, low);
                log_slope = select(beyond, log_next, log_slope);
                slope = select(beyond, last, slope);
            }
        }
    };
    template <class V>
    struct ReadyPiece {
        V left, low, slope;

        HR_FN ReadyPiece(V value, const Scalar<V>* ends, const Scalar<V>* ready, int bins)
            : left(splat<V>(ready[0])), low(splat<V>(ready[bins])), slope(splat<V>(ready[2 * bins])) {
            for (int k = 1; k < bins; ++k) {
                const auto beyond = value > ends[k];
                left = select(beyond, splat<V>(ready[k]), left);
                low = select(beyond, splat<V>(ready[bins + k]), low);
                slope = select(beyond, splat<V>(ready[2 * bins + k]), slope);
            }
        }
    };

    // The backward pass of the forward direction at z.
    template <class V, class P, class G>
    HR_FN static void backward(const Piece<V>& piece, V z, const P& p, const MapOptions<Scalar<V>>& o, V grad_x,
                               V grad_log_det, const G& grad) {
        const V zero = splat<V>(0), width = splat<V>(2.0 * double(o.bound) / o.bins);
        for (int k = 0; k < o.bins; ++k) {
            const V raw = p(1 + k), left = grad_x * exp(SoftClamp::log_scale(raw, o)) * width;
            const V here = grad_x * piece.slope * (z - piece.left) + grad_log_det;
            const V by_log_slope =
                select(piece.index > Scalar<V>(k), left, select(piece.index == Scalar<V>(k), here, zero));
            grad(1 + k, by_log_slope * SoftClamp::log_slope(raw, o));
        }
        grad(0, grad_x);
    }
};

#define HR_COUNT(i, type, name, scale) +1
constexpr int n_own_maps = HR_OWN_MAPS(HR_COUNT);
#undef HR_COUNT

}  // namespace
}  // namespace headrace

// The line that this file adds to the list of maps, behind the library's maps.
#define HR_MORE_MAPS(X) X(n_own_maps, Polyline, "polyline", "")
