// A step of Adam on the device: the counterpart of cpp/kernels/adam-inl.hpp. From the norm of the gradient, the device
// decides whether to take the step, and computes the step's factors.
#pragma once

#include "../../cpp/math/adam.hpp"
#include "../include/memory.cuh"

namespace headrace {

// State of Adam that the device keeps from step to step.
template <class T>
struct AdamState {
    AdamClock clock;
    AdamStep<T> step;  // factors of the current step
    bool is_finite;    // whether the gradient's norm is finite; if not, the weights stay unchanged
};

// The kind of update of an element of the weight vector.
enum AdamKind : uint8_t { adam_no_weight, adam_bias, adam_decays };

// The number of partial sums for the norm of a gradient with n elements.
int64_t adam_parts(int64_t n);

template <class T>
void adam_start(AdamState<T>* state, cudaStream_t stream);

// Queues a step of Adam. average and norm may be null; norm receives the gradient's norm before clipping.
template <class T>
void adam_step(const AdamOptions& options, double learning_rate, const T* gradient, const AdamKind* kind, T* weights,
               T* mean, T* square, T* average, int64_t n, double* parts, AdamState<T>* state, double* norm,
               cudaStream_t stream);

}  // namespace headrace
