// Plans: the order in which a masked network's blocks are computed, for each direction.
#pragma once

#include <vector>

#include "../views.hpp"
#include "masked.hpp"

namespace headrace {

// Memory for Plan and BackPlan (steps/conditioners/masked.hpp).
struct PlanStorage {
    std::vector<Op> ops;
    std::vector<int> first;
};

struct BackPlanStorage {
    std::vector<BackOp> ops;
    std::vector<int> done;
};

// The positions of a masked network are its levels; a network without active coordinates has one position.
int n_positions(const MaskedConditioner& t);

// The plan where all inputs of the network are known: layer by layer, then all coordinates. Ops have at most `block`
// units.
PlanStorage parallel_plan(const MaskedConditioner& t, int block = row_block);

// The plan where inputs of the network are being computed: level by level, each unit once, as soon as its inputs are
// computed. Levels form panels of `panel` levels: inputs from before a panel are added first, in full blocks, then
// inputs from inside the panel, a small triangle, level by level. Where sums add `step` inputs at once, panels end with
// a step of the layer with the most weights.
PlanStorage sequential_plan(const MaskedConditioner& t, int panel, int step = 1, int block = row_block);

// The plan for small batches in bf16, in which all computed inputs are added to the sums of all units at once
// (bf16.hpp): one op is a layer, or the contribution of a level to a layer, and k0 is the number of inputs that earlier
// ops of the layer added.
// Ops of the plan add whole quads of inputs. The inputs of a position are added only to the current panel of
// panel_blocks blocks. Each later panel adds all inputs before its first unit by a separate op, which does not finish
// units, and reads the weights of each block in one stretch: a few words of every block at each position would not be
// prefetched where weights do not fit in L2.
PlanStorage small_batch_plan(const MaskedConditioner& t, bool sequential, int quad);

// Ops whose inputs end inside a step leave unfinished sums to the op that resumes the step. Assigns lines for
// unfinished sums to both ops, two for each unit, and returns the number of lines.
int plan_waiting(PlanStorage& plan, const MaskedConditioner& t);

// Sets for each bf16 op the inputs of the network that are to be rounded before the op.
void plan_rounding(PlanStorage& plan, const MaskedConditioner& t);

// The backward pass of the parallel direction: all coordinates, then layer by layer. Ops have at most `block` inputs.
BackPlanStorage parallel_back_plan(const MaskedConditioner& t, int block = row_block);

// The backward pass of the sequential direction. The gradient of a coordinate is complete only after the gradients of
// all coordinates of higher levels, which may read the coordinate, went through the network. Levels are visited in
// reverse, and each weight is read once.
BackPlanStorage sequential_back_plan(const MaskedConditioner& t);

// Sets for each bf16 op the gradients of units that are to be rounded before the op.
void plan_rounding(BackPlanStorage& plan, const MaskedConditioner& t);

// The number of levels of a panel that fills the register blocks of the product kernel.
int choose_panel(const MaskedConditioner& t);

}  // namespace headrace
