// Moves coordinates to where the next network reads them, where the step before could not put them there.
#pragma once

namespace headrace {

template <class T>
struct MoveStep {
    static constexpr bool in_place = false;

    const int *given, *built;
};

}  // namespace headrace
