#include "planted.hpp"

#include "../../cuda/include/memory.cuh"

using headrace::check_cuda;
using headrace::check_launch;
using headrace::DeviceBuffer;

namespace {

constexpr int threads = 64;

// With the barrier, the result is out[i] = i + 1, and 0 for the last i.
__global__ void neighbours(float* out, bool barrier) {
    HR_DYNAMIC_SHARED(float, shared);
    const int i = int(threadIdx.x), n = int(blockDim.x);
    shared[i] = float(i);
    if (barrier) __syncthreads();
    out[i] = shared[(i + 1) % n];
}

// With the barrier of the warp, the result is out[i] = i ^ 1.
__global__ void lane_neighbours(float* out, bool barrier) {
    HR_DYNAMIC_SHARED(float, shared);
    const int i = int(threadIdx.x);
    shared[i] = float(i);
    if (barrier) __syncwarp();
    out[i] = shared[i ^ 1];
}

__global__ void shared_unwritten(float* out) {
    HR_DYNAMIC_SHARED(float, shared);
    out[threadIdx.x] = shared[threadIdx.x];
}

// Planted bug: a block reads shared memory as if it were that of the block before.
__global__ void shared_of_the_last_block(float* out) {
    HR_DYNAMIC_SHARED(float, shared);
    if (blockIdx.x == 0) shared[threadIdx.x] = 1;
    out[threadIdx.x] = shared[threadIdx.x];
}

__global__ void copy(const float* from, float* out, int shift) {
    out[threadIdx.x] = from[int(threadIdx.x) + shift];
}

__global__ void shared_beyond(float* out, int shift) {
    HR_DYNAMIC_SHARED(float, shared);
    shared[int(threadIdx.x) + shift] = 1;
    out[threadIdx.x] = shared[int(threadIdx.x) + shift];
}

__global__ void barrier_of_some(float* out) {
    if (threadIdx.x < 7) {
        __syncwarp();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 0;
}

__global__ void two_barriers(float* out) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 0;
}

__global__ void shuffle_of_some(float* out) {
    float value = float(threadIdx.x);
    if (threadIdx.x % 2 == 0) value = __shfl_xor_sync(~0u, value, 2);
    __syncthreads();
    out[threadIdx.x] = value;
}

__global__ void shuffle_from_outside(float* out) {
    float value = float(threadIdx.x);
    if (threadIdx.x < 16) value = __shfl_sync(0xffffu, value, 20);
    out[threadIdx.x] = value;
}

__global__ void shuffle_without_oneself(float* out) {
    out[threadIdx.x] = __shfl_sync(0xffffu, float(threadIdx.x), 3);
}

__global__ void masks_that_differ(float* out) {
    out[threadIdx.x] = __shfl_sync(threadIdx.x == 5 ? 0x7fffffffu : ~0u, float(threadIdx.x), 3);
}

// Correct code, which must pass: every warp's sum by shuffles, and votes of the warp and of the block.
__global__ void right(float* out) {
    const int i = int(threadIdx.x);
    float sum = float(i);
    for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(~0u, sum, by);
    const float above = __shfl_down_sync(~0u, float(i), 1), below = __shfl_up_sync(~0u, float(i), 1);
    const bool ends = above == float(i + (i % 32 < 31)) && below == float(i - (i % 32 > 0));
    const unsigned odd = __ballot_sync(~0u, i % 2);
    const bool votes =
        odd == 0xaaaaaaaau && __any_sync(~0u, i == 40) == (i >= 32) && __all_sync(~0u, i < 32) == (i < 32);
    float quarter = float(i);  // only some lanes take part, and the mask has these lanes
    if (i % 4 == 0) quarter = __shfl_xor_sync(0x11111111u, quarter, 4);
    const bool some = quarter == float(i % 4 ? i : i ^ 4);
    if (i == 63) return;  // barriers do not wait for threads that have ended
    const bool any = __syncthreads_or(i == 62), none = !__syncthreads_or(0);
    out[i] = ends && votes && some && any && none ? sum : -1.0f;
}

template <class Kernel, class... Arguments>
std::vector<float> run(Kernel* kernel, int blocks, int threads_of_block, size_t shared, size_t n,
                       Arguments... arguments) {
    DeviceBuffer<float> out(n, nullptr);
    HR_LAUNCH(kernel, blocks, threads_of_block, shared, nullptr, out.get(), arguments...);
    check_launch("planted");
    std::vector<float> host(n);
    check_cuda(cudaMemcpyAsync(host.data(), out.get(), n * sizeof(float), cudaMemcpyDeviceToHost, nullptr), "copy");
    return host;
}

std::vector<float> copied(const float* from, int shift) {
    DeviceBuffer<float> out(threads, nullptr);
    HR_LAUNCH(copy, 1, threads, 0, nullptr, from, out.get(), shift);
    check_launch("planted");
    return std::vector<float>(out.get(), out.get() + threads);
}

}  // namespace

std::vector<float> planted(const std::string& bug) {
    const size_t bytes = threads * sizeof(float);
    if (bug == "none") return run(neighbours, 1, threads, bytes, threads, true);
    if (bug == "no barrier") return run(neighbours, 1, threads, bytes, threads, false);
    if (bug == "none in a warp") return run(lane_neighbours, 1, threads, bytes, threads, true);
    if (bug == "no barrier in a warp") return run(lane_neighbours, 1, threads, bytes, threads, false);
    if (bug == "shared memory not written") return run(shared_unwritten, 1, threads, bytes, threads);
    if (bug == "shared memory of the last block") return run(shared_of_the_last_block, 2, threads, bytes, threads);
    if (bug == "beyond shared memory") return run(shared_beyond, 1, threads, bytes, threads, 1);
    if (bug == "before shared memory") return run(shared_beyond, 1, threads, bytes, threads, -1);
    if (bug == "too much shared memory") return run(shared_unwritten, 1, threads, 48 * 1024 + 4, threads);
    if (bug == "too many threads") return run(shared_unwritten, 1, 1025, bytes, 1025);
    if (bug == "no blocks") return run(shared_unwritten, 0, threads, bytes, threads);
    if (bug == "barrier of some") return run(barrier_of_some, 1, threads, 0, threads);
    if (bug == "two barriers") return run(two_barriers, 1, threads, 0, threads);
    if (bug == "shuffle of some") return run(shuffle_of_some, 1, threads, 0, threads);
    if (bug == "shuffle from outside") return run(shuffle_from_outside, 1, threads, 0, threads);
    if (bug == "shuffle without oneself") return run(shuffle_without_oneself, 1, threads, 0, threads);
    if (bug == "masks that differ") return run(masks_that_differ, 1, threads, 0, threads);
    if (bug == "right") return run(right, 1, threads, 0, threads);
    if (bug == "much shared memory") {
        check_cuda(cudaFuncSetAttribute(neighbours, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 * 1024), "shared");
        return run(neighbours, 1, threads, 100 * 1024, threads, true);
    }
    if (bug == "more shared memory than there is") {
        check_cuda(cudaFuncSetAttribute(neighbours, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 * 1024), "shared");
    }
    if (bug == "device memory not written") return copied(DeviceBuffer<float>(threads, nullptr).get(), 0);
    if (bug == "beyond device memory") {
        const DeviceBuffer<float> from(std::vector<float>(threads, 1.0f), nullptr);
        return copied(from.get(), 1);
    }
    if (bug == "device memory given back") {
        const float* from = DeviceBuffer<float>(std::vector<float>(threads, 1.0f), nullptr).get();
        return copied(from, 0);
    }
    if (bug == "given back twice") {
        float* from = nullptr;
        check_cuda(cudaMallocAsync(&from, bytes, nullptr), "allocation");
        check_cuda(cudaFreeAsync(from, nullptr), "free");
        check_cuda(cudaFreeAsync(from, nullptr), "free");
    }
    throw std::invalid_argument("unknown bug: " + bug);
}
