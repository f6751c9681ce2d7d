// The maps alone, on row-major elements with parameters from anybody's network: hr.ops.coupling_forward and _inverse.
//
// Elements are taken in runs of whole rows that stay in L1: parameters are split into one line each, the map runs over
// lanes, and log-derivatives are summed row by row in ascending order.
#pragma once

#include "../maps.hpp"
#include "../pack.hpp"

namespace headrace {
namespace {

constexpr int coupling_run = 512;  // elements of a run; a longer row is taken in pieces

template <int N, class T>
HR_FN void split_params(const T* params, int n, T (&lines)[N][coupling_run]) {
    if constexpr (N == 2) {
        using V = Pack<T>;
        constexpr int W = width<T>;
        using All = typename MakeIndices<W>::type;
        int i = 0;
        for (; i + W <= n; i += W) {
            const V a = load(params + 2 * i), b = load(params + 2 * i + W);
            [&]<int... I>(Indices<I...>) {
                store(lines[0] + i, V(__builtin_shufflevector(a, b, (2 * I)...)));
                store(lines[1] + i, V(__builtin_shufflevector(a, b, (2 * I + 1)...)));
            }(All{});
        }
        for (; i < n; ++i)
            for (int k = 0; k < 2; ++k) lines[k][i] = params[2 * i + k];
    } else {
        for (int i = 0; i < n; ++i)
            for (int k = 0; k < N; ++k) lines[k][i] = params[i * N + k];
    }
}

template <class Map, bool inverse, class T>
void coupling_elements(const MapOptions<T>& options, const T* in, const T* params, T* value, int n, T* log_det) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    alignas(64) T lines[Map::n_params][coupling_run];
    split_params(params, n, lines);
    for (int i = 0; i < n; i += W) {
        const auto param = [&](int k) { return load(lines[k] + i); };
        V element{}, derivative;
        if (i + W <= n) {
            element = load(in + i);
        } else {
            for (int j = 0; i + j < n; ++j) element[j] = in[i + j];
        }
        element = apply_map<Map, inverse>(element, param, options, derivative);
        store(log_det + i, derivative);
        if (i + W <= n) {
            store(value + i, element);
        } else {
            for (int j = 0; i + j < n; ++j) value[i + j] = element[j];
        }
    }
}

// A sum whose order depends on n alone.
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
        alignas(64) T derivative[coupling_run];
        const auto elements = [&](int64_t first, int n) {
            const T* p = params + first * Map::n_params;
            if (inverse) {
                coupling_elements<Map, true>(options, in + first, p, value + first, n, derivative);
            } else {
                coupling_elements<Map, false>(options, in + first, p, value + first, n, derivative);
            }
        };
        if (active == 0) {
            for (int64_t r = 0; r < rows; ++r) log_det[r] = T(0);
        } else if (active <= coupling_run) {
            const int64_t rows_of_run = coupling_run / active;
            for (int64_t r = 0; r < rows; r += rows_of_run) {
                const int64_t n = rows - r < rows_of_run ? rows - r : rows_of_run;
                elements(r * active, int(n * active));
                for (int64_t i = 0; i < n; ++i) log_det[r + i] = sum_run(derivative + i * active, int(active));
            }
        } else {
            for (int64_t r = 0; r < rows; ++r) {
                T sum = 0;
                for (int64_t c = 0; c < active; c += coupling_run) {
                    const int n = int(active - c < coupling_run ? active - c : coupling_run);
                    elements(r * active + c, n);
                    sum += sum_run(derivative, n);
                }
                log_det[r] = sum;
            }
        }
    });
}

}  // namespace
}  // namespace headrace
