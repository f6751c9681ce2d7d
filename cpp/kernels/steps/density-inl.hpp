// The backward pass of a base density: the gradient by its parameters. The step leaves coordinates unchanged.
#pragma once

#include "../tape-inl.hpp"

namespace headrace {
namespace {

template <class T, class Buffers>
HR_FN void run_step(const DensityStep<T>&, const Chain<T>&, const Call<T>&, const Buffers&) {}

template <class T>
HR_FN void record_step(const DensityStep<T>&, const Tape<T>& t, const Call<T>&, int step) {
    const int64_t begin = t.chain.context * t.height, end = t.slots() * t.height;
    for (int64_t i = begin; i < end; i += width<T>) store(t.state(step + 1) + i, load(t.state(step) + i));
}

template <class T>
HR_FN void backward_step(const DensityStep<T>& s, const Tape<T>& t, const Call<T>& call, const Back<T>& back, int step,
                         int) {
    const int64_t end = t.slots() * t.height;
    for (int64_t i = 0; i < end; i += width<T>) store(t.gradient(step) + i, load(t.gradient(step + 1) + i));
    if (s.weights < 0) return;
    const T sign = call.inverse ? T(1) : T(-1);  // the sign of the log-density in the current gradient
    for (int64_t i = 0; i < int64_t(t.vectors) * width<T>; i += width<T>) {
        const T* const z = t.state(step) + t.chain.context * t.height + i;
        const auto by_log_prob = load(t.grad_log_det() + i) * (back.from.of_log_prob ? sign : T(0));
        density_by_raw<Pack<T>>(
            s, call.ready, t.chain.features, [&](int slot) { return load(z + slot * t.height); },
            [&](int k, Pack<T> slope) { store(t.at(s.tape_grads + k) + i, slope * by_log_prob); });
    }
}

}  // namespace
}  // namespace headrace
