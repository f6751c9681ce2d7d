// A step of Adam on the device: the counterpart of cpp/kernels/adam-inl.hpp. Whether it is taken, and with which
// factors, the device decides from the gradient's norm.
#pragma once

#include "../../cpp/core/views.hpp"
#include "../include/memory.cuh"

namespace headrace {

// What is the same in all steps.
template <class T>
struct AdamRule {
    double beta1, beta2, weight_decay;
    double clip, average;  // 0: none
    T epsilon;
};

// What the device keeps from step to step.
template <class T>
struct AdamState {
    double mean_power, square_power, steps;  // beta1^steps, beta2^steps
    AdamStep<T> step;                        // of the step under way, for what does not decay
    T shrink;                                // and of what does
    bool is_finite;                          // whether the gradient's norm is; if not, nothing changes
};

// What becomes of each number of the weight vector.
enum AdamKind : uint8_t { adam_no_weight, adam_bias, adam_decays };

// How many partial sums the norm of so many numbers needs.
int64_t adam_parts(int64_t n);

template <class T>
void adam_start(AdamState<T>* state, cudaStream_t stream);

// average and norm may be null; norm receives the gradient's norm before clipping.
template <class T>
void adam_step(const AdamRule<T>& rule, double learning_rate, const T* gradient, const AdamKind* kind, T* weights,
               T* mean, T* square, T* average, int64_t n, double* parts, AdamState<T>* state, double* norm,
               cudaStream_t stream);

}  // namespace headrace
