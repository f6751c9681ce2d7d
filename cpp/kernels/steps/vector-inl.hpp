// A run of vector maps, each with one set of parameters for all rows, in place, and its backward pass.
#pragma once

#include "../tape-inl.hpp"
#include "../vector-inl.hpp"

namespace headrace {
namespace {

template <class T>
HR_FN void run_step(const VectorStep<T>& s, const Chain<T>& chain, const Call<T>& call, const TileBuffers<T>& b) {
    vector_run_tile(s, call.ready + s.ready, chain.features, b.given + chain.context * b.height, b.height, b.vectors,
                    b.sum);
}

// The coordinates before and after transform i of a run of vector maps, in the order of the slots.
template <class T>
HR_FN VectorLines<T> vector_state(const Tape<T>& t, const VectorStep<T>& s, int step, int i) {
    const int features = t.chain.features;
    const auto between = [&](int n) { return t.at(s.tape_states + int64_t(n) * features); };
    const int64_t start = t.chain.context * t.height;
    const T* given = i == 0 ? t.state(step) + start : between(i - 1);
    T* built = i + 1 == s.transforms ? t.state(step + 1) + start : between(i);
    return {given, built, nullptr, nullptr, features, t.height};
}

template <class T>
HR_FN void record_step(const VectorStep<T>& s, const Tape<T>& t, const Call<T>& call, int step) {
    const T* const ready = call.ready + s.ready;
    with_vector_map(s.map, [&]<class Map>() {
        for (int i = 0; i < s.transforms; ++i) {
            const VectorLines<T> lines = vector_state(t, s, step, i);
            const auto params_at = [&](int64_t) { return SharedParams<T>{ready + int64_t(i) * s.n_ready}; };
            if (s.inverse) {
                vector_tile<Map, true>(lines, t.vectors, params_at, s.options, t.log_det());
            } else {
                vector_tile<Map, false>(lines, t.vectors, params_at, s.options, t.log_det());
            }
        }
    });
}

// Computes the gradient by the state before a run of vector maps, and gradients by the ready parameters, line by line
// on the tape.
template <class T>
HR_FN void backward_step(const VectorStep<T>& s, const Tape<T>& t, const Call<T>& call, const Back<T>& back, int step,
                         int) {
    carry_context(t, back, step);
    const int64_t start = t.chain.context * t.height;
    const T* grad_built = t.gradient(step + 1) + start;
    T* const grad_given = t.gradient(step) + start;  // from the second transform on, gradients are computed in place
    with_vector_map(s.map, [&]<class Map>() {
        for (int i = s.transforms - 1; i >= 0; --i, grad_built = grad_given) {
            const VectorLines<T> lines = vector_state(t, s, step, i);
            const SharedParams<T> p{call.ready + s.ready + int64_t(i) * s.n_ready};
            T* const grads = t.at(s.tape_gradients + int64_t(i) * s.n_ready);
            for (int64_t k = 0; k < int64_t(t.vectors) * width<T>; k += width<T>) {
                const auto put = [&](int n, Pack<T> g) { store(grads + n * t.height + k, g); };
                const Pack<T> by_log_det = load(t.grad_log_det() + k);
                if (s.inverse) {
                    vector_vjp<Map, true>(lines, k, p, s.options, grad_built, grad_given, by_log_det, put);
                } else {
                    vector_vjp<Map, false>(lines, k, p, s.options, grad_built, grad_given, by_log_det, put);
                }
            }
        }
    });
}

}  // namespace
}  // namespace headrace
