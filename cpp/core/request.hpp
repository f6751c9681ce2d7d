// Requests to a program, on any device.
#pragma once

#include <vector>

#include "views.hpp"

namespace headrace {

// Arguments of one call; Call describes the pointers.
template <class T>
struct Request {
    bool inverse = false;
    bool with_base = true;  // whether the latent side has the standard density, or the density of the base
    int64_t rows = 0;
    const ArrayView* input = nullptr;  // null: draws a sample from the base with `seed`
    const ArrayView* context = nullptr;
    bool one_context_row = false;  // the context row is the same for all rows (its row stride is then 0)
    uint64_t seed = 0;
    int64_t first_row = 0;    // for sampling: the index of the first row in the endless sample of the seed
    bool tiles_only = false;  // whether few rows are computed as a tile, with the bits of large calls
    bool drops = false;       // whether dropout acts, with `seed`, in a run that records for a gradient
    T *value = nullptr, *log_det = nullptr, *log_prob = nullptr;
    double* wide_value = nullptr;
};

// The arguments of kernels for a request, without the weights.
template <class T>
Call<T> call_of(const Request<T>& request, Base base) {
    Call<T> call{};
    call.rows = request.rows;
    if (request.input) call.input = *request.input;
    if (request.context) call.context = *request.context;
    call.seed = request.seed;
    call.first_row = request.first_row;
    call.drops = request.drops;
    call.base = base;
    call.inverse = request.inverse;
    call.value = request.value;
    call.wide_value = request.wide_value;
    call.log_det = request.log_det;
    call.log_prob = request.log_prob;
    return call;
}

// The gradient of a scalar that depends on the results of a run: `from` is the gradient by the results, and the
// pointers, which may be null, receive the gradients by inputs and by context, row by row, and by the weights.
template <class T>
struct GradientRequest {
    Cotangent from{};
    T *input = nullptr, *context = nullptr, *weights = nullptr;

    // The arguments of kernels for a backward pass.
    Back<T> back() const { return {from, input, context, weights, nullptr, 0, nullptr}; }
};

// The state of Adam between steps, on the host. A fit that is given this state and the weights continues as if it had
// never stopped.
template <class T>
struct AdamMemory {
    std::vector<T> mean, square, average;  // average is empty without a running mean
    AdamClock clock;
};

// A step of dual ascent, which moves all points.
struct PointsStep {
    std::vector<double> bend, center, square;      // parameters of each coordinate's map z + bend sqrt(square + (z -
                                                   // center)²)
    double log_scale;                              // log-determinant of the affine map after the coordinates' maps
    std::vector<int> order;                        // line k of the affine map's input is coordinate order[k]
    std::vector<double> matrix, shift;             // z becomes matrix z + shift; only blocks of a matrix are stored
    std::vector<int> blocks;                       // block sizes; blocks are stored row by row, one after another
    std::vector<double> next_center, next_square;  // center and square of the next map; empty: none
};

}  // namespace headrace
