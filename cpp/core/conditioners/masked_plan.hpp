// A plan: the order in which a masked network's blocks are computed, for each direction.
#pragma once

#include <vector>

#include "../views.hpp"
#include "masked.hpp"

namespace headrace {

// Counterpart of Plan and BackPlan (steps/conditioners/masked.hpp).
struct PlanStorage {
    std::vector<Op> ops;
    std::vector<int> first;
};

struct BackPlanStorage {
    std::vector<BackOp> ops;
    std::vector<int> done;
};

// The positions of a masked network are its levels; there is one position where no coordinate is active.
int n_positions(const MaskedConditioner& t);

// All inputs of the network are computed: layer by layer, then all coordinates. Ops have at most this many units.
PlanStorage parallel_plan(const MaskedConditioner& t, int block = row_block);

// Used while inputs of the network are being computed: level by level, each unit once, as soon as its inputs are known.
// In panels of `panel` levels: inputs from before the panel are added first, in full blocks, then the small triangle
// inside, level by level. Where sums take `step` inputs at once, panels end with a step of the layer with the most
// weights.
PlanStorage sequential_plan(const MaskedConditioner& t, int panel, int step = 1, int block = row_block);

// For small batches in bf16: sums take all computed inputs for all units at once (bf16.hpp): a layer, or a level's
// contribution to it, is one op, and k0 is the count of inputs that earlier ops of the layer added.
// Sums take quads. A position's inputs are added to the panel of panel_blocks current blocks alone: each later
// panel adds all inputs before its first unit by an op of its own, which does not finish, and reads each block's
// weights in one stretch. Where weights lie beyond L2, these few words of every block would not be prefetched.
PlanStorage small_batch_plan(const MaskedConditioner& t, bool sequential, int quad);

// Assigns lines to ops whose inputs end inside a step, and to ops that resume such a step, where sums wait: two lines a
// unit. Returns the number of lines.
int plan_waiting(PlanStorage& plan, const MaskedConditioner& t);

// Sets for each op in bf16 which of the network's inputs are to be rounded before it.
void plan_rounding(PlanStorage& plan, const MaskedConditioner& t);

// The backward pass of the parallel direction: all coordinates, then layer by layer. Ops have at most this many inputs.
BackPlanStorage parallel_back_plan(const MaskedConditioner& t, int block = row_block);

// The backward pass of the sequential direction: coordinates of higher levels may read a coordinate, so that its
// gradient is complete once theirs went through the network. Levels are visited in reverse, and each weight is read
// once.
BackPlanStorage sequential_back_plan(const MaskedConditioner& t);

// Sets for each op in bf16 which gradients of units are to be rounded before it.
void plan_rounding(BackPlanStorage& plan, const MaskedConditioner& t);

// The panel that fills the register blocks of the product kernel.
int choose_panel(const MaskedConditioner& t);

}  // namespace headrace
