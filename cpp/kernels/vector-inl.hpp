// Vector maps (planar, radial) over the lines of a tile: a run of transforms, each with one set of parameters for all
// rows, or one transform with parameters for each row, from a network or from a caller of hr.ops.
//
// A run of transforms reads and writes each coordinate once for each transform: while one transform moves a coordinate,
// the next transform adds the new value to its sum over coordinates. Determinants are multiplied and rescaled by their
// exponents, so that a row needs one logarithm for a run.
#pragma once

#include "../core/views.hpp"
#include "../math/log_product.hpp"
#include "../math/vector_maps.hpp"

namespace headrace {
namespace {

// The number of vectors of rows whose chains of dependent operations overlap: all vectors of a full tile, or fewer in a
// tile of fewer rows.
constexpr int vectors_at_once = max_tile_vectors, fewer_vectors_at_once = 2;

// An accessor of parameter k of the rows in vector j: equal for all rows, or from a line.
template <class T>
struct SharedParams {
    const T* p;
    HR_FN Pack<T> operator()(int k, int = 0) const { return p[k] - Pack<T>{}; }
};
template <class T>
struct RowParams {
    const T* lines;
    int64_t height;
    HR_FN Pack<T> operator()(int k, int j = 0) const { return load(lines + k * height + j * width<T>); }
};

// Bounds of a product of factors that are each between 1 and a given limit.
template <class T>
struct ProductBounds {
    T low = 1, high = 1;

    // Whether the product with another factor might leave the range of normal numbers.
    HR_FN bool leaves(T limit) const {
        constexpr T range = sizeof(T) == 4 ? T(1e30) : T(1e270);
        return !(high * limit < range && low * limit > 1 / range);  // true for a NaN
    }
    HR_FN void multiply(T limit) {
        if (limit < T(1)) {
            low *= limit;
        } else {
            high *= limit;
        }
    }
};

template <class Map, bool inverse, int B, class V, class P>
HR_FN void vector_amounts(const V (&sum)[B], const P& p, int features, const MapOptions<Scalar<V>>& options,
                          V (&amount)[B], V (&factor)[B][Map::factors]) {
    if constexpr (inverse) {
        Map::inverse(sum, p, features, options, amount, factor);
    } else {
        Map::forward(sum, p, features, options, amount, factor);
    }
}

// Moves B vectors of rows from `lane` on through all transforms of a run, in place.
template <class Map, bool inverse, int B, class T>
void vector_run_block(const VectorStep<T>& s, const T* ready, int features, T* lines, int64_t height, T* log_det) {
    using V = Pack<T>;
    constexpr int W = width<T>, factors = Map::factors;
    LogProduct<V> product[B][factors];
    ProductBounds<T> bounds;
    V sum[B];
    for (int j = 0; j < B; ++j) sum[j] = Map::template start<V>(SharedParams<T>{ready}, features);
    for (int c = 0; c < features; ++c)
        for (int j = 0; j < B; ++j)
            sum[j] = Map::accumulate(sum[j], load(lines + c * height + j * W), SharedParams<T>{ready}, c, features);
    for (int k = 0; k < s.transforms; ++k) {
        const SharedParams<T> p{ready + int64_t(k) * s.n_ready}, next{p.p + (k + 1 < s.transforms ? s.n_ready : 0)};
        V amount[B], factor[B][factors];
        vector_amounts<Map, inverse>(sum, p, features, s.options, amount, factor);
        const T limit = Map::limit(p.p, features);
        if (bounds.leaves(limit)) {
            bounds = {};
            for (int j = 0; j < B; ++j)
                for (int f = 0; f < factors; ++f) product[j][f].rescale();
        }
        bounds.multiply(limit);
        for (int j = 0; j < B; ++j) {
            for (int f = 0; f < factors; ++f) product[j][f].mantissa *= factor[j][f];
            sum[j] = Map::template start<V>(next, features);
        }
        for (int c = 0; c < features; ++c)
            for (int j = 0; j < B; ++j) {
                T* place = lines + c * height + j * W;
                const V moved = Map::move(load(place), amount[j], p, c, features);
                store(place, moved);
                sum[j] = Map::accumulate(sum[j], moved, next, c, features);
            }
    }
    for (int j = 0; j < B; ++j) {
        V total{};
        for (int f = 0; f < factors; ++f) total = fma(product[j][f].log(), T(Map::power(f, features)), total);
        T* place = log_det + j * W;
        store(place, load(place) + (inverse ? -total : total));
    }
}

// Moves the coordinates in `lines` of a tile through a run of transforms, and adds log-determinants to log_det.
template <class T>
HR_FN void vector_run_tile(const VectorStep<T>& s, const T* ready, int features, T* lines, int64_t height, int vectors,
                           T* log_det) {
    with_vector_map(s.map, [&]<class Map>() {
        const auto run = [&]<bool inverse>() {
            int v = 0;
            const auto blocks_of = [&]<int B>() {
                for (; v + B <= vectors; v += B)
                    vector_run_block<Map, inverse, B>(s, ready, features, lines + v * width<T>, height,
                                                      log_det + v * width<T>);
            };
            blocks_of.template operator()<vectors_at_once>();
            blocks_of.template operator()<fewer_vectors_at_once>();
            blocks_of.template operator()<1>();
        };
        if (s.inverse) {
            run.template operator()<true>();
        } else {
            run.template operator()<false>();
        }
    });
}

// The lines of one transform's coordinates, [slot][height].
template <class T>
struct VectorLines {
    const T* given;
    T* built;
    const int *given_slot, *built_slot;  // slots of the coordinates; null: they are adjacent
    int features;
    int64_t height;

    HR_FN int64_t given_line(int c) const { return (given_slot ? given_slot[c] : c) * height; }
    HR_FN int64_t built_line(int c) const { return (built_slot ? built_slot[c] : c) * height; }
};

// Computes one transform for B vectors of rows from `lane` on, out of place; log-determinants are added to log_det.
template <class Map, bool inverse, int B, class T, class P>
HR_FN void vector_block(const VectorLines<T>& lines, int64_t lane, const P& p, const MapOptions<T>& options,
                        T* log_det) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    const int features = lines.features;
    V sum[B], amount[B], factor[B][Map::factors];
    for (int j = 0; j < B; ++j) sum[j] = Map::template start<V>(p, features, j);
    for (int c = 0; c < features; ++c) {
        const T* given = lines.given + lines.given_line(c) + lane;
        for (int j = 0; j < B; ++j) sum[j] = Map::accumulate(sum[j], load(given + j * W), p, c, features, j);
    }
    vector_amounts<Map, inverse>(sum, p, features, options, amount, factor);
    for (int c = 0; c < features; ++c) {
        const T* given = lines.given + lines.given_line(c) + lane;
        T* built = lines.built + lines.built_line(c) + lane;
        for (int j = 0; j < B; ++j) store(built + j * W, Map::move(load(given + j * W), amount[j], p, c, features, j));
    }
    for (int j = 0; j < B; ++j) {
        V total{};
        for (int f = 0; f < Map::factors; ++f) total = fma(log(factor[j][f]), T(Map::power(f, features)), total);
        T* place = log_det + lane + j * W;
        store(place, load(place) + (inverse ? -total : total));
    }
}

// Computes one transform for a tile; params_at(lane) has the parameters of the rows from `lane` on.
template <class Map, bool inverse, class T, class ParamsAt>
HR_FN void vector_tile(const VectorLines<T>& lines, int vectors, const ParamsAt& params_at,
                       const MapOptions<T>& options, T* log_det) {
    constexpr int B = 4;  // number of vectors of a tile in the backward pass
    int v = 0;
    for (; v + B <= vectors; v += B) {
        const int64_t lane = v * width<T>;
        vector_block<Map, inverse, B>(lines, lane, params_at(lane), options, log_det);
    }
    for (; v < vectors; ++v) {
        const int64_t lane = v * width<T>;
        vector_block<Map, inverse, 1>(lines, lane, params_at(lane), options, log_det);
    }
}

// Computes the gradient by the input from the gradient by the output, both in the slots of their coordinates. put(k,
// gradient) receives the gradient by ready parameter k.
template <class Map, bool inverse, class T, class P, class Put>
HR_FN void vector_vjp(const VectorLines<T>& lines, int64_t lane, const P& p, const MapOptions<T>& options,
                      const T* grad_built, T* grad_given, Pack<T> grad_log_det, const Put& put) {
    using V = Pack<T>;
    const int features = lines.features;
    const auto grad_at = [&](int c) { return load(grad_built + lines.built_line(c) + lane); };
    auto sums = Map::reduced(Map::template start<V>(p, features));
    for (int c = 0; c < features; ++c) {
        const V given = load(lines.given + lines.given_line(c) + lane),
                built = load(lines.built + lines.built_line(c) + lane);
        Map::reduce(sums, given, inverse ? built : given, grad_at(c), p, c, features);
    }
    const auto shared = Map::template backward<inverse>(sums, grad_log_det, p, features, options, put);
    for (int c = 0; c < features; ++c)
        store(grad_given + lines.given_line(c) + lane,
              Map::spread(shared, load(lines.given + lines.given_line(c) + lane), grad_at(c), p, c, features, put));
}

// Converts raw parameters of each row to ready parameters, one line for each.
template <class Map, class T>
HR_FN void prepare_rows(const T* raw, T* ready, int64_t height, int features) {
    Map::template prepare<Pack<T>>(RowParams<T>{raw, height}, features,
                                   [&](int k, Pack<T> value) { store(ready + k * height, value); });
}

// Converts gradients by ready parameters to gradients by raw parameters, which replace the raw parameters.
template <class Map, class T>
HR_FN void prepare_rows_vjp(T* raw, const T* grad_ready, int64_t height, int features) {
    Map::template prepare_vjp<Pack<T>>(RowParams<T>{raw, height}, RowParams<T>{grad_ready, height}, features,
                                       [&](int k, Pack<T> value) { store(raw + k * height, value); });
}

// Computes a transform whose raw parameters are lines `raw` of the tile; `ready` is a buffer for ready parameters.
template <class Map, bool inverse, class T>
void vector_rows_tile(const VectorLines<T>& lines, const MapOptions<T>& options, int vectors, const T* raw, T* ready,
                      T* log_det) {
    for (int64_t i = 0; i < int64_t(vectors) * width<T>; i += width<T>)
        prepare_rows<Map>(raw + i, ready + i, lines.height, lines.features);
    const auto params_at = [&](int64_t lane) { return RowParams<T>{ready + lane, lines.height}; };
    vector_tile<Map, inverse>(lines, vectors, params_at, options, log_det);
}

// The backward pass of a transform with raw parameters for each row: gradients replace the raw parameters, and ready
// parameters are overwritten.
template <class Map, bool inverse, class T>
void vector_rows_vjp_tile(const VectorLines<T>& lines, const MapOptions<T>& options, int vectors, T* raw, T* ready,
                          const T* grad_built, T* grad_given, const T* grad_log_det) {
    for (int64_t i = 0; i < int64_t(vectors) * width<T>; i += width<T>) {
        const RowParams<T> p{ready + i, lines.height};
        const auto put = [&](int k, Pack<T> g) { store(ready + i + k * lines.height, g); };
        vector_vjp<Map, inverse>(lines, i, p, options, grad_built, grad_given, load(grad_log_det + i), put);
        prepare_rows_vjp<Map>(raw + i, ready + i, lines.height, lines.features);
    }
}

}  // namespace
}  // namespace headrace
