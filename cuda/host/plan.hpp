// The order in which a block of threads computes a masked network: stages, whose units do not depend on each other.
//
// The parameters of the map are used as soon as they are computed: the last layer's units are computed in windows of
// coordinates, so that a tile never holds more of them than one window.
//
// Levels of a sequential network are computed in panels of several, because each has little work for a team of warps.
// Inputs of a panel's units from before it are complete, so all warps begin their sums. One warp continues them level
// by level, a row for each lane, without waiting: each lane reads only values that it has written, and the weights are
// kept in shared memory.
#pragma once

#include <cstdint>
#include <vector>

#include "../../cpp/core/conditioners/masked.hpp"
#include "../../cpp/steps/conditioners/masked.hpp"
#include "device_part.hpp"

namespace headrace {

// The work of a stage on its units: all of it, or, in a panel, to begin sums over inputs from before it, or to continue
// these over the remaining inputs.
enum class StagePart : uint8_t { whole, begun, continued };

// Units [begin, end) of a layer. All their inputs are complete after the stages before.
struct UnitRange {
    int layer, begin, end;
    StagePart part = StagePart::whole;
    int from = 0;   // for a continued sum: the first missing term. For a sum that is begun: its end
    int kept = 0;   // and the start of its weights and biases among those that a panel keeps
    int taken = 0;  // for begun sums: the blocks of stages before it that other warps may take meanwhile
};

// A stage on the device, with the data of its layer that is read before the first weight. A level of a sequential
// network has few units, and would otherwise wait for one pointer after the other.
struct alignas(16) Stage {
    const uint32_t* row;  // as in Layer
    const int* visible;
    int begin, end;
    int from, terms;  // inputs that the last unit reads, which are the most; in a panel, those of this part
    int input;        // line of the first unit among the units; -1: the network's inputs
    int value;        // line of the layer's first unit on a tape
    int output;       // and where outputs have one window
    uint32_t bias;
    uint16_t layer, kept, taken;  // the last two as in UnitRange
    uint8_t activation;
    StagePart part;
    bool is_hidden, is_joined, keeps_sum;  // is_joined: a term is added to products or multiplies them
};
static_assert(sizeof(Stage) == 64);

// Stages, followed by the coordinates (a range of the transform's active ones) that they determine. `window`: the first
// unit of the last layer among them, or in the panel.
struct StagePhase {
    int stage_begin, stage_end, coordinate_begin, coordinate_end, window;
    int panel_end = 0, levels = 0;  // at the first phase of a panel: the end of its stages, and its further levels
    bool is_level = false;          // of a panel; it begins where the phase before it ends
};

// Values that a stage of a panel keeps: its units' weights, from the first term that a sum lacks on, and biases.
HR_FN int fours_of(int n) {
    return (n + 3) / 4;
}
inline int kept_numbers(int units, int from, int terms) {
    return 4 * (units * fours_of(terms - from) + fours_of(units));
}

// After the last stage and the last phase there is an additional one, which is read ahead and never used.
struct StagePlan {
    const Stage* stages;
    const StagePhase* phases;
    int n_phases;
};

// The backward pass of a layer: operations [op_begin, op_end) of the plan for the gradients by its inputs, and their
// number.
struct BackLayer {
    int layer, op_begin, op_end, inputs;
};

// Counterpart of BackPlan: the layers of positions [from, to) are [done[to], done[from]).
struct BackLayerPlan {
    const BackLayer* layers;
    const int* done;
};

template <class T>
struct DevicePart<MaskedNetwork<T>> {
    StagePlan plan;
    BackLayerPlan back;
    bool has_levels;  // one direction of the network is sequential
};

struct StagePlanStorage {
    std::vector<UnitRange> stages;
    std::vector<StagePhase> phases;
    int most_window = 0;  // units of the largest window
};

// All inputs of the network are given: layer by layer.
StagePlanStorage parallel_stages(const MaskedConditioner& t);

// Used while inputs of the network are being computed: level by level, each unit as soon as its inputs are known.
StagePlanStorage sequential_stages(const MaskedConditioner& t);

struct BackLayerStorage {
    std::vector<BackLayer> layers;
    std::vector<int> done;
};

// The operations of a plan for this number of positions, layer by layer.
BackLayerStorage back_layers(const BackPlan& plan, int positions, const std::vector<MaskedConditioner::LayerShape>& of);

}  // namespace headrace
