// Settings of a map beside its parameters: constants of a transform, in its dtype.
#pragma once

#include <array>

#include "../lane.hpp"

namespace headrace {

// Derivatives at the ends of a spline's interval: `one`: 1; `free`: a raw parameter for each end; `shared`: one raw
// parameter for both ends, of a circle; `halved`: as `free`, and the least share of the first and the last bin is half
// the least share of other bins.
enum class Ends { one, free, shared, halved };
// The spline outside of its interval: the identity; a straight line with the derivative at the end; or the spline
// repeated, shifted by periods.
enum class Tails { identity, linear, periodic };

// The raw value a at which a map is the identity: 0, or the solution of softplus(a) + slope = 1, or of sigmoid(a + 2) +
// slope = 1.
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
    T slope;          // the least scale: softplus and sigmoid add it, soft_clamp limits scales by it
    T inverse_clamp;  // 1 / log(1 / slope)
    int bins;         // number of bins of a spline
    T bound;          // a spline's interval is [-bound, bound], or [low, bound]
    T low;
    T min_bin;  // the least share of a spline's interval that each bin has, for splines with such a limit
    Ends ends;  // ends and tails, which the spline's name determines
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
