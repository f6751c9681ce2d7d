// A masked network and its map over one tile or one small batch, by a plan of block products (plan.cpp), and back. The
// same interpreter serves the parallel and the sequential direction, MAF, IAF and coupling: only the plans differ.
#pragma once

#include "../../math/activations.hpp"
#include "../../math/random.hpp"
#include "../coordinates-inl.hpp"
#include "../gradient_product-inl.hpp"
#include "../product-inl.hpp"
#include "../transpose-inl.hpp"
#include "../vector-inl.hpp"
#include "bf16-inl.hpp"

namespace headrace {
namespace {

// ---- activations ----------------------------------------------------------------------------------------------------

template <class T>
HR_FN void activate(int activation, const T* x, T* y, int64_t n) {
    with_activation(activation, [&]<class A>() {
        for (int64_t i = 0; i < n; i += width<T>) store(y + i, A::value(load(x + i)));
    });
}

// The same, and the derivatives for the way back.
template <class T>
HR_FN void activate_keeping_slope(int activation, const T* x, T* y, T* slope, int64_t n) {
    with_activation(activation, [&]<class A>() {
        for (int64_t i = 0; i < n; i += width<T>) {
            const Pack<T> sum = load(x + i), value = A::value(sum);
            store(y + i, value);
            store(slope + i, A::slope(A::slope_of_value ? value : sum));
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

// ---- what a layer does to its products ------------------------------------------------------------------------------

// Units [unit, unit + n) of a layer: from their products to their sums, with what the context gives and what another
// layer adds. line(i) is where the row's, or rows', number of scratch unit i starts; `height` numbers there.
template <class T, class Line>
HR_FN void join(const Layer& layer, int unit, int n, const Line& line, int64_t height) {
    for (int u = unit; u < unit + n; ++u) {
        const T* const product = line(layer.product + u);
        const T* const c = layer.c ? line(layer.c[u]) : nullptr;
        const T* const other = layer.adds ? line(layer.adds[u]) : nullptr;
        T* const sum = line(layer.sum + u);
        for (int64_t i = 0; i < height; i += width<T>) {
            Pack<T> x = load(product + i);
            if (c) x = layer.gated ? x * load(c + i) : x + load(c + i);
            if (other) x += load(other + i);
            store(sum + i, x);
        }
    }
}

// A number for each unit and row: 0 for values that are left out, else what makes up for those.
template <class T>
HR_FN void drop_units(const NetworkStep<T>& s, const Layer& layer, int unit, int n, const TileBuffers<T>& b) {
    using V = Pack<T>;
    const T share = T(layer.dropout), kept = T(1 / (1 - layer.dropout));
    const int begin = layer.value + unit, end = begin + n;
    for (int64_t i = 0; i < int64_t(b.vectors) * width<T>; i += width<T>) {
        uint32_t numbers[2][width<T>];
        for (int k = 0; k < width<T>; ++k) {  // past the last row there is none
            const int64_t row = b.row + i + k;
            const uint64_t number = row < b.drops->rows ? uint64_t(row_number(b.drops->input, row)) : 0;
            numbers[0][k] = uint32_t(number);
            numbers[1][k] = uint32_t(number >> 32);
        }
        typename Lane<V>::U32 low, high;
        __builtin_memcpy(&low, numbers[0], sizeof low);
        __builtin_memcpy(&high, numbers[1], sizeof high);
        for (int block = begin / 4; 4 * block < end; ++block) {
            const auto words = philox(b.drops->seed, low, high, uint32_t(block), s.stream);
            for (int k = 0; k < 4; ++k) {
                const int64_t line = 4 * block + k;
                if (line < begin || line >= end) continue;
                const V factor = select(uniform<V>(words.w[k], words.w[k]) <= share, V{}, splat<V>(double(kept)));
                T *const value = b.units + line * b.height + i, *const slope = b.slopes + line * b.height + i;
                store(value, load(value) * factor);
                store(slope, load(slope) * factor);
            }
        }
    }
}

template <class T>
HR_FN void finish_units(const NetworkStep<T>& s, const Layer& layer, int unit, int n, const TileBuffers<T>& b) {
    const int64_t height = b.height;
    if (layer.c || layer.adds) join<T>(layer, unit, n, [&](int i) { return b.units + i * height; }, height);
    if (layer.activation == identity_index && layer.dropout == 0) return;
    const T* const sum = b.units + (layer.sum + unit) * height;
    const int64_t value = (layer.value + unit) * height;
    if (b.slopes) {
        activate_keeping_slope(layer.activation, sum, b.units + value, b.slopes + value, n * height);
    } else {
        activate(layer.activation, sum, b.units + value, n * height);
    }
    if (b.drops && layer.dropout > 0) drop_units(s, layer, unit, n, b);
}

// The same for a small batch, whose lanes are units; n is at most row_block.
template <class T>
HR_FN void finish_units(const Layer& layer, int unit, int n, const SmallBuffers<T>& b) {
    for (int r = 0; r < b.rows; ++r) {
        T* const units = b.units + r * b.stride;
        T lanes[row_block > width<T> ? row_block : width<T>] = {};
        for (int m = 0; m < n; ++m) {
            const int u = unit + m;
            T x = units[layer.product + u];
            if (layer.c) x = layer.gated ? x * units[layer.c[u]] : x + units[layer.c[u]];
            if (layer.adds) x += units[layer.adds[u]];
            lanes[m] = units[layer.sum + u] = x;
        }
        if (layer.value == layer.sum && layer.activation == identity_index) continue;
        activate(layer.activation, lanes, lanes, int64_t(row_block));
        for (int m = 0; m < n; ++m) units[layer.value + unit + m] = lanes[m];
    }
}

// ---- the interpreter ------------------------------------------------------------------------------------------------

template <class T>
HR_FN void run_step(const NetworkStep<T>& s, const Chain<T>& chain, const Call<T>& call, const TileBuffers<T>& b) {
    const int64_t height = b.height;
    copy_slots(b, s.passive_given, s.passive_built, s.n_passive);
    const T* const weights = call.weights + s.weights;
    const T* const input = (s.reads_built ? b.built : b.given) + s.input_slot * height;
    const bool folded = call.context_is_folded && s.fold >= 0;
    const T* const params = b.units + int64_t(s.layers[s.n_layers - 1].product) * height;
    for (int q = 0; q < s.tile_plan.n_phases; ++q) {
        const Phase& phase = s.tile_plan.phases[q];
        for (int i = phase.op_begin; i < phase.op_end; ++i) {
            const Op& op = s.tile_plan.ops[i];
            const Layer& layer = s.layers[op.layer];
            const bool is_folded = folded && layer.below < 0;
            if constexpr (sizeof(T) == sizeof(float))
                if (s.bf16.parts > 0) {
                    bf16_op(s, call, op, input, b);
                    if (op.finish && layer.sweep) finish_units(s, layer, op.row, op.rows, b);
                    if (op.finish) bf16_values(call, layer, op, b);
                    continue;
                }
            ProductArgs<T> a;
            a.weights = weights;
            a.row = layer.row + op.row;
            a.k0 = op.k0;
            a.k1 = op.k1;
            a.input = layer.below < 0 ? input : b.units + int64_t(s.layers[layer.below].value) * height;
            a.output = b.units + int64_t(layer.product + op.row) * height;
            a.stride = height;
            a.bias = op.from_bias ? weights + layer.bias + op.row : nullptr;
            a.relu = op.finish && layer.relu;
            if (is_folded) {  // the context's share is already in the bias; what reads it alone is there altogether
                if (a.k0 < chain.context) a.k0 = a.k1 < chain.context ? a.k1 : chain.context;
                if (op.from_bias) a.bias = call.folded + s.fold + layer.fold + op.row;
            }
            tile_product(a, op.rows, b.vectors);
            if (op.finish && layer.sweep && !(is_folded && layer.context_alone))
                finish_units(s, layer, op.row, op.rows, b);
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
    for (int r = 0; r < b.rows; ++r)
        for (int64_t i = 0; i < s.sums; i += width<T>) store(b.sums + r * b.stride + i, Pack<T>{});
    for (int r = 0; r < b.rows; ++r)
        for (int64_t i = 0; i < s.pairs; ++i) b.pairs[r * b.stride + i] = 0;
    const T* const weights = call.weights + s.weights;
    const T* const input = (s.reads_built ? b.built : b.given) + s.input_slot;
    const T* const params = b.units + s.layers[s.n_layers - 1].product;
    for (int q = 0; q < s.small_plan.n_phases; ++q) {
        const Phase& phase = s.small_plan.phases[q];
        for (int i = phase.op_begin; i < phase.op_end; ++i) {
            const Op& op = s.small_plan.ops[i];
            const Layer& layer = s.layers[op.layer];
            if constexpr (sizeof(T) == sizeof(float))
                if (s.bf16.parts > 0) {
                    if (!bf16_op(s, call, op, input, b)) {
                        for (int m = 0; m < op.rows; m += row_block)
                            finish_units(layer, op.row + m, op.rows - m < row_block ? op.rows - m : row_block, b);
                        bf16_values(s, call, op, b);
                    }
                    bf16_later(s, call, op, b);
                    continue;
                }
            ProductArgs<T> a;
            a.weights = weights;
            a.row = layer.row + op.row;
            a.k0 = op.k0;
            a.k1 = op.k1;
            a.input = layer.below < 0 ? input : b.units + s.layers[layer.below].value;
            a.output = b.units + layer.product + op.row;
            a.stride = b.stride;
            a.bias = weights + layer.bias + op.row;
            a.relu = layer.relu;
            small_product(a, op.rows, b.rows);
            if (layer.sweep) finish_units(layer, op.row, op.rows, b);
        }
        if (phase.coordinate_begin < phase.coordinate_end)
            settle(s.map, b, params, phase.coordinate_begin, phase.coordinate_end);
    }
}

// What one context gives every row: of the layer that reads coordinates too its share of the sums, of one that reads
// nothing else the values.
template <class T>
void fold_context(const NetworkStep<T>& s, const T* weights, const T* context, int n, T* folded) noexcept {
    for (int l = 0; l < s.n_layers; ++l) {
        const Layer& layer = s.layers[l];
        if (layer.below >= 0) continue;
        T* const out = folded + s.fold + layer.fold;
        for (int r = 0; r < layer.out; ++r) {
            T sum = weights[s.weights + layer.bias + r];
            const T* w = weights + s.weights + layer.row[r];
            for (int k = 0; k < n; ++k) sum += w[k] * context[k];  // every unit sees all of it
            out[r] = sum;
        }
        for (int r = 0; layer.context_alone && r < layer.out; r += width<T>) {
            T lanes[width<T>] = {};
            const int units = layer.out - r < width<T> ? layer.out - r : width<T>;
            for (int i = 0; i < units; ++i) lanes[i] = out[r + i];
            activate(layer.activation, lanes, lanes, int64_t(width<T>));
            for (int i = 0; i < units; ++i) out[r + i] = lanes[i];
        }
    }
}

// ---- back -----------------------------------------------------------------------------------------------------------

template <class T>
HR_FN void record_step(const NetworkStep<T>& s, const Tape<T>& t, const Call<T>& call, int step) {
    TileBuffers<T> b = t.buffers(step);
    b.units = t.at(s.tape_units);
    if (s.tape_slopes >= 0) b.slopes = t.at(s.tape_slopes);
    if (call.drops) b.drops = &call;
    b.row = t.row;
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

HR_FN Gate gate_of(const Layer& layer) {
    if (keeps_slopes(layer)) return Gate::multiply;
    if (layer.activation == relu_index) return Gate::relu;
    return layer.activation == identity_index ? Gate::pass : Gate::multiply;
}

// Values of hidden layers become the derivatives of their activations, where the value tells them. What c gave is
// needed as it is.
template <class T>
HR_FN void values_to_slopes(const NetworkStep<T>& s, T* units, int64_t height) {
    for (int l = 0; l + 1 < s.n_layers; ++l) {
        const Layer& layer = s.layers[l];
        if (layer.context_alone || keeps_slopes(layer) || layer.activation == relu_index ||
            layer.activation == identity_index)
            continue;
        T* const value = units + layer.value * height;
        with_activation(layer.activation, [&]<class A>() {
            for (int64_t i = 0; i < layer.out * height; i += width<T>) store(value + i, A::slope(load(value + i)));
        });
    }
}

// Units [unit, unit + n) of a layer: from the gradients by what their sums are to the layer above, at their values, to
// those by the sums, to which another layer added them; and by the products, and c.
template <class T>
HR_FN void finish_gradients(const NetworkStep<T>& s, const Layer& layer, int unit, int n, const Tape<T>& t, T* units) {
    const int64_t height = t.height, used = int64_t(t.vectors) * width<T>;
    const auto line = [&](int i) { return units + i * height; };
    for (int u = unit; u < unit + n; ++u) {
        const T* const other = layer.added_to && layer.added_to[u] >= 0 ? line(layer.added_to[u]) : nullptr;
        if (!other && layer.sum == layer.value && !layer.c) continue;
        const T* const value = line(layer.value + u);
        T* const sum = line(layer.sum + u);
        for (int64_t i = 0; i < used; i += width<T>) {
            Pack<T> g = load(value + i);
            if (other) g += load(other + i);
            store(sum + i, g);
        }
        if (!layer.c) continue;
        const int place = layer.c[u];
        const Layer& from = s.layers[layer.c_layer];
        T *const c = line(place), *const product = line(layer.product + u);
        const T* const slopes = s.tape_slopes >= 0 ? t.at(s.tape_slopes) + place * height : nullptr;
        with_activation(from.activation, [&]<class A>() {
            for (int64_t i = 0; i < used; i += width<T>) {
                const Pack<T> g = load(sum + i), value = load(c + i);
                const Pack<T> slope = A::slope_of_value ? A::slope(value) : load(slopes + i);
                store(c + i, (layer.gated ? g * load(product + i) : g) * slope);
                if (layer.gated) store(product + i, g * value);
            }
        });
    }
}

// Which columns of what a network reads have a gradient that anybody wants, context first; and where it goes.
template <class T>
struct ReadGradient {
    int first, end;
    T* lines;
    HR_FN int end_of(int columns) const { return columns < end ? columns : end; }
};

// The gradient of an op's inputs from that of its units.
template <class T>
HR_FN void back_op(const NetworkStep<T>& s, const Tape<T>& t, const Call<T>& call, const BackOp& op, T* units,
                   const ReadGradient<T>& read) {
    const int64_t height = t.height;
    const Layer& layer = s.layers[op.layer];
    int begin = op.column, end = op.column + op.columns;
    DataArgs<T> a;
    a.weights = call.weights + s.weights;
    a.row = layer.row + op.row0;
    a.n_rows = op.row1 - op.row0;
    a.grad = units + int64_t(layer.product + op.row0) * height;
    a.stride = height;
    a.gate = nullptr;
    if (layer.below < 0) {
        if (begin < read.first) begin = read.first;
        if (end > read.end_of(layer.in)) end = read.end_of(layer.in);
        a.kind = Gate::add;
        a.output = read.lines + begin * height;
    } else {
        const Layer& below = s.layers[layer.below];
        a.output = units + int64_t(below.value + begin) * height;
        a.kind = gate_of(below);
        if (a.kind == Gate::multiply)
            a.gate = keeps_slopes(below) ? t.at(s.tape_slopes) + int64_t(below.value + begin) * height : a.output;
    }
    a.column = begin;
    bool is_done = false;
    if constexpr (sizeof(T) == sizeof(float))
        if (s.bf16.parts > 0) {
            if (layer.below >= 0 || read.first < read.end_of(layer.in)) round_gradients(t, call, layer, op, units);
            if (begin < end) bf16_columns(s, t, call, layer, op, a, end - begin);
            is_done = true;
        }
    if (begin < end && !is_done) data_product(a, end - begin, t.vectors);
    if (layer.below >= 0) finish_gradients(s, s.layers[layer.below], begin, end - begin, t, units);
}

// The gradient of the state before a network step from that of the state after it. Afterwards the tape holds, for the
// weights' gradient, that of every product and the transposed inputs of every layer.
template <class T>
HR_FN void backward_step(const NetworkStep<T>& s, const Tape<T>& t, const Call<T>& call, const Back<T>& back, int step,
                         int network) {
    const int64_t height = t.height;
    T* const units = t.at(s.tape_units);
    // What the network read, and where its gradient goes.
    const int read = s.reads_built ? step + 1 : step;
    const int64_t input = s.input_slot * height;
    const auto transpose_inputs = [&](int l) {
        const Layer& layer = s.layers[l];
        const T* lines = layer.below < 0 ? t.state(read) + input : units + s.layers[layer.below].value * height;
        T* const panels = t.panels(network, layer.panel);
        if constexpr (sizeof(T) == sizeof(float))
            if (s.bf16.parts > 0) return call.bf16->panels(lines, layer.in, height, t.rows, as_pairs(panels));
        to_panels(lines, layer.in, height, t.vectors, panels);
    };
    // Before they are overwritten: at once where slopes replace values or layers take turns, else layer by layer.
    const bool at_once = s.has_slope_sweep || s.reads_built;
    for (int l = 0; back.weights && at_once && l < s.n_layers; ++l) transpose_inputs(l);
    int transposed = at_once ? 0 : s.n_layers;
    if (s.has_slope_sweep) values_to_slopes(s, units, height);
    // What passes through goes on to the network's inputs: at first where these are what is given, at last where they
    // are what is built.
    const auto carry_passive = [&] {
        copy_slots(t.gradient_buffers(step), s.passive_built, s.passive_given, s.n_passive);
        carry_context(t, back, step);
    };
    if (!s.reads_built) carry_passive();
    const int context = t.chain.context - s.input_slot;
    const ReadGradient<T> wanted{back.context ? 0 : context,
                                 s.reads_built || back.input || network > 0 ? INT32_MAX : context,
                                 t.gradient(read) + input};
    T* const params = units + int64_t(s.layers[s.n_layers - 1].product) * height;
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
            back_op(s, t, call, op, units, wanted);
        }
    }
    while (back.weights && transposed > 0) transpose_inputs(--transposed);
    if constexpr (sizeof(T) == sizeof(float))
        if (s.bf16.parts > 0 && back.weights) gradients_of_rows(s, t, call, units, network);
    if (s.reads_built) carry_passive();
}

}  // namespace
}  // namespace headrace
