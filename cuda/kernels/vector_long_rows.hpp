// Parts of vector maps on rows that are not time-critical: rows that do not fit into shared memory, and one set of
// parameters that is made ready. All is queued on the stream.
#pragma once

#include <cstdint>

#include "../../cpp/core/views.hpp"
#include "../include/device.cuh"

namespace headrace {

// a.params to `ready`.
template <class T>
void launch_prepare_set(const VectorRows<T>& a, T* ready, cudaStream_t stream);

// The gradient by a.params from sums of that by the ready ones: `count` blocks of them, each of the first n_ready of
// `size` values. total: a buffer of n_ready.
template <class T>
void launch_prepare_set_vjp(const VectorRows<T>& a, const double* sums, int64_t size, int count, double* total,
                            T* grad_params, cudaStream_t stream);

// Each warp of the blocks has a buffer of n_ready values, if rows have parameters of their own or go back.
template <class T>
void launch_long_rows(const VectorRows<T>& a, int64_t rows, unsigned blocks, T* room, cudaStream_t stream);
template <class T>
void launch_long_rows_back(const VectorRows<T>& a, const VectorRowsBack<T>& back, int64_t rows, unsigned blocks,
                           T* room, double* sums, cudaStream_t stream);

}  // namespace headrace
