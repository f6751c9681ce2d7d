// The order in which a block of threads computes a masked network: stages, whose units do not depend on each other.
//
// The parameters of the map are used as soon as they are computed: the last layer's units come in windows of whole
// coordinates, so that a tile never holds more of them than one window.
#pragma once

#include <cstdint>
#include <vector>

#include "../../cpp/core/masks.hpp"

namespace headrace {

// Units [begin, end) of a layer. All their inputs are there once the stages before are done.
struct UnitRange {
    int layer, begin, end;
};

// The same on the device, with what of its layer is read before the first weight. A level of a sequential network has
// few units, and would otherwise wait for one pointer after the other.
struct alignas(16) Stage {
    const uint32_t* row;  // as in Layer
    const int* visible;
    int begin, end;
    int terms;  // inputs that the last unit sees, which are the most
    int input;  // line of the first of them among the units; -1: what the network reads
    int value;  // line of the layer's first unit
    uint32_t bias;
    uint16_t layer;
    uint8_t activation;
    bool is_hidden, is_joined, keeps_sum;  // is_joined: something is added to products or multiplies them
};
static_assert(sizeof(Stage) == 48);

// Stages, then the coordinates (a range of the transform's active ones) that they settle. `window`: the first unit of
// the last layer among them.
struct StagePhase {
    int stage_begin, stage_end, coordinate_begin, coordinate_end, window;
};

struct StagePlan {
    const Stage* stages;
    const StagePhase* phases;
    int n_phases;
};

struct StagePlanStorage {
    std::vector<UnitRange> stages;
    std::vector<StagePhase> phases;
    int most_window = 0;  // units of the largest window
};

// What the network reads is known: layer by layer.
StagePlanStorage parallel_stages(const MaskedTransform& t);

// What the network reads is being built: level by level, each unit as soon as it can be.
StagePlanStorage sequential_stages(const MaskedTransform& t);

}  // namespace headrace
