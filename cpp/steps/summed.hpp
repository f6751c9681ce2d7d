// Gradients that a step leaves on the tape, one in each line, and the destinations of their sums over the rows.
#pragma once

#include <cstdint>

#include "../math/lane.hpp"

namespace headrace {

// Gradients of the units of a layer, and of the weights of these units; or gradients of parameters without inputs.
struct Summed {
    int64_t line;         // line of the first gradient on the tape
    int units;            // number of units
    int64_t bias;         // index of the sums of bias gradients in the flow's gradient
    int64_t weights;      // index of the first weight's gradient in the flow's gradient, to which `row` is added
    const uint32_t* row;  // offset of each unit's weights
    const int* visible;   // number of inputs that each unit reads; null: units have no inputs
    int panel;            // start of the transposed inputs among the panels of the step
    int grad_rows = -1;   // in bf16: start of the gradients among the panels (core/bf16.hpp); -1: lines of the tape are
                          // summed
};

namespace {

// The number of inputs that units before `end` read; no unit reads fewer inputs than the units before it.
HR_FN int inputs_before(const Summed& s, int end) {
    return s.visible ? s.visible[end - 1] : 0;
}

}  // namespace
}  // namespace headrace
