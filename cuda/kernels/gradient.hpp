// Launches of the backward pass through a program on the device, and their arguments.
#pragma once

#include "../../cpp/core/request.hpp"
#include "../host/device_chain.hpp"
#include "row_sums.hpp"
#include "run.hpp"

namespace headrace {

// Runs the rows of a call forward and backward, a group at a time, and then sums over rows. The height of tiles is not
// read from `back`.
template <class T>
void launch_gradient(const DeviceChain<T>& d, const SumTasks<T>& sums, const Call<T>& call, const Back<T>& back,
                     const uint8_t* is_weight, size_t n_weights, cudaStream_t stream);

}  // namespace headrace
