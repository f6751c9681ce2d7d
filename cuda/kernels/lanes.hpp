// Separate kernels for every function of the lanes, every map, activation and base, for tests, with one value for each
// thread. Addresses are those of contiguous arrays on the device.
#pragma once

#include <cstdint>

#include "../../cpp/math/maps/options.hpp"
#include "../include/memory.cuh"

namespace headrace {

// The names of the lane functions: launch_lane_functions writes function k of x[i] and y[i] to out[k * n + i].
constexpr const char* lane_function_names[] = {"exp",       "exp_moderate", "expm1",    "log",        "log1p",
                                               "tanh",      "sigmoid",      "softplus", "normal_cdf", "sin_turns",
                                               "cos_turns", "sqrt",         "rsqrt",    "abs",        "copy_sign",
                                               "min",       "max",          "select",   "polynomial", "power_of_two"};

template <class T>
void launch_lane_functions(const T* x, const T* y, T* out, int64_t n, cudaStream_t stream);

template <class T>
void launch_map_functions(int map, const MapOptions<T>& options, const T* in, const T* params, T* forward, T* inverse,
                          T* forward_log_det, T* inverse_log_det, int64_t n, cudaStream_t stream);

template <class T>
void launch_activation_functions(int activation, const T* in, T* out, T* slope, int64_t n, cudaStream_t stream);

template <class T>
void launch_random_columns(bool logistic, uint64_t seed, int64_t first, uint32_t block, T* out, int64_t n,
                           cudaStream_t stream);

}  // namespace headrace
