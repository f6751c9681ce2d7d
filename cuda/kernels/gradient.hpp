// The way back through a program on the device: launches, and what they are told.
#pragma once

#include "../../cpp/core/request.hpp"
#include "../host/device_chain.hpp"
#include "run.hpp"

namespace headrace {

// Gradients of units [unit, unit + units) of a layer by inputs [input, input + inputs): sums over rows of products of
// two lines of the tape. Biases belong to the task with input 0.
struct SumTask {
    int64_t grads, inputs_line;  // lines of the tape: gradient of the layer's first unit, the layer's first input
    int64_t weights, bias;       // where the first unit's numbers start in the vector of sums
    const uint32_t* row;         // offsets of the units' weights; null: there are only biases
    const int* visible;
    int unit, units, input, inputs;
};

template <class T>
struct SumTasks {
    const SumTask* tasks;
    int count;
    int64_t n_sums;            // weights, then the ready parameters of vector steps
    const uint8_t* is_summed;  // 1 where a task gives one of them
};

// Rows of a call there and back, a group at a time, and the sums over them. Of `back` the rows' height is not used.
template <class T>
void launch_gradient(const DeviceChain<T>& d, const SumTasks<T>& sums, const Call<T>& call, const Back<T>& back,
                     const uint8_t* is_weight, size_t n_weights, cudaStream_t stream);

}  // namespace headrace
