// Vector maps without a program, on row-major arrays with parameters from any source: hr.ops.planar_forward,
// radial_inverse, ... on the device. All is queued on the stream; result may be value.
#pragma once

#include <cstdint>

#include "../../cpp/core/views.hpp"
#include "../include/device.cuh"

namespace headrace {

// `shared`: a.params is one set for all rows, not one a row. a.ready is not read.
template <class T>
void vector_map(const VectorRows<T>& a, bool shared, int64_t rows, cudaStream_t stream);

// Gradients by shared parameters are sums over the rows.
template <class T>
void vector_map_backward(const VectorRows<T>& a, bool shared, const VectorRowsBack<T>& back, int64_t rows,
                         cudaStream_t stream);

}  // namespace headrace
