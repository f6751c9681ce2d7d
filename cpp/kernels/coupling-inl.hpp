// Maps without a program, on row-major elements with parameters from any network, for hr.ops.coupling_forward and
// hr.ops.coupling_inverse.
//
// Elements are computed in runs of rows that stay in L1: parameters are split into one line for each parameter, the map
// is computed in lanes, and log-derivatives are summed row by row in ascending order.
#pragma once

#include "coordinates-inl.hpp"
#include "vector_rows-inl.hpp"

namespace headrace {
namespace {

constexpr int most_run = 512;                  // largest number of elements of a run; a longer row is divided
constexpr int coupling_numbers = 3 * 64 * 64;  // largest number of parameters of a run: 64 elements of 64 bins

// The number of elements in a run: a multiple of a vector's width for which coupling_numbers parameters suffice.
template <class T>
HR_FN int coupling_run(int n_params) {
    const int fits = coupling_numbers / n_params / width<T> * width<T>;
    return fits < most_run ? fits : most_run;
}

// The distance between the lines of parameters: an odd number of vectors, because lines whose distance is a power of
// two share a few sets of the cache.
template <class T>
HR_FN int line_distance(int run) {
    return run / width<T> % 2 == 0 ? run + width<T> : run;
}

// Memory for lines of parameters, whose padded distance is at most 3/2 of the run.
template <class T>
using ParamLines = T[coupling_numbers / 2 * 3];

// The number of elements, from the first one, whose parameters are moved in vectors.
template <class T>
HR_FN int n_in_vectors(int n_params, int n) {
    return n_params == 2 || n_params >= least_transposed ? n / width<T> * width<T> : 0;
}

// Splits the parameters of n elements into one line for each parameter. Lanes after the last element are zero, which
// makes every map the identity, because with old contents of memory the search for a root could take 200 steps with
// denormal numbers.
template <class T>
HR_FN void split_params(const T* params, int n_params, int n, int distance, T* lines) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    if (n % W != 0)
        for (int k = 0; k < n_params; ++k) store(lines + k * distance + n / W * W, V{});
    const int whole = n_in_vectors<T>(n_params, n);
    if (n_params == 2) {
        using All = typename MakeIndices<W>::type;
        for (int i = 0; i < whole; i += W) {
            const V a = load(params + 2 * i), b = load(params + 2 * i + W);
            [&]<int... I>(Indices<I...>) {
                store(lines + i, V(__builtin_shufflevector(a, b, (2 * I)...)));
                store(lines + distance + i, V(__builtin_shufflevector(a, b, (2 * I + 1)...)));
            }(All{});
        }
    } else {
        load_rows(params, n_params, 0, whole, lines, distance);
    }
    for (int i = whole; i < n; ++i)
        for (int k = 0; k < n_params; ++k) lines[k * distance + i] = params[int64_t(i) * n_params + k];
}

template <class T>
HR_FN void join_params(const T* lines, int distance, int n_params, int n, T* params) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    const int whole = n_in_vectors<T>(n_params, n);
    if (n_params == 2) {
        using All = typename MakeIndices<W>::type;
        for (int i = 0; i < whole; i += W) {
            const V a = load(lines + i), b = load(lines + distance + i);
            [&]<int... I>(Indices<I...>) {
                store(params + 2 * i, V(__builtin_shufflevector(a, b, (I / 2 + I % 2 * W)...)));
                store(params + 2 * i + W, V(__builtin_shufflevector(a, b, (W / 2 + I / 2 + I % 2 * W)...)));
            }(All{});
        }
    } else {
        store_rows(lines, distance, n_params, 0, whole, params);
    }
    for (int i = whole; i < n; ++i)
        for (int k = 0; k < n_params; ++k) params[int64_t(i) * n_params + k] = lines[k * distance + i];
}

// The parameters of one element, which a map may read in vectors.
template <class T>
struct ElementParams {
    using Lanes = Pack<T>;
    const T* params;
    HR_FN T operator()(int k) const { return params[k]; }
    HR_FN Lanes lanes(int k, int n) const { return load_up_to(params + k, n); }
};

// Whether n elements are so few that the inverse is faster one by one, with the components of a map as lanes.
template <class Map, bool inverse, class T>
HR_FN bool is_by_component(const MapOptions<T>& options, int n) {
    if constexpr (inverse || !requires { Map::components_as_lanes; }) return false;
    return 3 * n * ((options.bins + width<T> - 1) / width<T>) <= options.bins;
}

template <class Map, bool inverse, class T>
void coupling_elements(const MapOptions<T>& options, const T* in, const T* params, T* value, int n, T* log_det) {
    constexpr int W = width<T>;
    const int n_params = n_params_with<Map>(options);
    if constexpr (requires { Map::components_as_lanes; })
        if (is_by_component<Map, inverse>(options, n)) {
            for (int i = 0; i < n; ++i) {
                const ElementParams<T> param{params + i * n_params};
                value[i] = apply_map<Map, inverse>(in[i], param, options, log_det[i]);
            }
            return;
        }
    alignas(64) ParamLines<T> lines;
    const int distance = line_distance<T>(coupling_run<T>(n_params));
    split_params(params, n_params, n, distance, lines);
    for (int i = 0; i < n; i += W) {
        const auto param = [&](int k) { return load(lines + k * distance + i); };
        Pack<T> derivative;
        const auto element = apply_map<Map, inverse>(load_up_to(in + i, n - i), param, options, derivative);
        store(log_det + i, derivative);
        store_up_to(value + i, element, n - i);
    }
}

// A sum of n values, whose order depends only on n.
template <class T>
HR_FN T sum_run(const T* x, int n) {
    Pack<T> lanes{};
    int i = 0;
    for (; i + width<T> <= n; i += width<T>) lanes += load(x + i);
    T sum = n >= width<T> ? reduce_add(lanes) : T(0);
    for (; i < n; ++i) sum += x[i];
    return sum;
}

template <class T>
void coupling(int map, bool inverse, const MapOptions<T>& options, const T* in, const T* params, T* value, T* log_det,
              int64_t rows, int64_t active) noexcept {
    with_map(map, [&]<class Map>() {
        const int n_params = n_params_with<Map>(options), run = coupling_run<T>(n_params);
        alignas(64) T derivative[most_run];
        const auto elements = [&](int64_t first, int n) {
            const T* p = params + first * n_params;
            if (inverse) {
                coupling_elements<Map, true>(options, in + first, p, value + first, n, derivative);
            } else {
                coupling_elements<Map, false>(options, in + first, p, value + first, n, derivative);
            }
        };
        if (active == 0) {
            for (int64_t r = 0; r < rows; ++r) log_det[r] = T(0);
        } else if (active <= run) {
            const int64_t rows_of_run = run / active;
            for (int64_t r = 0; r < rows; r += rows_of_run) {
                const int64_t n = rows - r < rows_of_run ? rows - r : rows_of_run;
                elements(r * active, int(n * active));
                for (int64_t i = 0; i < n; ++i) log_det[r + i] = sum_run(derivative + i * active, int(active));
            }
        } else {
            for (int64_t r = 0; r < rows; ++r) {
                T sum = 0;
                for (int64_t c = 0; c < active; c += run) {
                    const int n = int(active - c < run ? active - c : run);
                    elements(r * active + c, n);
                    sum += sum_run(derivative, n);
                }
                log_det[r] = sum;
            }
        }
    });
}

// Computes gradients of the called direction, element by element; grad_value is the gradient by the map's output, and
// grad_log_det is the gradient by the row's log-determinant.
template <class Map, bool inverse, class T>
void coupling_backward_elements(const MapOptions<T>& options, const T* in, const T* params, const T* grad_value,
                                const T* grad_log_det, T* grad_in, T* grad_params, int n) {
    constexpr int W = width<T>;
    const int n_params = n_params_with<Map>(options), distance = line_distance<T>(coupling_run<T>(n_params));
    alignas(64) ParamLines<T> lines;
    split_params(params, n_params, n, distance, lines);
    for (int i = 0; i < n; i += W) {
        const auto param = [&](int k) { return load(lines + k * distance + i); };
        const auto grad = [&](int k, Pack<T> g) { store(lines + k * distance + i, g); };
        const Pack<T> given = load_up_to(in + i, n - i);
        Pack<T> log_det;
        const Pack<T> built = apply_map<Map, inverse>(given, param, options, log_det);
        store_up_to(grad_in + i,
                    apply_map_vjp<Map, inverse>(given, built, param, options, load_up_to(grad_value + i, n - i),
                                                load_up_to(grad_log_det + i, n - i), grad),
                    n - i);
    }
    join_params(lines, distance, n_params, n, grad_params);
}

template <class T>
void coupling_backward(int map, bool inverse, const MapOptions<T>& options, const T* in, const T* params,
                       const T* grad_value, const T* grad_log_det, T* grad_in, T* grad_params, int64_t rows,
                       int64_t active) noexcept {
    with_map(map, [&]<class Map>() {
        const int n_params = n_params_with<Map>(options), run = coupling_run<T>(n_params);
        alignas(64) T by_log_det[most_run];
        for (int64_t first = 0; first < rows * active; first += run) {
            const int n = int(rows * active - first < run ? rows * active - first : run);
            for (int i = 0; i < n; ++i) by_log_det[i] = grad_log_det[(first + i) / active];
            const T *p = params + first * n_params, *g = grad_value + first;
            T* grad_p = grad_params + first * n_params;
            if (inverse) {
                coupling_backward_elements<Map, true>(options, in + first, p, g, by_log_det, grad_in + first, grad_p,
                                                      n);
            } else {
                coupling_backward_elements<Map, false>(options, in + first, p, g, by_log_det, grad_in + first, grad_p,
                                                       n);
            }
        }
    });
}

}  // namespace
}  // namespace headrace
