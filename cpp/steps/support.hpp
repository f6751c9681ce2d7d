// A step that maps coordinates to their support, or back, in float64. At the data end of a chain the map is part of
// loading and storing.
#pragma once

#include "../math/support.hpp"

namespace headrace {

template <class T>
struct SupportStep {
    static constexpr bool in_place = true;

    const SupportColumn* column;  // support of each slot
    bool to_data;
};

namespace {

template <class T>
HR_FN Supported supported(const SupportStep<T>& step, int slot, double value) {
    return step.to_data ? to_support(step.column[slot], value) : from_support(step.column[slot], value);
}

template <class T, class F>
HR_FN void for_arrays(SupportStep<T>& s, int features, const F& f) {
    f(s.column, features);
}

}  // namespace
}  // namespace headrace
