#define HR_SMALL_CODE
#include "weights.hpp"

#include <algorithm>
#include <type_traits>

#include "../../cpp/steps/ready.hpp"
#include "../include/threads.cuh"
#include "either.cuh"

namespace headrace {
namespace {

// The steps of a chain of either floating type, for kernels that are compiled once and compute in float64.
struct StepsOfEither {
    const void* steps;
    bool is_double;
    int count, features;
};

template <class T>
StepsOfEither steps_of(const DeviceChain<T>& d) {
    return {d.steps, std::is_same_v<T, double>, d.chain.n_steps, d.chain.features};
}

// A step with constants in float64; of a step without ready parameters, only the kind is set.
template <class T>
__device__ Step<double> in_float64(const DeviceStep<T>& step) {
    Step<double> wide{};
    wide.kind = step.kind;
    with_step(step, [&](const auto& d) {
        if constexpr (requires { in_float64(d.step); }) become(wide, d.step) = in_float64(d.step);
    });
    return wide;
}

// Calls body(step, part) for all parts of all steps: blocks share the steps, and the threads of a block share the
// parts.
template <class F>
__device__ __forceinline__ void for_ready_parts(const StepsOfEither& d, const F& body) {
    for (int s = blockIdx.x; s < d.count; s += gridDim.x) {
        const Step<double> step = d.is_double ? in_float64(static_cast<const DeviceStep<double>*>(d.steps)[s])
                                              : in_float64(static_cast<const DeviceStep<float>*>(d.steps)[s]);
        with_step(step, [&](const auto& own) {
            for (int i = threadIdx.x; i < ready_parts(own, d.features); i += blockDim.x) body(own, i);
        });
    }
}

__global__ void prepare_ready(StepsOfEither d, NumbersOfEither weights, NumbersOfEither ready) {
    for_ready_parts(d, [&](const auto& step, int i) { prepare_part(step, i, d.features, weights, ready); });
}

// Computes gradients by raw parameters of a step from gradients by ready parameters; this overload, for all steps
// except runs of vector maps, does nothing.
template <class S>
__device__ void finish_step(const S&, int, int, const NumbersOfEither&, const double*, const int*,
                            const NumbersOfEither&) {}

__device__ inline void finish_step(const VectorStep<double>& step, int i, int features, const NumbersOfEither& weights,
                                   const double* by_ready, const int* bad, const NumbersOfEither& gradient) {
    const double* const given = by_ready + step.ready + int64_t(i) * step.n_ready;
    const NumbersOfEither out = gradient + step.weights[i];
    finish_part(
        step, i, features, weights, [&](int k) { return given[k]; },
        [&](int k, double value) { out[k] = *bad ? not_a_number<double>() : value; });
}

__global__ void finish_ready(StepsOfEither d, NumbersOfEither weights, const double* by_ready, const int* bad,
                             NumbersOfEither gradient) {
    for_ready_parts(
        d, [&](const auto& step, int i) { finish_step(step, i, d.features, weights, by_ready, bad, gradient); });
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
    HR_LAUNCH(prepare_ready, std::min(step_blocks, d.chain.n_steps), step_threads, 0, stream, steps_of(d),
              NumbersOfEither(weights), NumbersOfEither(ready));
    check_launch("prepare_ready");
}

template <class T>
void launch_finish(const DeviceChain<T>& d, const T* weights, const double* by_ready, const int* bad, T* gradient,
                   cudaStream_t stream) {
    if (d.chain.ready == 0) return;
    HR_LAUNCH(finish_ready, std::min(step_blocks, d.chain.n_steps), step_threads, 0, stream, steps_of(d),
              NumbersOfEither(weights), by_ready, bad, NumbersOfEither(gradient));
    check_launch("finish_ready");
}

template <class T>
void launch_masked_copy(const T* in, const uint8_t* keep, T* out, int64_t n, cudaStream_t stream) {
    if (n == 0) return;
    HR_LAUNCH(masked_copy<T>, blocks_of(n), plain_threads, 0, stream, in, keep, out, n);
    check_launch("masked_copy");
}

#define HR_INSTANTIATE(T)                                                                                      \
    template void launch_prepare(const DeviceChain<T>&, const T*, T*, cudaStream_t);                           \
    template void launch_finish(const DeviceChain<T>&, const T*, const double*, const int*, T*, cudaStream_t); \
    template void launch_masked_copy(const T*, const uint8_t*, T*, int64_t, cudaStream_t);
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
