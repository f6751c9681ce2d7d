// A base density with parameters, or with columns of different kinds. The step leaves coordinates unchanged; it
// computes ready parameters of the density, and the gradient by raw parameters. The code for the ends of a chain
// evaluates the density and samples from it.
#pragma once

#include <cstdint>

#include "../math/density.hpp"

namespace headrace {

template <class T>
struct DensityStep {
    static constexpr bool in_place = true;

    int components;               // number of components of a mixture over whole rows; 0: columns are independent
    const ColumnDensity* column;  // density of each slot, where columns are independent
    const int* coordinate;        // coordinate index of each slot
    const int* raw;               // index of each slot's raw parameter, -1: none
    int n_raw;
    int64_t ready;        // start of the step's part of the chain's ready parameters
    int64_t weights;      // start of the raw parameters in the flow's weight vector; -1: raw parameters are `fixed`
    const double* fixed;  // raw parameters that are not weights
    int64_t tape_grads;   // first line of the tape with gradients by the raw parameters
};

namespace {

template <class T>
HR_FN int ready_parts(const DensityStep<T>& s, int features) {
    return s.components > 0 ? s.components : features;
}

template <class T, class In, class Out>
HR_FN void prepare_part(const DensityStep<T>& s, int part, int features, const In& weights, const Out& ready) {
    const auto raw = [&](int k) { return s.weights < 0 ? s.fixed[k] : double(weights[s.weights + k]); };
    const auto out = ready + s.ready;
    if (s.components == 0) {
        double made[column_ready] = {};
        if (s.raw[part] >= 0) prepare_student(raw(s.raw[part]), made);
        for (int i = 0; i < column_ready; ++i) out[part * column_ready + i] = T(made[i]);
        return;
    }
    const int n = s.components, k = part;
    double most = raw(0), sum = 0;
    HR_ROLLED
    for (int i = 1; i < n; ++i) most = raw(i) > most ? raw(i) : most;
    HR_ROLLED
    for (int i = 0; i < n; ++i) sum += exp(raw(i) - most);
    const double log_weight = raw(k) - most - log(sum);
    double constant = log_weight - half_log_two_pi * features;
    HR_ROLLED
    for (int slot = 0; slot < features; ++slot) {
        const int place = n + k * features + s.coordinate[slot];
        const double log_scale = raw(place + n * features);
        const auto numbers = out + 2 * n + 2 * (int64_t(k) * features + slot);
        numbers[0] = T(raw(place));
        numbers[1] = T(exp(-log_scale));
        constant -= log_scale;
    }
    out[2 * k] = T(constant);
    out[2 * k + 1] = T(exp(log_weight));
}

template <class T>
HR_FN int n_density_ready(const DensityStep<T>& s, int features) {
    return s.components > 0 ? 2 * s.components * (1 + features) : column_ready * features;
}

// The log-density of a row, whose coordinate in `slot` is at(slot).
template <class V, class T, class At>
HR_FN V log_density(const DensityStep<T>& s, const T* all_ready, int features, const At& at) {
    const T* const ready = all_ready + s.ready;
    if (s.components > 0) return mixture_log_density<V>(ready, s.components, features, at);
    V sum{};
    for (int slot = 0; slot < features; ++slot)
        sum += column_log_density(s.column[slot], V(at(slot)), ready + slot * column_ready);
    return sum;
}

// Calls add(slot, the derivative of the log-density by the coordinate in `slot`, or one summand of it).
template <class V, class T, class At, class Add>
HR_FN void density_slopes(const DensityStep<T>& s, const T* all_ready, int features, const At& at, const Add& add) {
    const T* const ready = all_ready + s.ready;
    if (s.components == 0) {
        for (int slot = 0; slot < features; ++slot)
            add(slot, column_slope(s.column[slot], V(at(slot)), ready + slot * column_ready));
        return;
    }
    const V total = mixture_log_density<V>(ready, s.components, features, at);
    for (int k = 0; k < s.components; ++k) {
        if (!(ready[2 * k + 1] > T(0))) continue;
        const V share = exp(component_log_density<V>(ready, s.components, k, features, at) - total);
        const T* const numbers = ready + 2 * s.components + 2 * int64_t(k) * features;
        for (int slot = 0; slot < features; ++slot) {
            const T inverse = numbers[2 * slot + 1];
            add(slot, V((V(at(slot)) - numbers[2 * slot]) * (-inverse * inverse) * share));
        }
    }
}

// Calls put(k, the derivative of the log-density by raw parameter k).
template <class V, class T, class At, class Put>
HR_FN void density_by_raw(const DensityStep<T>& s, const T* all_ready, int features, const At& at, const Put& put) {
    const T* const ready = all_ready + s.ready;
    if (s.components == 0) {
        for (int slot = 0; slot < features; ++slot)
            if (s.raw[slot] >= 0) put(s.raw[slot], student_by_log_df(V(at(slot)), ready + slot * column_ready));
        return;
    }
    const int n = s.components;
    const V total = mixture_log_density<V>(ready, n, features, at);
    for (int k = 0; k < n; ++k) {
        const T weight = ready[2 * k + 1];
        V share{};
        if (weight > T(0)) share = exp(component_log_density<V>(ready, n, k, features, at) - total);
        put(k, share - weight);
        const T* const numbers = ready + 2 * n + 2 * int64_t(k) * features;
        for (int slot = 0; slot < features; ++slot) {
            const int place = n + k * features + s.coordinate[slot];
            const T inverse = numbers[2 * slot + 1];
            const V u = (V(at(slot)) - numbers[2 * slot]) * inverse;
            put(place, weight > T(0) ? V(u * inverse * share) : V{});
            put(place + n * features, weight > T(0) ? V((u * u - T(1)) * share) : V{});
        }
    }
}

template <class T>
HR_FN DensityStep<double> in_float64(const DensityStep<T>& s) {
    return {s.components, s.column, s.coordinate, s.raw, s.n_raw, s.ready, s.weights, s.fixed, s.tape_grads};
}

template <class T, class F>
HR_FN void for_arrays(DensityStep<T>& s, int features, const F& f) {
    f(s.column, s.components > 0 ? 0 : features);
    f(s.coordinate, features);
    f(s.raw, features);
    f(s.fixed, s.weights < 0 ? s.n_raw : 0);
}

}  // namespace
}  // namespace headrace
