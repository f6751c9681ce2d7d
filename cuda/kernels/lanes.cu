// The headers of cpp/math on the device: every lane function, map, activation and base, for float and double, one value
// for each thread. Code that the CPU compiles for vectors must also compile for scalars on a device.
#include "../include/threads.cuh"
#include "lanes.hpp"

#include "../../cpp/math/activations.hpp"
#include "../../cpp/math/lane.hpp"
#include "../../cpp/math/maps.hpp"
#include "../../cpp/math/random.hpp"

namespace headrace {
namespace {

template <class T>
__global__ void lane_functions(const T* x, const T* y, T* out, int64_t n) {
    const int64_t i = element_of_thread();
    if (i >= n) return;
    const T v = x[i];
    T* to = out + i;
    const auto put = [&](T value) {
        *to = value;
        to += n;
    };
    put(exp(v));
    put(exp_moderate(v));
    put(expm1(v));
    put(log(v));
    put(log1p(v));
    put(tanh(v));
    put(sigmoid(v));
    put(softplus(v));
    put(normal_cdf(v));
    const SinCos<T> angle = sincos_turns(v);
    put(angle.sin);
    put(angle.cos);
    put(sqrt(v));
    put(rsqrt(v));
    put(abs(v));
    put(copy_sign(v, y[i]));
    put(min(v, y[i]));
    put(max(v, y[i]));
    put(select(v > y[i], infinity<T>(), not_a_number<T>()));
    put(polynomial(v, 1.0, 2.0, 3.0));
    put(power_of_two<T>(Int<T>(y[i])));
}

// Runs both directions of a map; params has the parameters of one element after another.
template <class T>
__global__ void map_functions(int map, MapOptions<T> options, const T* in, const T* params, T* forward, T* inverse,
                              T* forward_log_det, T* inverse_log_det, int64_t n) {
    const int64_t i = element_of_thread();
    if (i >= n) return;
    with_map(map, [&]<class Map>() {
        const auto param = [&](int k) { return params[i * n_params_with<Map>(options) + k]; };
        forward[i] = Map::forward(in[i], param, options, forward_log_det[i]);
        inverse[i] = Map::inverse(in[i], param, options, inverse_log_det[i]);
    });
}

template <class T>
__global__ void activation_functions(int activation, const T* in, T* out, T* slope, int64_t n) {
    const int64_t i = element_of_thread();
    if (i >= n) return;
    with_activation(activation, [&]<class Activation>() {
        out[i] = Activation::value(in[i]);
        slope[i] = Activation::slope(Activation::slope_of_value ? out[i] : in[i]);
    });
}

// Draws random values of columns [4 block, 4 block + 4) and rows [first, first + n) to out[i * 4 + k].
template <class T>
__global__ void random_columns(bool logistic, uint64_t seed, int64_t first, uint32_t block, T* out, int64_t n) {
    const int64_t i = element_of_thread();
    if (i >= n) return;
    const uint64_t row = uint64_t(first + i);
    const Columns<T> columns = base_columns<T>(logistic, seed, uint32_t(row), uint32_t(row >> 32), block);
    for (int k = 0; k < 4; ++k) out[i * 4 + k] = columns.column[k];
}

// Launches one thread for each of n values, and no kernel if n is 0.
template <class Kernel, class... Arguments>
void launch(Kernel* kernel, int64_t n, cudaStream_t stream, Arguments... arguments) {
    constexpr int64_t threads = 128;
    if (n == 0) return;
    HR_LAUNCH(kernel, unsigned((n + threads - 1) / threads), unsigned(threads), 0, stream, arguments..., n);
    check_launch("lanes");
}

}  // namespace

template <class T>
void launch_lane_functions(const T* x, const T* y, T* out, int64_t n, cudaStream_t stream) {
    launch(lane_functions<T>, n, stream, x, y, out);
}

template <class T>
void launch_map_functions(int map, const MapOptions<T>& options, const T* in, const T* params, T* forward, T* inverse,
                          T* forward_log_det, T* inverse_log_det, int64_t n, cudaStream_t stream) {
    launch(map_functions<T>, n, stream, map, options, in, params, forward, inverse, forward_log_det, inverse_log_det);
}

template <class T>
void launch_activation_functions(int activation, const T* in, T* out, T* slope, int64_t n, cudaStream_t stream) {
    launch(activation_functions<T>, n, stream, activation, in, out, slope);
}

template <class T>
void launch_random_columns(bool logistic, uint64_t seed, int64_t first, uint32_t block, T* out, int64_t n,
                           cudaStream_t stream) {
    launch(random_columns<T>, n, stream, logistic, seed, first, block, out);
}

#define HR_INSTANTIATE(T)                                                                                      \
    template void launch_lane_functions(const T*, const T*, T*, int64_t, cudaStream_t);                        \
    template void launch_map_functions(int, const MapOptions<T>&, const T*, const T*, T*, T*, T*, T*, int64_t, \
                                       cudaStream_t);                                                          \
    template void launch_activation_functions(int, const T*, T*, T*, int64_t, cudaStream_t);                   \
    template void launch_random_columns(bool, uint64_t, int64_t, uint32_t, T*, int64_t, cudaStream_t);
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
