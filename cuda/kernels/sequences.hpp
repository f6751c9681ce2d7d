// Causal networks over time (cpp/steps/causal.hpp has the equations) and linear prediction on a device.
//
// From the side that a network reads, all positions of all rows are computed by a launch for each layer, whose blocks
// are tiles of positions. Toward the side that the network reads, a block computes a panel of streams step after step
// through all layers, in one launch for many steps. Kernels of both directions add the terms of every sum in the order
// of the CPU's kernels, each by a multiply-add, so that outputs have the same bits. All work is queued on the stream.
#pragma once

#include <cstdint>

#include "../../cpp/core/sequences/view.hpp"
#include "../../cpp/math/maps/options.hpp"
#include "../../cpp/steps/causal.hpp"
#include "../include/device.cuh"
#include "../include/launch.cuh"

namespace headrace {

// to[row][t][unit] = start[unit] + sum over taps and inputs of weights[tap][input][unit] x[row][t + first + tap][input]
template <class T>
struct CausalProducts {
    const T* weights;
    int stride, units, taps, inputs;  // `stride` is the distance between weights of adjacent inputs
    const T* start;                   // starts of sums; null: zeros
    SequenceView x;
    int values;            // number of columns of x; inputs from this index on are companded columns
    bool relu_of_x, relu;  // whether a ReLU is applied to x, and to the result
    int64_t first;         // index of the first position; x is zero at positions before 0
    int64_t rows, n;       // rows and positions of the result
    T* to;
    int64_t to_row, to_step;
};

// The arguments of one layer for all positions. Values of layers are [row][position][units], and zero before the first
// position.
template <class T>
struct CausalLayerCall {
    CausalNetwork network;
    CausalLayer layer;
    const T* weights;
    bool is_first;  // whether the layer's skip outputs begin the sums
    int64_t rows, n;
    const T* bias;  // biases of gates [row][gate_units], plus the contribution of the context
    int64_t bias_row;
    // Products of covariates [row][frame][gate_units], of frames from first_frame on; last_frame is repeated. Null: no
    // covariates.
    const T* frames;
    int64_t frames_row, first_frame, last_frame;
    int64_t position;  // index in the sequence of the first position
    const T* values;
    T *next, *skip;
    T* room;  // memory of causal_layer_room values for each of causal_layer_blocks; null: shared memory is used
};

// The map of the values of a step, which cpp/core/sequences/step_map.hpp describes.
template <class T>
struct CausalMap {
    int index, n_params;
    bool inverse, to_data, has_level;
    MapOptions<T> options;
};

// A map of n positions of each row, with given (rows, n, values) and raw [row][n][outputs].
template <class T>
struct CausalMapCall {
    CausalMap<T> map;
    int values;
    int64_t rows, n;
    SequenceView given;
    const T* raw;
    int64_t raw_row;
    T *value, *log_det;  // rows of `steps` steps, or null
    int64_t steps;
};

// Arguments for steps [begin, end) of all rows, in the order of time. Arrays of the call have `steps` steps.
template <class T>
struct CausalStepsCall {
    CausalNetwork network;  // network whose layers are on the device
    const T* weights;
    CausalMap<T> map;
    int64_t rows, steps, begin, end;
    SequenceView given;
    T *value, *log_det, *raw;  // results, or null
    // Biases [row][layer][gate_units] plus the contribution of the context; null: the biases among the weights.
    const T* bias;
    int64_t bias_row;
    // Products of covariates [row][frame][layer][gate_units], of frames from first_frame on; null: no covariates.
    const T* frames;
    int64_t frames_row, first_frame, last_frame;
    T* state;  // states [panel][network.state][lane]
    T* room;   // memory of causal_steps_room values for each of causal_steps_blocks; null: shared memory is used
};

// Linear prediction with gains, independently for each column (cpp/core/sequences/prediction.hpp). With to_signal, x
// is computed from the residuals z / g.
template <class T>
struct PredictionCallOnDevice {
    const T* theta;        // theta (columns, order); tanh(theta) are the reflection coefficients
    double* coefficients;  // filter coefficients (columns, order), with the newest step first
    double* log_gain;      // logarithms of gains (columns,)
    int64_t rows, steps, columns, order;
    const T* given;  // contiguous array (rows, steps, columns)
    T* result;
    bool to_signal;
};

bool is_map_of_steps(int map);  // whether the kernels have the map

int64_t causal_layer_room(const CausalNetwork& network);
int64_t causal_layer_blocks(int64_t rows, int64_t n);
int64_t causal_steps_room(const CausalNetwork& network);
int64_t causal_steps_blocks(int64_t rows);

template <class T>
void causal_products(const CausalProducts<T>& call, cudaStream_t stream);
template <class T>
void causal_layer(const CausalLayerCall<T>& call, cudaStream_t stream);
template <class T>
void causal_map(const CausalMapCall<T>& call, cudaStream_t stream);
template <class T>
void causal_steps(const CausalStepsCall<T>& call, cudaStream_t stream);
template <class T>
void predict(const PredictionCallOnDevice<T>& call, cudaStream_t stream);

// Computes totals[row], the sum of scores [row][steps], in float64 and in an order that depends only on the number of
// steps.
template <class T>
void sum_steps(const T* scores, int64_t rows, int64_t steps, T* totals, cudaStream_t stream);

}  // namespace headrace
