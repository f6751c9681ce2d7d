// Causal networks over time (cpp/steps/causal.hpp has their equations) and linear prediction on a device.
//
// From the side that a network reads, all positions of all rows take part: a launch for each layer, whose blocks are
// tiles of positions. To that side, a block takes a panel of streams step after step through all layers, in one launch
// for many steps. Both add the terms of every sum in the order of the CPU's kernels, each by a multiply-add, so that
// they have the same outputs, bit for bit. All is queued on the stream.
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
    int stride, units, taps, inputs;  // stride: of an input's weights
    const T* start;                   // null: zero
    SequenceView x;
    int values;            // columns of x: those of inputs from `values` on are these again, companded
    bool relu_of_x, relu;  // of what is read, of the result
    int64_t first;         // positions of x before 0 are zero
    int64_t rows, n;       // of the result
    T* to;
    int64_t to_row, to_step;
};

// One layer of all positions. Values of layers are [row][position][units], zero before the first position.
template <class T>
struct CausalLayerCall {
    CausalNetwork network;
    CausalLayer layer;
    const T* weights;
    bool is_first;  // whose skip outputs begin the sums
    int64_t rows, n;
    const T* bias;  // of gates [row][gate_units], with the context's part
    int64_t bias_row;
    // Covariates: products [row][frame][gate_units] of frames from first_frame on; last_frame is held. Null: none.
    const T* frames;
    int64_t frames_row, first_frame, last_frame;
    int64_t position;  // of the first one in its sequence
    const T* values;
    T *next, *skip;
    T* room;  // causal_layer_room values for each of causal_layer_blocks; null: in shared memory
};

// The map of the values of a step, as step_map.hpp of cpp/core/sequences has it.
template <class T>
struct CausalMap {
    int index, n_params;
    bool inverse, to_data, has_level;
    MapOptions<T> options;
};

// n positions of each row: given (rows, n, values), raw [row][n][outputs].
template <class T>
struct CausalMapCall {
    CausalMap<T> map;
    int values;
    int64_t rows, n;
    SequenceView given;
    const T* raw;
    int64_t raw_row;
    T *value, *log_det;  // rows of `steps` steps; null: not wanted
    int64_t steps;
};

// Steps [begin, end) of all rows, in the order of time. Arrays of the call have `steps` steps.
template <class T>
struct CausalStepsCall {
    CausalNetwork network;  // with layers on the device
    const T* weights;
    CausalMap<T> map;
    int64_t rows, steps, begin, end;
    SequenceView given;
    T *value, *log_det, *raw;  // null: not wanted
    // Biases [row][layer][gate_units] with the context's part; null: those of the weights.
    const T* bias;
    int64_t bias_row;
    // Products [row][frame][layer][gate_units] of frames from first_frame on; null: there are no covariates.
    const T* frames;
    int64_t frames_row, first_frame, last_frame;
    T* state;  // [panel][network.state][lane]
    T* room;   // causal_steps_room values for each of causal_steps_blocks; null: in shared memory
};

// Each column by itself, as cpp/core/sequences/prediction.hpp has it, with gains: to_signal, x from its residuals z /
// g.
template <class T>
struct PredictionCallOnDevice {
    const T* theta;        // (columns, order): reflection coefficients are tanh(theta)
    double* coefficients;  // (columns, order), of the step before first
    double* log_gain;      // (columns,)
    int64_t rows, steps, columns, order;
    const T* given;  // contiguous (rows, steps, columns)
    T* result;
    bool to_signal;
};

bool is_map_of_steps(int map);  // whether the kernels have it

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

// totals[row] = the sum of scores [row][steps], in float64 and in an order that depends on the steps alone.
template <class T>
void sum_steps(const T* scores, int64_t rows, int64_t steps, T* totals, cudaStream_t stream);

}  // namespace headrace
