// Maps of single coordinates on a tile or a small batch: they compute coordinates [begin, end) of a step from
// parameters, and gradients in the backward pass.
#pragma once

#include "../math/maps.hpp"
#include "tape-inl.hpp"

namespace headrace {
namespace {

template <class Map, bool inverse, class V, class P>
HR_FN V apply_map(V value, const P& params, const MapOptions<Scalar<V>>& options, V& log_det) {
    if constexpr (inverse) {
        return Map::inverse(value, params, options, log_det);
    } else {
        return Map::forward(value, params, options, log_det);
    }
}

template <class Map, bool inverse, class V, class P, class G>
HR_FN V apply_map_vjp(V given, V built, const P& params, const MapOptions<Scalar<V>>& options, V grad_built,
                      V grad_log_det, const G& grad) {
    if constexpr (inverse) {
        return Map::inverse_vjp(given, built, params, options, grad_built, grad_log_det, grad);
    } else {
        return Map::forward_vjp(given, built, params, options, grad_built, grad_log_det, grad);
    }
}

template <class Map, bool inverse, class T>
void tile_map(const CoordinateMap<T>& s, const TileBuffers<T>& b, const T* params, int begin, int end) {
    using V = Pack<T>;
    for (int c = begin; c < end; ++c) {
        const T* in = b.given + s.given[c] * b.height;
        T* out = b.built + s.built[c] * b.height;
        const T* p = params + int64_t(c) * s.n_params * b.height;
        for (int v = 0; v < b.vectors; ++v) {
            const int64_t i = v * width<T>;
            V log_det;
            const auto param = [&](int k) { return load(p + k * b.height + i); };
            store(out + i, apply_map<Map, inverse>(load(in + i), param, s.options, log_det));
            store(b.sum + i, load(b.sum + i) + log_det);
        }
    }
}

// Applies the map to a small batch, whose lanes are coordinates. A single coordinate (the usual case of the sequential
// direction) is broadcast and not gathered, because a vector load of recently stored scalars would wait for the stores.
template <class Map, bool inverse, class T>
void small_map(const CoordinateMap<T>& s, const SmallBuffers<T>& b, const T* params, int begin, int end) {
    using V = Pack<T>;
    for (int r = 0; r < b.rows; ++r) {
        const T* in = b.given + r * b.stride;
        T* out = b.built + r * b.stride;
        const T* p = params + r * b.stride;
        V log_det;
        if (end - begin == 1) {
            const auto param = [&](int k) { return splat<V>(p[begin * s.n_params + k]); };
            const V value = apply_map<Map, inverse>(splat<V>(in[s.given[begin]]), param, s.options, log_det);
            out[s.built[begin]] = value[0];
            b.sum[r] += log_det[0];
            continue;
        }
        for (int c = begin; c < end; c += width<T>) {
            const int n = end - c < width<T> ? end - c : width<T>;
            const auto gather = [n](auto element) {
                V v{};
                for (int i = 0; i < n; ++i) v[i] = element(i);
                return v;
            };
            const auto param = [&](int k) { return gather([&](int i) { return p[(c + i) * s.n_params + k]; }); };
            const V value =
                apply_map<Map, inverse>(gather([&](int i) { return in[s.given[c + i]]; }), param, s.options, log_det);
            for (int i = 0; i < n; ++i) {
                out[s.built[c + i]] = value[i];
                b.sum[r] += log_det[i];
            }
        }
    }
}

template <class Map, bool inverse, class T>
void tile_map_vjp(const CoordinateMap<T>& s, const Tape<T>& t, int step, T* params, int begin, int end) {
    using V = Pack<T>;
    const int64_t height = t.height;
    for (int c = begin; c < end; ++c) {
        const int64_t given = s.given[c] * height, built = s.built[c] * height;
        T* p = params + int64_t(c) * s.n_params * height;
        for (int64_t i = 0; i < int64_t(t.vectors) * width<T>; i += width<T>) {
            const auto param = [&](int k) { return load(p + k * height + i); };
            const auto grad = [&](int k, V g) { store(p + k * height + i, g); };
            const V by_given = apply_map_vjp<Map, inverse>(
                load(t.state(step) + given + i), load(t.state(step + 1) + built + i), param, s.options,
                load(t.gradient(step + 1) + built + i), load(t.grad_log_det() + i), grad);
            store(t.gradient(step) + given + i, by_given);
        }
    }
}

// ---- any map and direction of a step --------------------------------------------------------------------------------

template <class T>
HR_FN void settle(const CoordinateMap<T>& s, const TileBuffers<T>& b, const T* params, int begin, int end) {
    with_map(s.index, [&]<class Map>() {
        if (s.inverse) {
            tile_map<Map, true>(s, b, params, begin, end);
        } else {
            tile_map<Map, false>(s, b, params, begin, end);
        }
    });
}

template <class T>
HR_FN void settle(const CoordinateMap<T>& s, const SmallBuffers<T>& b, const T* params, int begin, int end) {
    with_map(s.index, [&]<class Map>() {
        if (s.inverse) {
            small_map<Map, true>(s, b, params, begin, end);
        } else {
            small_map<Map, false>(s, b, params, begin, end);
        }
    });
}

// Replaces parameters by gradients by these parameters.
template <class T>
HR_FN void settle_back(const CoordinateMap<T>& s, const Tape<T>& t, int step, T* params, int begin, int end) {
    with_map(s.index, [&]<class Map>() {
        if (s.inverse) {
            tile_map_vjp<Map, true>(s, t, step, params, begin, end);
        } else {
            tile_map_vjp<Map, false>(s, t, step, params, begin, end);
        }
    });
}

}  // namespace
}  // namespace headrace
