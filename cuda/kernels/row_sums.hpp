// Sums over rows, which are the gradient of the weights: products of two lines of the tapes of the backward pass.
#pragma once

#include "../host/device_chain.hpp"
#include "../include/memory.cuh"

namespace headrace {

// A task: gradients by the weights of units [unit, unit + units) of a layer for inputs [input, input + inputs), which
// are sums over rows of products of two lines of the tape. Biases belong to the task with input 0.
struct SumTask {
    int64_t grads, inputs_line;  // first lines of the tape with gradients by units and with inputs
    int64_t weights, bias;       // index of the first unit's elements in the vector of sums
    const uint32_t* row;         // offsets of the weights of units; null: there are only biases
    const int* visible;
    int unit, units, input, inputs;
};

template <class T>
struct SumTasks {
    const SumTask* tasks;
    int count;
    int64_t n_sums;            // number of sums: weights, then the ready parameters of vector steps
    const uint8_t* is_summed;  // 1 where a task computes the sum
};

// The tapes of a group of tiles, and the number of rows from the group's first row to the end of the call.
template <class T>
struct Tapes {
    const T* numbers;
    int64_t lines, tiles, rows;
};

// The array for a call's gradient by weights, and the data that its sums need. *bad is 1 if a row is not finite.
template <class T>
struct WeightGradient {
    T* gradient;
    const uint8_t* is_weight;
    int64_t n_weights;
    const int* bad;
};

// The sums of a call, group after group. The partition of rows into shares depends only on sizes.
template <class T>
class RowSums {
  public:
    // Sums whose largest group has `group` tiles.
    RowSums(const SumTasks<T>& tasks, Products products, int64_t group, cudaStream_t stream);

    void add(const Tapes<T>& tapes, const WeightGradient<T>& out);
    // Computes gradients by raw parameters from gradients by ready parameters; called after all groups.
    void finish(const DeviceChain<T>& d, const T* weights, const WeightGradient<T>& out);

  private:
    SumTasks<T> tasks_;
    Products products_;
    int64_t tiles_of_share_;
    cudaStream_t stream_;
    DeviceBuffer<double> shares_, totals_;
    bool is_first_ = true;
};

extern template class RowSums<float>;
extern template class RowSums<double>;

}  // namespace headrace
