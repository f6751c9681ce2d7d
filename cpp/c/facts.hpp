// Properties of a file that a caller may query before any call.
#pragma once

#include <cstdint>

namespace headrace {

struct Facts {
    int features = 0, context = 0;
    bool has_density = false, is_ensemble = false;
    bool is_sequence = false;     // whether the file has a flow of sequences, with streams
    int covariates = 0, hop = 0;  // of sequences: numbers of columns of covariates, and of steps of a frame
    int64_t field = 0;            // of sequences: the number of earlier steps on which the density of a step depends
};

}  // namespace headrace
