// A program's weight vector on the device.
#pragma once

#include "../host/device_chain.hpp"
#include "../include/memory.cuh"

namespace headrace {

// Computes the ready parameters of all steps from the weights.
template <class T>
void launch_prepare(const DeviceChain<T>& d, const T* weights, T* ready, cudaStream_t stream);

// Computes gradients by raw parameters from gradients by ready parameters; results are NaN where *bad is nonzero.
template <class T>
void launch_finish(const DeviceChain<T>& d, const T* weights, const double* by_ready, const int* bad, T* gradient,
                   cudaStream_t stream);

// Copies weights: out[i] = keep[i] ? in[i] : 0.
template <class T>
void launch_masked_copy(const T* in, const uint8_t* keep, T* out, int64_t n, cudaStream_t stream);

}  // namespace headrace
