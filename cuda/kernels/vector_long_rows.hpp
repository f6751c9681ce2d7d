// Parts of vector maps on rows whose time does not matter: rows that do not fit in shared memory, and ready parameters
// of one set. All work is queued on the stream.
#pragma once

#include <cstdint>

#include "../../cpp/core/views.hpp"
#include "../include/device.cuh"

namespace headrace {

// Computes the ready parameters of a.params.
template <class T>
void launch_prepare_set(const VectorRows<T>& a, T* ready, cudaStream_t stream);

// Computes the gradient by a.params from sums of gradients by ready parameters, in `count` blocks of `size` values, of
// which the first n_ready are used. `total` is a buffer of n_ready values.
template <class T>
void launch_prepare_set_vjp(const VectorRows<T>& a, const double* sums, int64_t size, int count, double* total,
                            T* grad_params, cudaStream_t stream);

// Queues long rows. `room` has n_ready values for each warp of the blocks; a forward call with one set of parameters
// for all rows needs none.
template <class T>
void launch_long_rows(const VectorRows<T>& a, int64_t rows, unsigned blocks, T* room, cudaStream_t stream);
template <class T>
void launch_long_rows_back(const VectorRows<T>& a, const VectorRowsBack<T>& back, int64_t rows, unsigned blocks,
                           T* room, double* sums, cudaStream_t stream);

}  // namespace headrace
