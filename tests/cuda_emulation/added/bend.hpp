// bend: a step that only tests have, and only in _emu. Each coordinate z becomes sinh(a z) / a, or the inverse, where a
// is a constant of the coordinate and no weight.
#pragma once

#include "../../../cpp/math/lane.hpp"

namespace headrace {

template <class T>
struct BendStep {
    static constexpr bool in_place = true;

    const T* strength;  // the constant a of each slot
    bool to_data;
};

namespace {

template <class T>
struct Bent {
    T value, slope, bend;  // mapped value, its derivative, and the derivative of that derivative's logarithm
};

template <class T>
HR_FN Bent<T> bent(const BendStep<T>& s, int slot, T x) {
    const T a = s.strength[slot];
    if (s.to_data) {
        const T up = exp(a * x), down = exp(-a * x), cosh = (up + down) / 2;
        return {(up - down) / (2 * a), cosh, (up - down) / (2 * cosh) * a};
    }
    const T y = a * x, root = sqrt(1 + y * y), size = y < 0 ? -y : y, log_of = log(size + root) / a;
    return {y < 0 ? -log_of : log_of, 1 / root, -a * y / (root * root)};
}

template <class T, class F>
HR_FN void for_arrays(BendStep<T>& s, int features, const F& f) {
    f(s.strength, features);
}

}  // namespace
}  // namespace headrace

#define HR_MORE_STEPS(X) X(bend, BendStep)
