// Gradients that a step leaves on the tape, a line each, and the destinations of their sums over the rows.
#pragma once

#include <cstdint>

#include "../math/lane.hpp"

namespace headrace {

// Gradients of the units of a layer, and of the weights of these units; or those of parameters without inputs.
struct Summed {
    int64_t line;         // line of the first gradient on the tape
    int units;            // the number of units
    int64_t bias;         // index of their sums in the flow's gradient
    int64_t weights;      // index of the first weight, from which `row` counts
    const uint32_t* row;  // offset of each unit's weights
    const int* visible;   // number of inputs that each unit reads; null: no unit reads any
    int panel;            // start of the transposed inputs among those of the step
    int grad_rows = -1;   // in bf16: start of the gradients (core/bf16.hpp); -1: the lines are summed
};

namespace {

// Inputs that units before `end` read: no unit reads less than those before it.
HR_FN int inputs_before(const Summed& s, int end) {
    return s.visible ? s.visible[end - 1] : 0;
}

}  // namespace
}  // namespace headrace
