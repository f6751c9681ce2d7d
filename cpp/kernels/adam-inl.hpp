// One step of Adam on a part of the weight vector, which is read and written once.
#pragma once

#include "../math/adam.hpp"
#include "../math/pack.hpp"

namespace headrace {
namespace {

// Updates n weights, where n is a multiple of the vector's width; average may be null.
template <class T>
void adam(const AdamStep<T>& s, bool decays, const T* gradient, T* weights, T* mean, T* square, T* average,
          int64_t n) noexcept {
    for (int64_t i = 0; i < n; i += width<T>) {
        Pack<T> m = load(mean + i), v = load(square + i);
        const Pack<T> w = adam_moved(s, decays, load(gradient + i), load(weights + i), m, v);
        store(mean + i, m);
        store(square + i, v);
        store(weights + i, w);
        if (average) store(average + i, load(average + i) + (w - load(average + i)) * s.average_gain);
    }
}

// The sum of the squares of n values, in float64, so that it does not overflow.
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
