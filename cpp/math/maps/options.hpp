// What a map may be told beside its parameters; constants of a transform, in its dtype.
#pragma once

namespace headrace {

template <class T>
struct MapOptions {
    T slope;          // the smallest scale: of softplus and sigmoid additively, of soft_clamp multiplicatively
    T inverse_clamp;  // 1 / log(1 / slope)
    int bins;         // of a spline
    T bound;          // a spline's interval is [-bound, bound], or [low, bound]
    T low;
    T min_bin;  // the least share of a spline's interval that a bin takes, where it has one
};

}  // namespace headrace
