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

// Levels are the positions of a masked network; where no coordinate is active, there is one.
int n_positions(const MaskedConditioner& t);

// All inputs of the network are computed: layer by layer, then all coordinates. Ops have at most this many units.
PlanStorage parallel_plan(const MaskedConditioner& t, int block = row_block);

// Inputs of the network are being built: level by level, each unit once, as soon as it can be. `panel` levels at a
// time, inputs from before the panel come first, in full blocks, and the small triangle inside follows level by level.
// Where sums take `step` inputs at once, panels end with a step of the layer of most weights.
PlanStorage sequential_plan(const MaskedConditioner& t, int panel, int step = 1, int block = row_block);

// For small batches in bf16: sums take all computed inputs for all units at once (bf16.hpp): a layer, or a level's
// contribution to it, is one op, and k0 is the count of inputs that earlier ops of the layer added.
// Sums take whole quads. A position's inputs are added to the panel of panel_blocks current blocks alone:
// each later panel takes all inputs before its first unit by an op of its own, which does not finish, and reads each
// block's weights in one stretch. Where they lie beyond L2, these few words of every block would not be foreseen.
PlanStorage small_batch_plan(const MaskedConditioner& t, bool sequential, int quad);

// Sets for ops whose inputs end inside a step, and for those that go on from there, where sums wait: two lines a unit.
// Returns the number of lines.
int plan_waiting(PlanStorage& plan, const MaskedConditioner& t);

// Sets for each op in bf16 which of the network's inputs are to be rounded before it.
void plan_rounding(PlanStorage& plan, const MaskedConditioner& t);

// The backward pass of the parallel direction: all coordinates, then layer by layer. Ops have at most this many inputs.
BackPlanStorage parallel_back_plan(const MaskedConditioner& t, int block = row_block);

// The backward pass of the sequential direction: a coordinate that was built may be read by those of higher levels, so
// that its gradient is whole once theirs went through the network. Level by level in reverse, each weight once.
BackPlanStorage sequential_back_plan(const MaskedConditioner& t);

// Sets for each op in bf16 which gradients of units are to be rounded before it.
void plan_rounding(BackPlanStorage& plan, const MaskedConditioner& t);

// The panel that fills the register blocks of the product kernel.
int choose_panel(const MaskedConditioner& t);

}  // namespace headrace
