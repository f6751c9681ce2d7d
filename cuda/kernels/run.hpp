// Launching what works on tiles: where a tile's lines are, and how many blocks there are at a time.
#pragma once

#include "../device_chain.hpp"
#include "../include/memory.cuh"

namespace headrace {

// Shared memory that a block may have, and multiprocessors of the device at hand.
struct DeviceLimits {
    int64_t shared_bytes;
    int multiprocessors;
};

// Where the lines of a tile are.
struct Place {
    bool in_shared;
    int warps;
    int64_t shared_bytes;  // of a block, in all
};

// In shared memory where a block's lines fit beside its scratch, else in global memory, which the L2 cache holds.
inline Place place_of(int64_t lines, int warps, int64_t number_bytes, int64_t shared_bytes) {
    const int64_t scratch = scratch_numbers(warps) * number_bytes;
    const int64_t whole = scratch + lines * (warp_rows + 1) * number_bytes;
    return whole <= shared_bytes ? Place{true, warps, whole} : Place{false, warps, scratch};
}

DeviceLimits device_limits();

// Enough blocks of a kernel to fill the device, but no more than tiles; they may then have the place's shared memory.
template <class Kernel>
int resident_blocks(Kernel kernel, const Place& place, int64_t tiles) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(place.shared_bytes)),
               "shared memory of a kernel");
    int of_multiprocessor = 0;
    check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&of_multiprocessor, kernel, place.warps * warp_rows,
                                                             size_t(place.shared_bytes)),
               "occupancy of a kernel");
    const int64_t fill = int64_t(device_limits().multiprocessors) * (of_multiprocessor > 0 ? of_multiprocessor : 1);
    return int(tiles < fill ? tiles : fill);
}

template <class T>
void launch_chain(const DeviceChain<T>& d, const Call<T>& call, const Place& place, cudaStream_t stream);

}  // namespace headrace
