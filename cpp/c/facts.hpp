// Properties of a file that a caller may query before any call.
#pragma once

#include <cstdint>

namespace headrace {

struct Facts {
    int features = 0, context = 0;
    bool has_density = false, is_ensemble = false;
    bool is_sequence = false;     // a flow of sequences, with streams
    int covariates = 0, hop = 0;  // of sequences: known columns over time, and the steps of a frame of them
    int64_t field = 0;            // of sequences: the number of steps before a step on which its density depends
};

}  // namespace headrace
