#include "weights.hpp"

#include <algorithm>

#include "../../cpp/math/maps.hpp"
#include "../../cpp/math/vector_maps.hpp"
#include "../include/threads.cuh"

namespace headrace {
namespace {

// Whether the ready parameters of a step are made transform by transform, or coordinate by coordinate.
template <class T>
__device__ int ready_parts(const Step<T>& step, int features) {
    if (step.kind == StepKind::vector) return step.vector.transforms;
    return step.kind == StepKind::elementwise ? features : 0;
}

template <class T>
__global__ void prepare_ready(DeviceChain<T> d, const T* weights, T* ready) {
    const int features = d.chain.features;
    for (int s = blockIdx.x; s < d.chain.n_steps; s += gridDim.x) {
        const Step<T>& step = d.steps[s].step;
        for (int i = threadIdx.x; i < ready_parts(step, features); i += blockDim.x) {
            if (step.kind == StepKind::vector) {
                const VectorStep<T>& v = step.vector;
                const int* const coordinate = v.coordinate + int64_t(i) * features;
                const T* const raw = weights + v.weights[i];
                T* const out = ready + v.ready + int64_t(i) * v.n_ready;
                with_vector_map(v.map, [&]<class Map>() {
                    Map::template prepare<double>(
                        [&](int k) { return double(raw[in_coordinate_order(k, Map::vectors, features, coordinate)]); },
                        features, [&](int k, double value) { out[k] = T(value); });
                });
            } else {
                const MaskedStep<T>& m = step.network;
                const ElementwiseStep& e = step.elementwise;
                const MapOptions<double> options{double(m.options.slope), double(m.options.inverse_clamp),
                                                 m.options.bins, double(m.options.bound)};
                const T* const raw = weights + e.weights + e.coordinate[i] * m.n_params;
                T* const out = ready + e.ready + int64_t(i) * e.n_ready;
                with_map(m.map, [&]<class Map>() {
                    if constexpr (requires { Map::ready_factors; })
                        Map::template prepare<double>([&](int k) { return double(raw[k]); }, options,
                                                      [&](int k, double value) { out[k] = T(value); });
                });
            }
        }
    }
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
