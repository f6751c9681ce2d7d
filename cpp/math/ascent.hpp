// One step of dual ascent on one value, over lanes.
//
// The map of a coordinate is z + g sqrt(e² + (z - center)²); the straight line of eq. 25 (maps/dual_ascent.hpp) is part
// of the affine map that follows. The log-likelihood of the map a z + b + c sqrt(...), a concave function of (a, b, c)
// (kink.hpp), needs six sums for each coordinate.
#pragma once

#include "lane.hpp"

namespace headrace {

constexpr int ascent_sum_count = 6;  // number of sums: of z, z², r, z r, q = (z - center) / r, and 1 / r²
// The number of sums of all coordinates, including the sum of log-derivatives of each coordinate's map.
constexpr int ascent_sums_of(int features) {
    return features * (ascent_sum_count + 1);
}

namespace {

// The number of derivatives that are multiplied before their product is rescaled; derivatives are between 1e-3 and 2.
constexpr int factors_at_once = 12;

// The value of the map at x, and its derivative.
template <class V>
HR_FN V ascent_moved(V x, Scalar<V> bend, Scalar<V> center, Scalar<V> square, V& derivative) {
    const V w = x - center, t = fma(w, w, square), bent = rsqrt(t) * bend;
    derivative = fma(w, bent, Scalar<V>(1));
    return fma(t, bent, x);
}

// Adds x, x², r, x r, q = (x - center) / r and 1 / r², each times the weight `one`, to the sums. A finite x of weight
// zero changes no sum.
template <class V>
HR_FN void ascent_add(V x, V one, Scalar<V> center, Scalar<V> square, V (&sum)[ascent_sum_count]) {
    const V w = x - center, t = fma(w, w, square), inverse = rsqrt(t), r = t * inverse;
    const V weighed = product(one, x), by_r = product(one, r);
    sum[0] += weighed;
    sum[1] = fma(weighed, x, sum[1]);
    sum[2] += by_r;
    sum[3] = fma(by_r, x, sum[3]);
    sum[4] = fma(one * inverse, w, sum[4]);
    sum[5] = fma(one * inverse, inverse, sum[5]);
}

}  // namespace
}  // namespace headrace
