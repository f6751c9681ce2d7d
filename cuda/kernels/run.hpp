// Launches of kernels on tiles: the memory of a tile's lines, and the number of blocks at a time.
#pragma once

#include "../host/device_chain.hpp"
#include "../include/memory.cuh"

namespace headrace {

// Limits of the current device: shared memory of a block, and the number of multiprocessors.
struct DeviceLimits {
    int64_t shared_bytes;
    int multiprocessors;
};

// The memory of a tile's lines.
struct Place {
    bool in_shared;
    int warps;
    int64_t shared_bytes;  // total shared memory of a block
};

// Whether tiles of a type may be in shared memory: not those of float64, which is used for checks, and whose kernels
// are as large as those of float32.
template <class T>
constexpr bool has_shared_tiles = sizeof(T) == 4;

// The memory of lines: shared memory if a multiprocessor then has enough warps to hide the latency of loads, otherwise
// global memory, which the L2 cache holds.
inline Place place_of(int64_t lines, int warps, int64_t number_bytes, int64_t shared_bytes) {
    const int64_t scratch = scratch_numbers(warps) * number_bytes;
    const int64_t whole = scratch + lines * (warp_rows + 1) * number_bytes;
    const bool fits = whole <= shared_bytes && shared_bytes / whole * warps >= least_resident_warps;
    return fits ? Place{true, warps, whole} : Place{false, warps, scratch};
}

// The memory of a run's tiles. Without networks, the number of warps that share a tile grows with the coordinates that
// they can share; one lane computes a run of vector maps for a row.
template <class T>
Place run_place(const DeviceChain<T>& d, int64_t shared_bytes) {
    int warps = network_warps;
    if (d.units == 0) {
        const int shared_by = (d.chain.features + coordinates_of_warp - 1) / coordinates_of_warp;
        warps = d.has_vectors ? 1 : shared_by < network_warps ? shared_by : network_warps;
    }
    return place_of(d.run_lines(), warps, sizeof(T), has_shared_tiles<T> ? shared_bytes : 0);
}

inline DeviceLimits device_limits() {
    int device = 0, shared = 0, multiprocessors = 0;
    check_cuda(cudaGetDevice(&device), "current device");
    check_cuda(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "shared memory");
    check_cuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "multiprocessors");
    return {shared, multiprocessors};
}

// The number of rows of a tile in the backward pass, whose registers suffice for one block on a multiprocessor. A small
// number of rows, for which most lanes would be idle, has narrow tiles, of which there are four times as many. Narrow
// tiles are used if they take at most twice as many rounds, because each round takes less than half as long
// (bench/gpu/model.md). The bits of a row do not depend on the tile.
inline int rows_of_tile(int64_t rows, int64_t multiprocessors) {
    const auto rounds = [&](int64_t tile) {
        return ((rows + tile - 1) / tile + multiprocessors - 1) / multiprocessors;
    };
    return rounds(narrow_rows) <= 2 * rounds(warp_rows) ? narrow_rows : warp_rows;
}

// The number of blocks that fills the device, at most the number of tiles. The kernel may use any amount of shared
// memory after the call.
template <class Kernel>
int resident_blocks(Kernel kernel, const Place& place, int64_t tiles) {
    allow_shared(kernel);
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
