// Vector maps without a program, on row-major arrays with parameters from any source, for hr.ops.planar_forward,
// hr.ops.radial_inverse and similar functions on the device. All work is queued on the stream; `result` may be `value`.
#pragma once

#include <cstdint>

#include "../../cpp/core/views.hpp"
#include "../include/device.cuh"

namespace headrace {

// Queues a vector map. With `shared`, a.params is one set for all rows; otherwise each row has a set. a.ready is not
// read.
template <class T>
void vector_map(const VectorRows<T>& a, bool shared, int64_t rows, cudaStream_t stream);

// Queues the backward pass, where gradients by shared parameters are sums over the rows.
template <class T>
void vector_map_backward(const VectorRows<T>& a, bool shared, const VectorRowsBack<T>& back, int64_t rows,
                         cudaStream_t stream);

}  // namespace headrace
