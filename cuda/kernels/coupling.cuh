// Maps without a program, on row-major elements with parameters from any network, for hr.ops.coupling_forward and
// hr.ops.coupling_inverse on the device. Shapes are (rows, active) for values and their gradients, (rows, active,
// n_params) for params and (rows,) for log_det. All work is queued on the stream; `value` may be `in`.
#pragma once

#include <cstdint>

#include "../../cpp/math/maps/options.hpp"
#include "../include/device.cuh"

namespace headrace {

template <class T>
void coupling(int map, bool inverse, const MapOptions<T>& options, const T* in, const T* params, T* value, T* log_det,
              int64_t rows, int64_t active, cudaStream_t stream);

// Computes gradients of the called direction; grad_value is the gradient by the map's output, grad_log_det that by the
// row's log-determinant.
template <class T>
void coupling_backward(int map, bool inverse, const MapOptions<T>& options, const T* in, const T* params,
                       const T* grad_value, const T* grad_log_det, T* grad_in, T* grad_params, int64_t rows,
                       int64_t active, cudaStream_t stream);

}  // namespace headrace
