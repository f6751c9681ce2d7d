// A map of each coordinate with parameters that all rows share, on the lines of a tile, in place, and its backward
// pass.
#pragma once

#include "../../math/log_product.hpp"
#include "../coordinates-inl.hpp"

namespace headrace {
namespace {

template <class Map, bool inverse, int B, class T>
HR_FN void elementwise_block(const MapOptions<T>& options, const T* ready, int n_ready, int features, T* lines,
                             int64_t height, T* log_det) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    LogProduct<V> product[B];
    for (int c = 0; c < features; ++c, ready += n_ready) {
        for (int j = 0; j < B; ++j) {
            T* place = lines + c * height + j * W;
            V factor;
            if constexpr (inverse) {
                store(place, Map::ready_inverse(load(place), ready, options, factor));
            } else {
                store(place, Map::ready_forward(load(place), ready, options, factor));
            }
            product[j].mantissa *= factor;
        }
        if (c % Map::ready_factors == Map::ready_factors - 1)
            for (int j = 0; j < B; ++j) product[j].rescale();
    }
    for (int j = 0; j < B; ++j) {
        product[j].rescale();
        const V total = product[j].log();
        store(log_det + j * W, load(log_det + j * W) + (inverse ? -total : total));
    }
}

// Applies the map to lines of a tile, from the line of the first coordinate on.
template <class T>
HR_FN void run_ready_map(const ReadyMap<T>& m, int features, T* lines, const TileBuffers<T>& b) {
    with_map(m.index, [&]<class Map>() {
        if constexpr (requires { Map::ready_factors; }) {
            const auto run = [&]<bool inverse>() {
                int v = 0;
                for (; v + 2 <= b.vectors; v += 2)
                    elementwise_block<Map, inverse, 2>(m.options, m.ready, m.n_ready, features, lines + v * width<T>,
                                                       b.height, b.sum + v * width<T>);
                for (; v < b.vectors; ++v)
                    elementwise_block<Map, inverse, 1>(m.options, m.ready, m.n_ready, features, lines + v * width<T>,
                                                       b.height, b.sum + v * width<T>);
            };
            if (m.inverse) {
                run.template operator()<true>();
            } else {
                run.template operator()<false>();
            }
        }
    });
}

template <class T>
HR_FN void run_step(const ElementwiseStep<T>& s, const Chain<T>& chain, const Call<T>& call, const TileBuffers<T>& b) {
    run_ready_map(ready_map(s, call.ready), chain.features, b.given + chain.context * b.height, b);
}

// Records the step with raw parameters for every row, which the backward pass replaces by gradients.
template <class T>
HR_FN void record_step(const ElementwiseStep<T>& s, const Tape<T>& t, const Call<T>& call, int step) {
    T* const raw = t.at(s.tape_raw);
    for (int k = 0; k < s.map.n * s.map.n_params; ++k)
        for (int64_t i = 0; i < t.height; i += width<T>)
            store(raw + k * t.height + i, splat<Pack<T>>(call.weights[s.weights + k]));
    settle(s.map, t.buffers(step), raw, 0, s.map.n);
}

template <class T>
HR_FN void backward_step(const ElementwiseStep<T>& s, const Tape<T>& t, const Call<T>&, const Back<T>& back, int step,
                         int) {
    carry_context(t, back, step);
    settle_back(s.map, t, step, t.at(s.tape_raw), 0, s.map.n);
}

}  // namespace
}  // namespace headrace
