// The order in which a block of threads computes a masked network: in stages, in each of which no unit depends on
// another.
//
// The parameters of the map are used as soon as they are computed: the last layer's units are computed in windows of
// coordinates, so that a tile holds the parameters of one window at a time.
//
// Levels of a sequential network are computed in panels of several levels, because one level has little work for a team
// of warps. Inputs from before a panel are complete, so that all warps begin the sums of the panel's units. One warp
// continues the sums level by level, a row for each lane, without waiting, because each lane reads only values that it
// has written, and weights are kept in shared memory.
#pragma once

#include <cstdint>
#include <vector>

#include "../../cpp/core/conditioners/masked.hpp"
#include "../../cpp/steps/conditioners/masked.hpp"
#include "device_part.hpp"

namespace headrace {

// The part of a stage's work on its units: the whole; or, in a panel, the beginning of sums, over inputs from before
// the panel, or the continuation of sums, over the remaining inputs.
enum class StagePart : uint8_t { whole, begun, continued };

// Units [begin, end) of a layer. All inputs of the units are complete after the preceding stages.
struct UnitRange {
    int layer, begin, end;
    StagePart part = StagePart::whole;
    int from = 0;   // for continued sums, the first missing term; for begun sums, the end of the terms
    int kept = 0;   // start of the units' weights and biases among those that a panel keeps
    int taken = 0;  // for begun sums: number of the first warps that may still compute earlier stages
};

// A stage on the device, with the data of its layer that are read before the first weight: in a sequential network,
// whose levels have few units, it would take long to follow one pointer after another to these data.
struct alignas(16) Stage {
    const uint32_t* row;  // Layer describes `row` and `visible`
    const int* visible;
    int begin, end;
    int from, terms;  // `terms`: number of inputs of the last unit, which has most; in a panel, of the stage's part
    int input;        // line of the layer's first input among the units; -1: the network's inputs
    int value;        // line of the layer's first unit on a tape
    int output;       // line of the layer's first unit, if all outputs are in one window
    uint32_t bias;
    uint16_t layer, kept, taken;  // UnitRange describes `kept` and `taken`
    uint8_t activation;
    StagePart part;
    bool is_hidden, is_joined, keeps_sum;  // is_joined: a term is added to products, or multiplies them
};
static_assert(sizeof(Stage) == 64);

// Stages, and the coordinates (a range of the active ones) that these stages determine. `window` is the first unit of
// the last layer in these stages, or in the panel.
struct StagePhase {
    int stage_begin, stage_end, coordinate_begin, coordinate_end, window;
    int panel_end = 0, levels = 0;  // in the first phase of a panel: end of the panel's stages, and number of its
                                    // further levels
    bool is_level = false;          // whether the phase is a level of a panel; such a phase begins where the previous
                                    // phase ends
};

// The number of values that a stage of a panel keeps: the biases of its units, and their weights from the first missing
// term on.
HR_FN int fours_of(int n) {
    return (n + 3) / 4;
}
inline int kept_numbers(int units, int from, int terms) {
    return 4 * (units * fours_of(terms - from) + fours_of(units));
}

// The stages and the phases of a network. Stages and phases end with an additional element, which is read ahead and
// never used.
struct StagePlan {
    const Stage* stages;
    const StagePhase* phases;
    int n_phases;
};

// The backward pass of a layer: operations [op_begin, op_end) of the plan compute the gradients by its inputs, whose
// number is `inputs`.
struct BackLayer {
    int layer, op_begin, op_end, inputs;
};

// The plan of a backward pass by layers: elements [done[to], done[from]) of `layers` are for positions [from, to).
struct BackLayerPlan {
    const BackLayer* layers;
    const int* done;
};

template <class T>
struct DevicePart<MaskedNetwork<T>> {
    StagePlan plan;
    BackLayerPlan back;
    bool has_levels;  // whether one direction of the network is sequential
};

struct StagePlanStorage {
    std::vector<UnitRange> stages;
    std::vector<StagePhase> phases;
    int most_window = 0;  // number of units of the largest window
};

// Stages for a direction in which all inputs of the network are given: layer by layer.
StagePlanStorage parallel_stages(const MaskedConditioner& t);

// Stages for a direction in which inputs of the network are being computed: level by level, each unit as soon as its
// inputs are computed.
StagePlanStorage sequential_stages(const MaskedConditioner& t);

struct BackLayerStorage {
    std::vector<BackLayer> layers;
    std::vector<int> done;
};

// The operations of a plan for the given number of positions, layer by layer.
BackLayerStorage back_layers(const BackPlan& plan, int positions, const std::vector<MaskedConditioner::LayerShape>& of);

}  // namespace headrace
