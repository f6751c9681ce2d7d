// A masked network and its map over one tile or one small batch, by a plan of block products (plan.cpp). The same
// interpreter serves the parallel and the sequential direction, MAF, IAF and coupling: only the plans differ.
#pragma once

#include "../math/activations.hpp"
#include "../math/maps.hpp"
#include "product-inl.hpp"
#include "vector-inl.hpp"

namespace headrace {
namespace {

template <class T>
struct TileBuffers {
    T *given, *built, *units;  // [slot][height], [unit][height]
    T* sum;                    // [height]: log-determinants
    int vectors;               // in use, from the first
    int64_t height;
    T* slopes = nullptr;  // [unit][height]: derivatives of activations, where they are kept
};

template <class T>
struct SmallBuffers {
    T *given, *built, *units;  // [row][stride]
    T* sum;                    // [row]
    int rows;
    int64_t stride;
};

// ---- coordinates that pass through ----------------------------------------------------------------------------------

template <class T>
HR_FN void copy_slots(const TileBuffers<T>& b, const int* given, const int* built, int n) {
    for (int c = 0; c < n; ++c)
        for (int64_t i = 0; i < b.height; i += width<T>)
            store(b.built + built[c] * b.height + i, load(b.given + given[c] * b.height + i));
}

template <class T>
HR_FN void copy_slots(const SmallBuffers<T>& b, const int* given, const int* built, int n) {
    for (int r = 0; r < b.rows; ++r)
        for (int c = 0; c < n; ++c) b.built[r * b.stride + built[c]] = b.given[r * b.stride + given[c]];
}

// ---- activations ----------------------------------------------------------------------------------------------------

template <class T>
HR_FN void activate(int activation, T* y, int64_t n) {
    with_activation(activation, [&]<class A>() {
        for (int64_t i = 0; i < n; i += width<T>) store(y + i, A::value(load(y + i)));
    });
}

// The same, and the derivatives for the way back.
template <class T>
HR_FN void activate_keeping_slope(int activation, T* y, T* slope, int64_t n) {
    with_activation(activation, [&]<class A>() {
        for (int64_t i = 0; i < n; i += width<T>) {
            const Pack<T> x = load(y + i), value = A::value(x);
            store(y + i, value);
            store(slope + i, A::slope(A::slope_of_value ? value : x));
        }
    });
}

// ---- maps: settle coordinates [begin, end) from their parameters ----------------------------------------------------

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
void tile_map(const MaskedStep<T>& s, const TileBuffers<T>& b, const T* params, int begin, int end) {
    using V = Pack<T>;
    for (int c = begin; c < end; ++c) {
        const T* in = b.given + s.active_given[c] * b.height;
        T* out = b.built + s.active_built[c] * b.height;
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

// Lanes are coordinates; a lone coordinate (the usual case of the sequential direction) is broadcast instead of being
// gathered, as a vector load of scalars just stored would wait for them.
template <class Map, bool inverse, class T>
void small_map(const MaskedStep<T>& s, const SmallBuffers<T>& b, const T* params, int begin, int end) {
    using V = Pack<T>;
    for (int r = 0; r < b.rows; ++r) {
        const T* in = b.given + r * b.stride;
        T* out = b.built + r * b.stride;
        const T* p = params + r * b.stride;
        V log_det;
        if (end - begin == 1) {
            const auto param = [&](int k) { return splat<V>(p[begin * s.n_params + k]); };
            const V value = apply_map<Map, inverse>(splat<V>(in[s.active_given[begin]]), param, s.options, log_det);
            out[s.active_built[begin]] = value[0];
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
            const V value = apply_map<Map, inverse>(gather([&](int i) { return in[s.active_given[c + i]]; }), param,
                                                    s.options, log_det);
            for (int i = 0; i < n; ++i) {
                out[s.active_built[c + i]] = value[i];
                b.sum[r] += log_det[i];
            }
        }
    }
}

// A vector map whose raw parameters, line by line, are the network's outputs.
template <class T>
HR_FN VectorLines<T> vector_lines(const MaskedStep<T>& s, const TileBuffers<T>& b) {
    return {b.given, b.built, s.active_given, s.active_built, s.n_active, b.height};
}

template <class T>
HR_FN void tile_vector_map(const MaskedStep<T>& s, const TileBuffers<T>& b, const T* params) {
    T* const ready = b.units + s.ready * b.height;
    with_vector_map(s.vector_map, [&]<class Map>() {
        if (s.map_inverse) {
            vector_rows_tile<Map, true>(vector_lines(s, b), s.options, b.vectors, params, ready, b.sum);
        } else {
            vector_rows_tile<Map, false>(vector_lines(s, b), s.options, b.vectors, params, ready, b.sum);
        }
    });
}

// ---- the interpreter ------------------------------------------------------------------------------------------------

template <class T>
HR_FN void masked_tile(const MaskedStep<T>& s, const Chain<T>& chain, const Call<T>& call, const TileBuffers<T>& b) {
    const int64_t height = b.height;
    copy_slots(b, s.passive_given, s.passive_built, s.n_passive);
    const T* const weights = call.weights + s.weights;
    const T* const input = (s.reads_built ? b.built : b.given) + s.input_slot * height;
    const bool folded = call.context_is_folded && s.fold >= 0;
    const T* const params = b.units + int64_t(s.layers[s.n_layers - 1].unit) * height;
    for (int q = 0; q < s.tile_plan.n_phases; ++q) {
        const Phase& phase = s.tile_plan.phases[q];
        for (int i = phase.op_begin; i < phase.op_end; ++i) {
            const Op& op = s.tile_plan.ops[i];
            const Layer& layer = s.layers[op.layer];
            const bool hidden = op.layer + 1 < s.n_layers;
            ProductArgs<T> a;
            a.weights = weights;
            a.row = layer.row + op.row;
            a.k0 = op.k0;
            a.k1 = op.k1;
            a.input = op.layer == 0 ? input : b.units + int64_t(s.layers[op.layer - 1].unit) * height;
            a.output = b.units + int64_t(layer.unit + op.row) * height;
            a.stride = height;
            a.bias = op.from_bias ? weights + layer.bias + op.row : nullptr;
            a.relu = hidden && op.finish && !s.has_activation_sweep;
            if (op.layer == 0 && folded) {  // the context's share is already in the bias
                if (a.k0 < chain.context) a.k0 = a.k1 < chain.context ? a.k1 : chain.context;
                if (op.from_bias) a.bias = call.folded + s.fold + op.row;
            }
            tile_product(a, op.rows, b.vectors);
            if (hidden && op.finish && s.has_activation_sweep) {
                const int64_t n = op.rows * height;
                if (b.slopes) {
                    activate_keeping_slope(s.activation, a.output, b.slopes + (a.output - b.units), n);
                } else {
                    activate(s.activation, a.output, n);
                }
            }
        }
        if (s.vector_map >= 0) {
            tile_vector_map(s, b, params);
        } else if (phase.coordinate_begin < phase.coordinate_end) {
            with_map(s.map, [&]<class Map>() {
                if (s.map_inverse) {
                    tile_map<Map, true>(s, b, params, phase.coordinate_begin, phase.coordinate_end);
                } else {
                    tile_map<Map, false>(s, b, params, phase.coordinate_begin, phase.coordinate_end);
                }
            });
        }
    }
}

template <class T>
HR_FN void masked_small(const MaskedStep<T>& s, const Call<T>& call, const SmallBuffers<T>& b) {
    copy_slots(b, s.passive_given, s.passive_built, s.n_passive);
    // Units are read a whole vector at a time, before the last ones are computed, under weights that are zero.
    for (int r = 0; r < b.rows; ++r)
        for (int64_t i = 0; i < s.units; i += width<T>) store(b.units + r * b.stride + i, Pack<T>{});
    const T* const weights = call.weights + s.weights;
    const T* const input = (s.reads_built ? b.built : b.given) + s.input_slot;
    const T* const params = b.units + s.layers[s.n_layers - 1].unit;
    for (int q = 0; q < s.small_plan.n_phases; ++q) {
        const Phase& phase = s.small_plan.phases[q];
        for (int i = phase.op_begin; i < phase.op_end; ++i) {
            const Op& op = s.small_plan.ops[i];
            const Layer& layer = s.layers[op.layer];
            const bool hidden = op.layer + 1 < s.n_layers;
            ProductArgs<T> a;
            a.weights = weights;
            a.row = layer.row + op.row;
            a.k0 = op.k0;
            a.k1 = op.k1;
            a.input = op.layer == 0 ? input : b.units + s.layers[op.layer - 1].unit;
            a.output = b.units + layer.unit + op.row;
            a.stride = b.stride;
            a.bias = weights + layer.bias + op.row;
            a.relu = hidden && !s.has_activation_sweep;
            small_product(a, op.rows, b.rows);
            if (hidden && s.has_activation_sweep)
                for (int r = 0; r < b.rows; ++r) {  // op.rows is at most row_block
                    T units[row_block > width<T> ? row_block : width<T>] = {};
                    T* y = a.output + r * b.stride;
                    for (int m = 0; m < op.rows; ++m) units[m] = y[m];
                    activate(s.activation, units, row_block);
                    for (int m = 0; m < op.rows; ++m) y[m] = units[m];
                }
        }
        if (phase.coordinate_begin < phase.coordinate_end)
            with_map(s.map, [&]<class Map>() {
                if (s.map_inverse) {
                    small_map<Map, true>(s, b, params, phase.coordinate_begin, phase.coordinate_end);
                } else {
                    small_map<Map, false>(s, b, params, phase.coordinate_begin, phase.coordinate_end);
                }
            });
    }
}

template <class T>
void fold_context(const MaskedStep<T>& s, const T* weights, const T* context, int n, T* folded) noexcept {
    const Layer& layer = s.layers[0];
    for (int r = 0; r < layer.out; ++r) {
        T sum = weights[s.weights + layer.bias + r];
        const T* w = weights + s.weights + layer.row[r];
        for (int k = 0; k < n; ++k) sum += w[k] * context[k];
        folded[s.fold + r] = sum;
    }
}

}  // namespace
}  // namespace headrace
