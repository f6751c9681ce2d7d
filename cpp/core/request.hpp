// What is asked of a program, on any device.
#pragma once

#include "views.hpp"

namespace headrace {

// What one call asks for; see Call for the meaning of the pointers.
template <class T>
struct Request {
    bool inverse = false;
    bool with_base = true;  // whether the latent side is that of the standard density, or of the base
    int64_t rows = 0;
    const ArrayView* input = nullptr;  // null: draw a sample from the base with `seed`
    const ArrayView* context = nullptr;
    bool one_context_row = false;  // the same for all rows (its row stride is then 0)
    uint64_t seed = 0;
    T *value = nullptr, *log_det = nullptr, *log_prob = nullptr;
    double* wide_value = nullptr;
};

// The gradient of some number that depends on the results of a run: `from` holds that with respect to the results, the
// pointers receive (or are null) those with respect to inputs and context, row by row, and to the weights.
template <class T>
struct GradientRequest {
    Cotangent from{};
    T *input = nullptr, *context = nullptr, *weights = nullptr;
};

}  // namespace headrace
