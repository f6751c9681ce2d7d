// The shared headers on the device: every lane function, map, activation and base, for float and double, one element a
// thread, and every vector map, a row a thread. What the CPU compiles as vectors must stay compilable here as single
// numbers; tests may launch these kernels and compare.
#include "../../cpp/activations.hpp"
#include "../../cpp/lane.hpp"
#include "../../cpp/maps.hpp"
#include "../../cpp/random.hpp"
#include "../../cpp/vector_maps.hpp"
#include "../include/device.cuh"

namespace headrace {

__device__ inline int64_t element_of_thread() {
    return int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
}

// out[k * n + i] is function k of x[i], in the order written here.
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
    put(abs(v));
    put(copy_sign(v, y[i]));
    put(min(v, y[i]));
    put(max(v, y[i]));
    put(select(v > y[i], infinity<T>(), not_a_number<T>()));
    put(polynomial(v, 1.0, 2.0, 3.0));
    put(power_of_two<T>(Int<T>(y[i])));
}

// params: the map's parameters of every element, element by element. Runs both directions.
template <class T>
__global__ void map_functions(int map, MapOptions<T> options, const T* in, const T* params, T* forward, T* inverse,
                              T* forward_log_det, T* inverse_log_det, int64_t n) {
    const int64_t i = element_of_thread();
    if (i >= n) return;
    with_map(map, [&]<class Map>() {
        const auto param = [&](int k) { return params[i * Map::n_params(options.bins) + k]; };
        forward[i] = Map::forward(in[i], param, options, forward_log_det[i]);
        inverse[i] = Map::inverse(in[i], param, options, inverse_log_det[i]);
    });
}

// Gradients of one direction; grad_value and grad_log_det by what it gives, the results by what it takes.
template <class T>
__global__ void map_gradients(int map, bool backwards, MapOptions<T> options, const T* in, const T* params,
                              const T* grad_value, const T* grad_log_det, T* grad_in, T* grad_params, int64_t n) {
    const int64_t i = element_of_thread();
    if (i >= n) return;
    with_map(map, [&]<class Map>() {
        const int64_t first = i * Map::n_params(options.bins);
        const auto param = [&](int k) { return params[first + k]; };
        const auto grad = [&](int k, T g) { grad_params[first + k] = g; };
        T log_det;
        if (backwards) {
            const T built = Map::inverse(in[i], param, options, log_det);
            grad_in[i] = Map::inverse_vjp(in[i], built, param, options, grad_value[i], grad_log_det[i], grad);
        } else {
            const T built = Map::forward(in[i], param, options, log_det);
            grad_in[i] = Map::forward_vjp(in[i], built, param, options, grad_value[i], grad_log_det[i], grad);
        }
    });
}

// Numbers of one row, as a vector map reads them; a thread has no second vector of rows.
template <class T>
struct RowNumbers {
    const T* p;
    __device__ T operator()(int k, int = 0) const { return p[k]; }
};

// Raw parameters of each row to ready ones, and one direction of the map: rows of row-major arrays.
template <class T>
__global__ void vector_map_functions(int map, bool backwards, MapOptions<T> options, int features, const T* in,
                                     const T* raw, T* ready, T* out, T* log_det, int64_t n) {
    const int64_t i = element_of_thread();
    if (i >= n) return;
    with_vector_map(map, [&]<class Map>() {
        T* const own = ready + i * Map::n_ready(features);
        Map::template prepare<T>(RowNumbers<T>{raw + i * Map::n_raw(features)}, features,
                                 [&](int k, T value) { own[k] = value; });
        const RowNumbers<T> p{own};
        const T* const from = in + i * features;
        T sum[1] = {Map::template start<T>(p, features)}, amount[1], factor[1][Map::factors];
        for (int c = 0; c < features; ++c) sum[0] = Map::accumulate(sum[0], from[c], p, c, features);
        if (backwards) {
            Map::inverse(sum, p, features, options, amount, factor);
        } else {
            Map::forward(sum, p, features, options, amount, factor);
        }
        for (int c = 0; c < features; ++c) out[i * features + c] = Map::move(from[c], amount[0], p, c, features);
        T total = 0;
        for (int f = 0; f < Map::factors; ++f) total += log(factor[0][f]) * T(Map::power(f, features));
        log_det[i] = backwards ? -total : total;
    });
}

// Gradients of one direction, from what it was given and what it built; grad_ready is scratch.
template <class T>
__global__ void vector_map_gradients(int map, bool backwards, MapOptions<T> options, int features, const T* in,
                                     const T* built, const T* raw, const T* ready, const T* grad_value,
                                     const T* grad_log_det, T* grad_in, T* grad_ready, T* grad_raw, int64_t n) {
    const int64_t i = element_of_thread();
    if (i >= n) return;
    with_vector_map(map, [&]<class Map>() {
        const RowNumbers<T> p{ready + i * Map::n_ready(features)};
        T* const by_ready = grad_ready + i * Map::n_ready(features);
        const auto put = [&](int k, T g) { by_ready[k] = g; };
        const int64_t first = i * features;
        T sum = Map::template start<T>(p, features), dot = 0;
        for (int c = 0; c < features; ++c) {
            const T latent = backwards ? built[first + c] : in[first + c];
            Map::reduce(sum, dot, in[first + c], latent, grad_value[first + c], p, c, features);
        }
        const auto spread = [&](const auto& shared) {
            for (int c = 0; c < features; ++c)
                grad_in[first + c] = Map::spread(shared, in[first + c], grad_value[first + c], p, c, features, put);
        };
        if (backwards) {
            spread(Map::template backward<true>(sum, dot, grad_log_det[i], p, features, options, put));
        } else {
            spread(Map::template backward<false>(sum, dot, grad_log_det[i], p, features, options, put));
        }
        const int64_t row = i * Map::n_raw(features);
        Map::template prepare_vjp<T>(RowNumbers<T>{raw + row}, RowNumbers<T>{by_ready}, features,
                                     [&](int k, T g) { grad_raw[row + k] = g; });
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

// Columns [4 block, 4 block + 4) of rows [first, first + n): out[i * 4 + k].
template <class T>
__global__ void random_columns(bool logistic, uint64_t seed, int64_t first, uint32_t block, T* out, int64_t n) {
    const int64_t i = element_of_thread();
    if (i >= n) return;
    const uint64_t row = uint64_t(first + i);
    const Columns<T> columns = base_columns<T>(logistic, seed, uint32_t(row), uint32_t(row >> 32), block);
    for (int k = 0; k < 4; ++k) out[i * 4 + k] = columns.column[k];
}

#define HR_INSTANTIATE(T)                                                                                            \
    template __global__ void lane_functions(const T*, const T*, T*, int64_t);                                        \
    template __global__ void map_functions(int, MapOptions<T>, const T*, const T*, T*, T*, T*, T*, int64_t);         \
    template __global__ void map_gradients(int, bool, MapOptions<T>, const T*, const T*, const T*, const T*, T*, T*, \
                                           int64_t);                                                                 \
    template __global__ void vector_map_functions(int, bool, MapOptions<T>, int, const T*, const T*, T*, T*, T*,     \
                                                  int64_t);                                                          \
    template __global__ void vector_map_gradients(int, bool, MapOptions<T>, int, const T*, const T*, const T*,       \
                                                  const T*, const T*, const T*, T*, T*, T*, int64_t);                \
    template __global__ void activation_functions(int, const T*, T*, T*, int64_t);                                   \
    template __global__ void random_columns(bool, uint64_t, int64_t, uint32_t, T*, int64_t);
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
