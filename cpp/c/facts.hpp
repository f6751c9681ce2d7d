// What a caller may know of a file before any call.
#pragma once

#include <cstdint>

namespace headrace {

struct Facts {
    int features = 0, context = 0;
    bool has_density = false, is_ensemble = false;
    bool is_sequence = false;     // its steps come one after another, in streams
    int covariates = 0, hop = 0;  // of sequences: columns known of time, and the steps of a frame of them
    int64_t field = 0;            // of sequences: steps before a step on which its density depends
};

}  // namespace headrace
