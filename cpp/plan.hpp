// A plan: the order in which a masked network's blocks are computed, for each direction.
#pragma once

#include <vector>

#include "masks.hpp"
#include "views.hpp"

namespace headrace {

struct PlanStorage {
    std::vector<Op> ops;
    std::vector<Phase> phases;
    Plan view() const { return {ops.data(), phases.data(), int(phases.size())}; }
};

// Everything is known that the network reads: layer by layer, then all coordinates.
PlanStorage parallel_plan(const MaskedTransform& t);

// What the network reads is being built: level by level, each unit once, as soon as it can be. `panel` levels at a
// time, what they see from before the panel comes first, in full blocks, and the small triangle inside follows level by
// level.
PlanStorage sequential_plan(const MaskedTransform& t, int panel);

// The panel that fills the register blocks of the product kernel.
int choose_panel(const MaskedTransform& t);

}  // namespace headrace
