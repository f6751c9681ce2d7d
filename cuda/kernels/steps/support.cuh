// Supports of columns at the data end of a chain. Lanes are rows, and columns are divided among warps. See
// cpp/kernels/chain-inl.hpp.
#pragma once

#include "../tile.cuh"

namespace headrace {
namespace {

// The scaled and shifted value of a column, before its support is applied.
template <class T>
__device__ double stored(const Chain<T>& chain, int column, T value) {
    return chain.store_scale ? double(value) * chain.store_scale[column] + chain.store_shift[column] : double(value);
}

// Loads rows of the input to lines, and adds the terms of the support to each warp's share of the log-determinant.
template <class T, bool in_shared>
__device__ void load_supported(const Team& team, const Chain<T>& chain, const Call<T>& call, int64_t row, int rows,
                               const Lines<T, in_shared>& out, T& log_det) {
    if (team.lane >= rows) return;
    HR_ROLLED_FLOAT64
    for (int c = team.first_of_sum(); c < chain.features; c += team.sum_warps()) {
        const Supported made =
            from_row(chain.load_support[c], element(call.input, row + team.lane, c), call.input.is_double);
        log_det += T(made.log_det);
        out.at(chain.load_slot[c], team.lane) =
            T(chain.load_shift ? (made.value - chain.load_shift[c]) * chain.load_scale[c] : made.value);
    }
}

// Adds the terms for mapping columns to their support to each warp's share of the log-determinant.
template <class T, bool in_shared>
__device__ void add_store_support(const Team& team, const Chain<T>& chain, const Lines<T, in_shared>& z, T& log_det) {
    if (!chain.store_support) return;
    HR_ROLLED_FLOAT64
    for (int c = team.first_of_sum(); c < chain.features; c += team.sum_warps()) {
        const Supported made =
            to_support(chain.store_support[c], stored(chain, c, z.at(chain.store_slot[c], team.lane)));
        log_det += T(made.log_det) + poison(T(made.value));
    }
}

// Turns gradients by stored values, which are already multiplied by the scale, into gradients by the values before the
// support.
template <class T, class State>
__device__ void back_from_store_support(const Team& team, const Chain<T>& chain, const State& z, const State& gradient,
                                        T grad_log_det) {
    if (!chain.store_support) return;
    HR_ROLLED_FLOAT64
    for (int c = team.warp; c < chain.features; c += team.warps) {
        T& g = gradient.at(chain.store_slot[c], team.lane);
        const Supported made =
            to_support(chain.store_support[c], stored(chain, c, z.at(chain.store_slot[c], team.lane)));
        const double scale = chain.store_scale ? chain.store_scale[c] : 1.0;
        g = T(double(g) * made.slope + double(grad_log_det) * made.bend * scale);
    }
    team.sync();
}

// Computes gradients by the input from gradients by the loaded values.
template <class T, class State>
__device__ void back_to_supported_input(const Team& team, const Chain<T>& chain, const Call<T>& call,
                                        const State& gradient, int64_t row, int rows, T grad_log_det, const T* bad_rows,
                                        T* out) {
    if (team.lane >= rows) return;
    HR_ROLLED_FLOAT64
    for (int c = team.warp; c < chain.features; c += team.warps) {
        double g = gradient.at(chain.load_slot[c], team.lane);
        if (chain.load_scale) g *= chain.load_scale[c];
        const Supported made = from_support(chain.load_support[c], element(call.input, row + team.lane, c));
        out[(row + team.lane) * chain.features + c] =
            T(g * made.slope + double(grad_log_det) * made.bend) + bad_rows[team.lane];
    }
}

// Runs a support that is a step of a chain, not part of its data end.
template <class T, bool in_shared>
__device__ T run_in_place(const Team& team, const SupportStep<T>& s, const Lines<T, in_shared>& given,
                          const Lines<T, in_shared>& built, int context, int features) {
    T log_det = 0;
    HR_ROLLED_FLOAT64
    for (int c = team.first_of_sum(); c < features; c += team.sum_warps()) {
        const Supported made = supported(s, c, double(given.at(context + c, team.lane)));
        built.at(context + c, team.lane) = T(made.value);
        log_det += T(made.log_det);
    }
    return log_det;
}

template <class T, class State>
__device__ void back_in_place(const Team& team, const SupportStep<T>& s, const State& given, const State&,
                              const State& after, const State& before, int context, int features, T grad_log_det) {
    HR_ROLLED_FLOAT64
    for (int c = context + team.warp; c < context + features; c += team.warps) {
        const Supported made = supported(s, c - context, double(given.at(c, team.lane)));
        before.at(c, team.lane) = T(double(after.at(c, team.lane)) * made.slope + double(grad_log_det) * made.bend);
    }
}

}  // namespace
}  // namespace headrace
