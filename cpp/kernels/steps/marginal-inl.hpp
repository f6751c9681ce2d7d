// A map of each coordinate with fixed parameters, in place, and its backward pass.
#pragma once

#include "elementwise-inl.hpp"

namespace headrace {
namespace {

template <class T>
HR_FN void run_step(const MarginalStep<T>& s, const Chain<T>& chain, const Call<T>&, const TileBuffers<T>& b) {
    run_ready_map(s.map, chain.features, b.given + chain.context * b.height, b);
}

template <class T>
HR_FN void run_step(const MarginalStep<T>& s, const Chain<T>& chain, const Call<T>&, const SmallBuffers<T>& b) {
    const ReadyMap<T>& m = s.map;
    with_map(m.index, [&]<class Map>() {
        if constexpr (requires { Map::ready_factors; })
            for (int r = 0; r < b.rows; ++r) {
                T* const x = b.given + r * b.stride + chain.context;
                LogProduct<T> product;
                for (int c = 0; c < chain.features; ++c) {
                    const T* const ready = m.ready + int64_t(c) * m.n_ready;
                    T factor;
                    x[c] = m.inverse ? Map::ready_inverse(x[c], ready, m.options, factor)
                                     : Map::ready_forward(x[c], ready, m.options, factor);
                    product.mantissa *= factor;
                    product.rescale();
                }
                b.sum[r] += m.inverse ? -product.log() : product.log();
            }
    });
}

template <class T>
HR_FN void record_step(const MarginalStep<T>& s, const Tape<T>& t, const Call<T>&, int step) {
    const TileBuffers<T> b = t.buffers(step);
    const int64_t first = t.chain.context * t.height;
    for (int64_t i = 0; i < t.chain.features * t.height; i += width<T>)
        store(b.built + first + i, load(b.given + first + i));
    run_ready_map(s.map, t.chain.features, b.built + first, b);
}

template <class T>
HR_FN void backward_step(const MarginalStep<T>& s, const Tape<T>& t, const Call<T>&, const Back<T>& back, int step,
                         int) {
    carry_context(t, back, step);
    const ReadyMap<T>& m = s.map;
    const T *after = t.gradient(step + 1), *given = t.state(step);
    T* const before = t.gradient(step);
    with_map(m.index, [&]<class Map>() {
        if constexpr (requires { Map::has_ready_derivative; })
            for (int c = 0; c < t.chain.features; ++c) {
                const T* const ready = m.ready + int64_t(c) * m.n_ready;
                const int64_t line = (t.chain.context + c) * t.height;
                for (int64_t i = 0; i < int64_t(t.vectors) * width<T>; i += width<T>) {
                    const Pack<T> x = load(given + line + i);
                    Pack<T> bend;
                    const Pack<T> slope = m.inverse
                                              ? Map::ready_derivative(Direction<true>{}, x, ready, m.options, bend)
                                              : Map::ready_derivative(Direction<false>{}, x, ready, m.options, bend);
                    store(before + line + i, load(after + line + i) * slope + load(t.grad_log_det() + i) * bend);
                }
            }
    });
}

}  // namespace
}  // namespace headrace
