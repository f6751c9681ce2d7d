// Helpers of threads in many kernels: the index of a thread's element, and the sum over its block.
#pragma once

#include <cstdint>

#include "device.cuh"

namespace headrace {
namespace {

__device__ inline int64_t element_of_thread() {
    return int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
}

// The sum over a block of whole warps, in a fixed order, which only the first thread returns. of_warp is shared memory
// with a value for each warp.
__device__ inline double block_sum(double x, double* of_warp) {
    constexpr unsigned warp = 32;
    for (unsigned step = warp / 2; step > 0; step /= 2) x += __shfl_down_sync(~0u, x, step);
    if (threadIdx.x % warp == 0) of_warp[threadIdx.x / warp] = x;
    __syncthreads();
    x = 0;
    if (threadIdx.x == 0)
        for (unsigned i = 0; i < blockDim.x / warp; ++i) x += of_warp[i];
    return x;
}

}  // namespace
}  // namespace headrace
