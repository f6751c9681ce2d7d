#include "weights.hpp"

#include <algorithm>

#include "../../cpp/steps/ready.hpp"
#include "../include/threads.cuh"

namespace headrace {
namespace {

template <class T>
__global__ void prepare_ready(const __grid_constant__ DeviceChain<T> d, const T* weights, T* ready) {
    const int features = d.chain.features;
    for (int s = blockIdx.x; s < d.chain.n_steps; s += gridDim.x)
        with_step(d.steps[s].step, [&](const auto& step) {
            for (int i = threadIdx.x; i < ready_parts(step, features); i += blockDim.x)
                prepare_part(step, i, features, weights, ready);
        });
}

template <class T>
__global__ void masked_copy(const T* in, const uint8_t* keep, T* out, int64_t n) {
    const int64_t i = element_of_thread();
    if (i < n) out[i] = keep[i] ? in[i] : T(0);
}

constexpr int plain_threads = 256, step_blocks = 1024, step_threads = 64;

unsigned blocks_of(int64_t n) {
    return unsigned((n + plain_threads - 1) / plain_threads);
}

}  // namespace

template <class T>
void launch_prepare(const DeviceChain<T>& d, const T* weights, T* ready, cudaStream_t stream) {
    if (d.chain.ready == 0) return;
    HR_LAUNCH(prepare_ready<T>, std::min(step_blocks, d.chain.n_steps), step_threads, 0, stream, d, weights, ready);
    check_launch("prepare_ready");
}

template <class T>
void launch_masked_copy(const T* in, const uint8_t* keep, T* out, int64_t n, cudaStream_t stream) {
    if (n == 0) return;
    HR_LAUNCH(masked_copy<T>, blocks_of(n), plain_threads, 0, stream, in, keep, out, n);
    check_launch("masked_copy");
}

#define HR_INSTANTIATE(T)                                                            \
    template void launch_prepare(const DeviceChain<T>&, const T*, T*, cudaStream_t); \
    template void launch_masked_copy(const T*, const uint8_t*, T*, int64_t, cudaStream_t);
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
