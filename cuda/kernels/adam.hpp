// A step of Adam on the device: the counterpart of cpp/kernels/adam-inl.hpp. The device decides from the gradient's
// norm whether to take it, and with which factors.
#pragma once

#include "../../cpp/math/adam.hpp"
#include "../include/memory.cuh"

namespace headrace {

// State that the device keeps from step to step.
template <class T>
struct AdamState {
    AdamClock clock;
    AdamStep<T> step;  // of the current step
    bool is_finite;    // whether the gradient's norm is finite; if not, nothing changes
};

// The update of each element of the weight vector.
enum AdamKind : uint8_t { adam_no_weight, adam_bias, adam_decays };

// Number of partial sums for the norm of this many elements.
int64_t adam_parts(int64_t n);

template <class T>
void adam_start(AdamState<T>* state, cudaStream_t stream);

// average and norm may be null; norm receives the gradient's norm before clipping.
template <class T>
void adam_step(const AdamOptions& options, double learning_rate, const T* gradient, const AdamKind* kind, T* weights,
               T* mean, T* square, T* average, int64_t n, double* parts, AdamState<T>* state, double* norm,
               cudaStream_t stream);

}  // namespace headrace
