// Settings of a map beside its parameters; constants of a transform, in its dtype.
#pragma once

#include <array>

#include "../lane.hpp"

namespace headrace {

// Derivatives at the ends of a spline's interval: 1; a raw parameter for each; one for both, for a circle; a raw
// parameter for each, where the first and the last bin have half the least share of the others.
enum class Ends { one, free, shared, halved };
// Outside of the interval: the identity; a straight line, with the derivative at the end; or the spline again, shifted
// by periods.
enum class Tails { identity, linear, periodic };

// A raw value at which a map is the identity: 0; the a at which softplus(a) + slope = 1; the a at which
// sigmoid(a + 2) + slope = 1.
enum class IdentityAt { zero, softplus, sigmoid };
// Raw parameters of a coordinate with one name: the number of values, and the value of each for which the map is the
// identity.
struct MapParameters {
    const char* name;
    int count;
    IdentityAt identity = IdentityAt::zero;
};

template <class T>
struct MapOptions {
    T slope;          // the smallest scale: of softplus and sigmoid additively, of soft_clamp multiplicatively
    T inverse_clamp;  // 1 / log(1 / slope)
    int bins;         // of a spline
    T bound;          // a spline's interval is [-bound, bound], or [low, bound]
    T low;
    T min_bin;  // the least share of a spline's interval that a bin takes, where it has one
    Ends ends;  // the spline's name determines these two
    Tails tails;
};

namespace {

template <class T>
HR_FN MapOptions<double> in_float64(const MapOptions<T>& o) {
    return {double(o.slope), double(o.inverse_clamp), o.bins, double(o.bound),
            double(o.low),   double(o.min_bin),       o.ends, o.tails};
}

}  // namespace
}  // namespace headrace
