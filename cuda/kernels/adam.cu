#include "adam.hpp"

#include <algorithm>

#include "../include/launch.cuh"
#include "../include/threads.cuh"

namespace headrace {
namespace {

constexpr int threads = adam_threads, warp = 32;

// Computes partial sums of squares in float64, so that they do not overflow.
template <class T>
__global__ void __launch_bounds__(threads) sum_squares(const T* x, int64_t n, double* parts) {
    HR_DYNAMIC_SHARED(double, of_warp);
    const int64_t begin = int64_t(blockIdx.x) * adam_stretch;
    const int64_t end = begin + adam_stretch < n ? begin + adam_stretch : n;
    double sum = 0;
    for (int64_t i = begin + threadIdx.x; i < end; i += threads) sum += double(x[i]) * double(x[i]);
    sum = block_sum(sum, of_warp);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

template <class T>
__global__ void __launch_bounds__(threads) decide(AdamOptions options, double learning_rate, const double* parts,
                                                  int64_t n, AdamState<T>* state, double* norm) {
    HR_DYNAMIC_SHARED(double, of_warp);
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += threads) sum += parts[i];
    sum = sqrt(block_sum(sum, of_warp));
    if (threadIdx.x != 0) return;
    if (norm) *norm = sum;
    AdamState<T>& a = *state;
    a.is_finite = sum - sum == 0;
    if (!a.is_finite) return;
    a.step = adam_next<T>(options, learning_rate, sum, a.clock);
}

template <class T>
__global__ void __launch_bounds__(threads)
    move_weights(const AdamState<T>* state, const T* gradient, const AdamKind* kind, T* weights, T* mean, T* square,
                 T* average, int64_t n) {
    if (!state->is_finite) return;
    const AdamStep<T> step = state->step;
    for (int64_t i = int64_t(blockIdx.x) * threads + threadIdx.x; i < n; i += int64_t(gridDim.x) * threads) {
        if (kind[i] == adam_no_weight) continue;
        T m = mean[i], v = square[i];
        const T w = adam_moved(step, kind[i] == adam_decays, gradient[i], weights[i], m, v);
        mean[i] = m;
        square[i] = v;
        weights[i] = w;
        if (average) average[i] += (w - average[i]) * step.average_gain;
    }
}

template <class T>
__global__ void start(AdamState<T>* state) {
    *state = {};
}

}  // namespace

int64_t adam_parts(int64_t n) {
    return (n + adam_stretch - 1) / adam_stretch;
}

template <class T>
void adam_start(AdamState<T>* state, cudaStream_t stream) {
    auto* const kernel = start<T>;
    HR_LAUNCH(kernel, dim3(1), dim3(1), 0, stream, state);
    check_launch("adam_start");
}

template <class T>
void adam_step(const AdamOptions& options, double learning_rate, const T* gradient, const AdamKind* kind, T* weights,
               T* mean, T* square, T* average, int64_t n, double* parts, AdamState<T>* state, double* norm,
               cudaStream_t stream) {
    constexpr size_t shared = threads / warp * sizeof(double);
    const int64_t n_parts = adam_parts(n);
    if (n > 0) {
        auto* const squares = sum_squares<T>;
        HR_LAUNCH(squares, dim3(unsigned(n_parts)), dim3(threads), shared, stream, gradient, n, parts);
        check_launch("adam_norm");
    }
    auto* const rates = decide<T>;
    HR_LAUNCH(rates, dim3(1), dim3(threads), shared, stream, options, learning_rate, parts, n_parts, state, norm);
    check_launch("adam_rates");
    if (n == 0) return;
    auto* const move = move_weights<T>;
    const int64_t blocks = std::min<int64_t>((n + threads - 1) / threads, INT32_MAX);
    HR_LAUNCH(move, dim3(unsigned(blocks)), dim3(threads), 0, stream, state, gradient, kind, weights, mean, square,
              average, n);
    check_launch("adam_step");
}

#define HR_INSTANTIATE(T)                                                                                            \
    template void adam_start(AdamState<T>*, cudaStream_t);                                                           \
    template void adam_step(const AdamOptions&, double, const T*, const AdamKind*, T*, T*, T*, T*, int64_t, double*, \
                            AdamState<T>*, double*, cudaStream_t);
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
