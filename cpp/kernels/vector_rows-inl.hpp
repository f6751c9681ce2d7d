// Vector maps without a program, on row-major arrays with parameters from any source, for hr.ops.planar_forward,
// hr.ops.radial_inverse and similar functions.
#pragma once

#include "transpose-inl.hpp"
#include "vector-inl.hpp"

namespace headrace {
namespace {

// Copies rows [row, row + rows) of an array (all, columns) to lines. store_rows copies lines back.
template <class T>
HR_FN void load_rows(const T* array, int columns, int64_t row, int rows, T* lines, int64_t height) {
    const auto line_of = [&](int r) { return reinterpret_cast<const char*>(array + (row + r) * columns); };
    rows_to_lines<T>(line_of, true, columns, static_cast<const int*>(nullptr), nullptr, nullptr, rows, lines, height);
}

template <class T>
HR_FN void store_rows(const T* lines, int64_t height, int columns, int64_t row, int rows, T* array) {
    lines_to_rows(lines, height, columns, static_cast<const int*>(nullptr), nullptr, nullptr, rows,
                  array + row * columns);
}

template <class T>
HR_FN void load_column(const T* array, int64_t row, int rows, T* line) {
    for (int r = 0; r < vector_rows_of_tile; ++r) line[r] = r < rows ? array[row + r] : T(0);
}

template <class T>
void vector_rows(const VectorRows<T>& a, int64_t row, int rows, T* scratch) noexcept {
    constexpr int64_t height = vector_rows_of_tile;
    const int vectors = (rows + width<T> - 1) / width<T>;
    T* const z = scratch;
    T* const raw = z + a.features * height;
    T log_det[height] = {};
    load_rows(a.value, a.features, row, rows, z, height);
    if (a.ready) {
        VectorStep<T> step{};
        step.map = a.map;
        step.inverse = a.inverse;
        step.options = a.options;
        step.transforms = 1;
        vector_run_tile(step, a.ready, a.features, z, height, vectors, log_det);
    } else {
        T* const ready = raw + a.n_raw * height;
        load_rows(a.params, a.n_raw, row, rows, raw, height);
        const VectorLines<T> lines{z, z, nullptr, nullptr, a.features, height};
        with_vector_map(a.map, [&]<class Map>() {
            if (a.inverse) {
                vector_rows_tile<Map, true>(lines, a.options, vectors, raw, ready, log_det);
            } else {
                vector_rows_tile<Map, false>(lines, a.options, vectors, raw, ready, log_det);
            }
        });
    }
    store_rows(z, height, a.features, row, rows, a.result);
    for (int r = 0; r < rows; ++r) a.log_det[row + r] = log_det[r];
}

// The backward pass with one set of parameters for all rows: gradients by the ready parameters, summed over the rows of
// the tile, are added to `sums`.
template <class Map, bool inverse, class T>
HR_FN void shared_vjp(const VectorRows<T>& a, const VectorLines<T>& lines, int rows, const T* grad_built, T* grad_given,
                      const T* grad_log_det, T* grads, double* sums) {
    const int64_t height = lines.height;
    const SharedParams<T> p{a.ready};
    for (int64_t i = 0; i < rows; i += width<T>)
        vector_vjp<Map, inverse>(lines, i, p, a.options, grad_built, grad_given, load(grad_log_det + i),
                                 [&](int k, Pack<T> g) { store(grads + k * height + i, g); });
    for (int k = 0; k < Map::n_ready(a.features); ++k)
        for (int r = 0; r < rows; ++r) sums[k] += double(grads[k * height + r]);
}

template <class T>
void vector_rows_backward(const VectorRows<T>& a, const VectorRowsBack<T>& back, int64_t row, int rows, double* sums,
                          T* scratch) noexcept {
    constexpr int64_t height = vector_rows_of_tile;
    const int vectors = (rows + width<T> - 1) / width<T>;
    const int64_t lines_of_state = a.features * height;
    T *const given = scratch, *const built = given + lines_of_state, *const grad_built = built + lines_of_state,
             *const grad_given = grad_built + lines_of_state, *const raw = grad_given + lines_of_state,
             *const ready = raw + a.n_raw * height;
    T log_det[height] = {}, grad_log_det[height];
    load_rows(a.value, a.features, row, rows, given, height);
    load_rows(back.grad_value, a.features, row, rows, grad_built, height);
    load_column(back.grad_log_det, row, rows, grad_log_det);
    if (!a.ready) load_rows(a.params, a.n_raw, row, rows, raw, height);
    const VectorLines<T> lines{given, built, nullptr, nullptr, a.features, height};
    with_vector_map(a.map, [&]<class Map>() {
        const auto both_ways = [&]<bool inverse>() {
            if (a.ready) {
                const auto params_at = [&](int64_t) { return SharedParams<T>{a.ready}; };
                vector_tile<Map, inverse>(lines, vectors, params_at, a.options, log_det);
                shared_vjp<Map, inverse>(a, lines, rows, grad_built, grad_given, grad_log_det, ready, sums);
            } else {
                vector_rows_tile<Map, inverse>(lines, a.options, vectors, raw, ready, log_det);
                vector_rows_vjp_tile<Map, inverse>(lines, a.options, vectors, raw, ready, grad_built, grad_given,
                                                   grad_log_det);
            }
        };
        if (a.inverse) {
            both_ways.template operator()<true>();
        } else {
            both_ways.template operator()<false>();
        }
    });
    store_rows(grad_given, height, a.features, row, rows, back.grad_input);
    if (!a.ready) store_rows(raw, height, a.n_raw, row, rows, back.grad_params);
}

}  // namespace
}  // namespace headrace
