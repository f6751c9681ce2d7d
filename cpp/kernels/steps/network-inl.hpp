// A masked network and its map over one tile or one small batch, by a plan of block products (plan.cpp), and back. The
// same interpreter serves the parallel and the sequential direction, MAF, IAF and coupling: only the plans differ.
#pragma once

#include "../../math/activations.hpp"
#include "../coordinates-inl.hpp"
#include "../gradient_product-inl.hpp"
#include "../product-inl.hpp"
#include "../transpose-inl.hpp"
#include "../vector-inl.hpp"

namespace headrace {
namespace {

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

// A vector map whose raw parameters, line by line, are the network's outputs.
template <class T>
HR_FN VectorLines<T> vector_lines(const NetworkStep<T>& s, const TileBuffers<T>& b) {
    return {b.given, b.built, s.map.given, s.map.built, s.map.n, b.height};
}

template <class T>
HR_FN void tile_vector_map(const NetworkStep<T>& s, const TileBuffers<T>& b, const T* params) {
    T* const ready = b.units + s.ready * b.height;
    with_vector_map(s.vector_map, [&]<class Map>() {
        if (s.map.inverse) {
            vector_rows_tile<Map, true>(vector_lines(s, b), s.map.options, b.vectors, params, ready, b.sum);
        } else {
            vector_rows_tile<Map, false>(vector_lines(s, b), s.map.options, b.vectors, params, ready, b.sum);
        }
    });
}

// ---- the interpreter ------------------------------------------------------------------------------------------------

template <class T>
HR_FN void run_step(const NetworkStep<T>& s, const Chain<T>& chain, const Call<T>& call, const TileBuffers<T>& b) {
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
            settle(s.map, b, params, phase.coordinate_begin, phase.coordinate_end);
        }
    }
}

template <class T>
HR_FN void run_step(const NetworkStep<T>& s, const Chain<T>&, const Call<T>& call, const SmallBuffers<T>& b) {
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
            settle(s.map, b, params, phase.coordinate_begin, phase.coordinate_end);
    }
}

template <class T>
void fold_context(const NetworkStep<T>& s, const T* weights, const T* context, int n, T* folded) noexcept {
    const Layer& layer = s.layers[0];
    for (int r = 0; r < layer.out; ++r) {
        T sum = weights[s.weights + layer.bias + r];
        const T* w = weights + s.weights + layer.row[r];
        for (int k = 0; k < n; ++k) sum += w[k] * context[k];
        folded[s.fold + r] = sum;
    }
}

// ---- back -----------------------------------------------------------------------------------------------------------

template <class T>
HR_FN void record_step(const NetworkStep<T>& s, const Tape<T>& t, const Call<T>& call, int step) {
    TileBuffers<T> b = t.buffers(step);
    b.units = t.at(s.tape_units);
    if (s.tape_slopes >= 0) b.slopes = t.at(s.tape_slopes);
    run_step(s, t.chain, call, b);
}

template <class T>
HR_FN void tile_vector_map_vjp(const NetworkStep<T>& s, const Tape<T>& t, int step, T* params) {
    const VectorLines<T> lines = vector_lines(s, t.buffers(step));
    T* const ready = t.at(s.tape_units) + s.ready * t.height;
    with_vector_map(s.vector_map, [&]<class Map>() {
        if (s.map.inverse) {
            vector_rows_vjp_tile<Map, true>(lines, s.map.options, t.vectors, params, ready, t.gradient(step + 1),
                                            t.gradient(step), t.grad_log_det());
        } else {
            vector_rows_vjp_tile<Map, false>(lines, s.map.options, t.vectors, params, ready, t.gradient(step + 1),
                                             t.gradient(step), t.grad_log_det());
        }
    });
}

// The gradient of the state before a network step from that of the state after it. Afterwards the tape holds, for the
// weights' gradient, that of every unit and the transposed inputs of every layer.
template <class T>
HR_FN void backward_step(const NetworkStep<T>& s, const Tape<T>& t, const Call<T>& call, const Back<T>& back, int step,
                         int network) {
    const Chain<T>& chain = t.chain;
    const int64_t height = t.height;
    T* const units = t.at(s.tape_units);
    // What the network read, and where its gradient goes.
    const int read = s.reads_built ? step + 1 : step;
    const int64_t input = s.input_slot * height;
    const auto transpose_inputs = [&](int l) {
        const T* lines = l == 0 ? t.state(read) + input : units + s.layers[l - 1].unit * height;
        to_panels(lines, s.layers[l].in, height, t.vectors, t.panels(network, s.layers[l].panel));
    };
    // Before they are overwritten: at once where slopes replace values or layers take turns, else layer by layer.
    const bool at_once = s.has_activation_sweep || s.reads_built;
    for (int l = 0; back.weights && at_once && l < s.n_layers; ++l) transpose_inputs(l);
    int transposed = at_once ? 0 : s.n_layers;
    const T* gates = nullptr;
    if (s.has_activation_sweep && s.tape_slopes >= 0) gates = t.at(s.tape_slopes);
    if (s.has_activation_sweep && s.tape_slopes < 0) {
        gates = units;
        with_activation(s.activation, [&]<class A>() {
            for (int64_t i = 0; i < s.layers[s.n_layers - 1].unit * height; i += width<T>)
                store(units + i, A::slope(load(units + i)));
        });
    }
    // What passes through goes on to the network's inputs: at first where these are what is given, at last where they
    // are what is built.
    const auto carry_passive = [&] {
        copy_slots(t.gradient_buffers(step), s.passive_built, s.passive_given, s.n_passive);
        carry_context(t, back, step);
    };
    if (!s.reads_built) carry_passive();
    // Columns of the first layer whose gradient anybody wants: context is first.
    const int context = chain.context - s.input_slot;
    const bool wants_coordinates = s.reads_built || back.input || network > 0;
    const int first_column = back.context ? 0 : context, end_column = wants_coordinates ? s.layers[0].in : context;
    T* const params = units + int64_t(s.layers[s.n_layers - 1].unit) * height;
    for (int q = 0; q < s.back_plan.n_phases; ++q) {
        const BackPhase& phase = s.back_plan.phases[q];
        if (s.vector_map >= 0) {
            tile_vector_map_vjp(s, t, step, params);
        } else {
            settle_back(s.map, t, step, params, phase.coordinate_begin, phase.coordinate_end);
        }
        for (int i = phase.op_begin; i < phase.op_end; ++i) {
            const BackOp& op = s.back_plan.ops[i];
            while (back.weights && transposed > op.layer) transpose_inputs(--transposed);
            const Layer& layer = s.layers[op.layer];
            int begin = op.column, end = op.column + op.columns;
            DataArgs<T> a;
            a.weights = call.weights + s.weights;
            a.row = layer.row + op.row0;
            a.n_rows = op.row1 - op.row0;
            a.grad = units + int64_t(layer.unit + op.row0) * height;
            a.stride = height;
            a.gate = nullptr;
            if (op.layer == 0) {
                if (begin < first_column) begin = first_column;
                if (end > end_column) end = end_column;
                a.kind = Gate::add;
                a.output = t.gradient(read) + input + begin * height;
            } else {
                const int64_t line = int64_t(s.layers[op.layer - 1].unit + begin) * height;
                a.kind = s.has_activation_sweep ? Gate::multiply : Gate::relu;
                a.output = units + line;
                if (s.has_activation_sweep) a.gate = gates + line;
            }
            a.column = begin;
            if (begin < end) data_product(a, end - begin, t.vectors);
        }
    }
    while (back.weights && transposed > 0) transpose_inputs(--transposed);
    if (s.reads_built) carry_passive();
}

}  // namespace
}  // namespace headrace
