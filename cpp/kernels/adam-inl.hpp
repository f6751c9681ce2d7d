// One step of Adam on a stretch of the weight vector, read and written once.
#pragma once

#include "../pack.hpp"
#include "../views.hpp"

namespace headrace {
namespace {

// n is a whole number of vectors; average may be null. What is 0 with gradient 0 stays 0: the padding.
template <class T>
void adam(const AdamStep<T>& s, const T* gradient, T* weights, T* mean, T* square, T* average, int64_t n) noexcept {
    for (int64_t i = 0; i < n; i += width<T>) {
        const Pack<T> g = load(gradient + i) * s.gradient_scale;
        const Pack<T> m = load(mean + i) * s.mean_decay + g * (T(1) - s.mean_decay);
        const Pack<T> v = load(square + i) * s.square_decay + g * g * (T(1) - s.square_decay);
        store(mean + i, m);
        store(square + i, v);
        const Pack<T> w = load(weights + i) * s.shrink - m * s.rate / (sqrt(v * s.square_correction) + s.epsilon);
        store(weights + i, w);
        if (average) store(average + i, load(average + i) + (w - load(average + i)) * s.average_gain);
    }
}

// In float64, so that nothing overflows.
template <class T>
double sum_squares(const T* x, int64_t n) noexcept {
    PackD sum{};
    constexpr int W = width<double>;
    for (int64_t i = 0; i < n; i += W) {
        PackD v;
        for (int k = 0; k < W; ++k) v[k] = double(x[i + k]);
        sum += v * v;
    }
    return reduce_add(sum);
}

}  // namespace
}  // namespace headrace
