// The order in which a block of threads computes a masked network: stages, whose units do not depend on each other.
//
// The parameters of the map are used as soon as they are computed: the last layer's units come in windows of whole
// coordinates, so that a tile never holds more of them than one window.
#pragma once

#include <vector>

#include "../../cpp/core/masks.hpp"

namespace headrace {

// Units [begin, end) of a layer. All their inputs are there once the stages before are done.
struct Stage {
    int layer, begin, end;
};

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
    std::vector<Stage> stages;
    std::vector<StagePhase> phases;
    int most_window = 0;  // units of the largest window
};

// What the network reads is known: layer by layer.
StagePlanStorage parallel_stages(const MaskedTransform& t);

// What the network reads is being built: level by level, each unit as soon as it can be.
StagePlanStorage sequential_stages(const MaskedTransform& t);

}  // namespace headrace
