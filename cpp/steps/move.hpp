// A step that moves coordinates to the slots of the next network, where the step before could not write them there.
#pragma once

#include "../math/lane.hpp"

namespace headrace {

template <class T>
struct MoveStep {
    static constexpr bool in_place = false;

    const int *given, *built;
};

namespace {

template <class T, class F>
HR_FN void for_arrays(MoveStep<T>& s, int features, const F& f) {
    f(s.given, features);
    f(s.built, features);
}

}  // namespace
}  // namespace headrace
