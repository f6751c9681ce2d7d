// A step that computes value * scale + shift for each coordinate, or (value - shift) * scale, in float64. At the data
// end of a chain the scaling is part of loading and storing.
#pragma once

#include "../math/lane.hpp"

namespace headrace {

template <class T>
struct ScaleStep {
    static constexpr bool in_place = true;

    const double *scale, *shift;  // scale and shift of each slot
    bool shift_first;
};

namespace {

// The scaled value, computed in float64, because float32 would lose digits where the mean is far larger than the scale.
template <class T>
HR_FN T scaled(const ScaleStep<T>& step, int slot, T value) {
    const double x = double(value), scale = step.scale[slot], shift = step.shift[slot];
    return T(step.shift_first ? (x - shift) * scale : x * scale + shift);
}

template <class T, class F>
HR_FN void for_arrays(ScaleStep<T>& s, int features, const F& f) {
    f(s.scale, features);
    f(s.shift, features);
}

}  // namespace
}  // namespace headrace
