// A masked network over one tile or one small batch, by a plan of block products (core/conditioners/masked_plan.cpp),
// and its backward pass. One interpreter computes the parallel and the sequential direction of MAF, IAF and couplings,
// whose plans differ.
#pragma once

#include "../../math/activations.hpp"
#include "../../math/random.hpp"
#include "../gradient_product-inl.hpp"
#include "../product-inl.hpp"
#include "../transpose-inl.hpp"
#include "masked_bf16-inl.hpp"

namespace headrace {
namespace {

// ---- activations ----------------------------------------------------------------------------------------------------

template <class T>
HR_FN void activate(int activation, const T* x, T* y, int64_t n) {
    with_activation(activation, [&]<class A>() {
        for (int64_t i = 0; i < n; i += width<T>) store(y + i, A::value(load(x + i)));
    });
}

// Calls f(first, n) for runs of used lanes of `lines` adjacent lines; one run covers all lines where all lanes are
// used.
template <class F>
HR_FN void for_runs(int64_t lines, int64_t height, int64_t used, F&& f) {
    if (used == height) return f(int64_t(0), lines * height);
    for (int64_t i = 0; i < lines; ++i) f(i * height, used);
}

// Computes activations, and their derivatives for the backward pass.
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

// ---- from a layer's products to its values --------------------------------------------------------------------------

// Computes the sums of units [unit, unit + n) of a layer from their products and the terms of the context and of
// another layer. line(i) is the start of scratch unit i of the row, or rows, with `lanes` values.
template <class T, class Line>
HR_FN void join(const Layer& layer, int unit, int n, const Line& line, int64_t lanes) {
    for (int u = unit; u < unit + n; ++u) {
        const T* const product = line(layer.product + u);
        const T* const c = layer.c ? line(layer.c[u]) : nullptr;
        const T* const other = layer.adds ? line(layer.adds[u]) : nullptr;
        T* const sum = line(layer.sum + u);
        for (int64_t i = 0; i < lanes; i += width<T>) {
            Pack<T> x = load(product + i);
            if (c) x = layer.gated ? x * load(c + i) : x + load(c + i);
            if (other) x += load(other + i);
            store(sum + i, x);
        }
    }
}

// Multiplies values by a factor for each unit and row: 0 for dropped values, otherwise the factor that compensates for
// dropped values.
template <class T>
HR_FN void drop_units(uint32_t stream, const Layer& layer, int unit, int n, const TileBuffers<T>& b, T* slopes) {
    using V = Pack<T>;
    const T share = T(layer.dropout), kept = T(1 / (1 - layer.dropout));
    const int begin = layer.value + unit, end = begin + n;
    for (int64_t i = 0; i < int64_t(b.vectors) * width<T>; i += width<T>) {
        uint32_t numbers[2][width<T>];
        for (int k = 0; k < width<T>; ++k) {  // zeros after the last row
            const int64_t row = b.row + i + k;
            const uint64_t number = row < b.drops->rows ? uint64_t(row_number(b.drops->input, row)) : 0;
            numbers[0][k] = uint32_t(number);
            numbers[1][k] = uint32_t(number >> 32);
        }
        typename Lane<V>::U32 low, high;
        __builtin_memcpy(&low, numbers[0], sizeof low);
        __builtin_memcpy(&high, numbers[1], sizeof high);
        for (int block = begin / 4; 4 * block < end; ++block) {
            const auto words = philox(b.drops->seed, low, high, uint32_t(block), stream);
            for (int k = 0; k < 4; ++k) {
                const int64_t line = 4 * block + k;
                if (line < begin || line >= end) continue;
                const V factor = select(uniform<V>(words.w[k], words.w[k]) <= share, V{}, splat<V>(double(kept)));
                T *const value = b.units + line * b.height + i, *const slope = slopes + line * b.height + i;
                store(value, load(value) * factor);
                store(slope, load(slope) * factor);
            }
        }
    }
}

template <class T>
HR_FN void finish_units(const MaskedNetwork<T>& c, uint32_t stream, const Layer& layer, int unit, int n,
                        const TileBuffers<T>& b) {
    const int64_t height = b.height;
    if (layer.c || layer.adds) join<T>(layer, unit, n, [&](int i) { return b.units + i * height; }, used_lanes(b));
    if (layer.activation == identity_index && layer.dropout == 0) return;
    const T* const sum = b.units + (layer.sum + unit) * height;
    const int64_t value = (layer.value + unit) * height;
    T* const slopes = b.is_recorded && c.slopes >= 0 ? b.units + c.slopes * height : nullptr;
    for_runs(n, height, used_lanes(b), [&](int64_t first, int64_t lanes) {
        T* const to = b.units + value + first;
        if (slopes) {
            activate_keeping_slope(layer.activation, sum + first, to, slopes + value + first, lanes);
        } else {
            activate(layer.activation, sum + first, to, lanes);
        }
    });
    if (b.drops && layer.dropout > 0) drop_units(stream, layer, unit, n, b, slopes);
}

// Computes sums and values of units of a small batch, whose lanes are units; n is at most row_block.
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
HR_FN void advance(const MaskedNetwork<T>& c, const Known<T, TileBuffers<T>>& known, int from, int to) {
    const TileBuffers<T>& b = known.b;
    const Call<T>& call = known.call;
    const int64_t height = b.height;
    const T* const weights = known.weights;
    const uint32_t stream = known.step.stream;
    const int context = known.chain.context, fold = known.step.fold;
    const bool folded = call.context_is_folded && fold >= 0;
    const int end = c.tile_plan.first[to];
    for (int i = c.tile_plan.first[from]; i < end; ++i) {
        const Op& op = c.tile_plan.ops[i];
        const Layer& layer = c.layers[op.layer];
        const bool is_folded = folded && layer.below < 0;
        if constexpr (sizeof(T) == sizeof(float))
            if (c.bf16.parts > 0) {
                if (bf16_op(c, known, op) || !op.finish) continue;
                if (layer.sweep) finish_units(c, stream, layer, op.row, op.rows, b);
                bf16_values(call, layer, op, b);
                continue;
            }
        ProductArgs<T> a;
        a.weights = weights;
        a.row = layer.row + op.row;
        a.k0 = op.k0;
        a.k1 = op.k1;
        a.input = layer.below < 0 ? known.input : b.units + int64_t(c.layers[layer.below].value) * height;
        a.output = b.units + int64_t(layer.product + op.row) * height;
        a.stride = height;
        a.bias = op.from_bias ? weights + layer.bias + op.row : nullptr;
        a.relu = op.finish && layer.relu;
        if (is_folded) {  // the bias contains the context's share already, and layers that read only the context are
                          // complete
            if (a.k0 < context) a.k0 = a.k1 < context ? a.k1 : context;
            if (op.from_bias) a.bias = call.folded + fold + layer.fold + op.row;
        }
        tile_product(a, op.rows, b.vectors);
        if (op.finish && layer.sweep && !(is_folded && layer.context_alone))
            finish_units(c, stream, layer, op.row, op.rows, b);
    }
}

// Sets all units to zero, because units are read in whole vectors, with zero weights beyond the computed units.
template <class T>
HR_FN void clear_units(const MaskedNetwork<T>& c, const SmallBuffers<T>& b) {
    for (int r = 0; r < b.rows; ++r)
        for (int64_t i = 0; i < c.units; i += width<T>) store(b.units + r * b.stride + i, Pack<T>{});
    for (int r = 0; r < b.rows; ++r)
        for (int64_t i = 0; i < c.sums; i += width<T>) store(b.sums + r * b.stride + i, Pack<T>{});
    for (int r = 0; r < b.rows; ++r)
        for (int64_t i = 0; i < c.pairs; ++i) b.pairs[r * b.stride + i] = 0;
}

template <class T>
HR_FN void advance(const MaskedNetwork<T>& c, const Known<T, SmallBuffers<T>>& known, int from, int to) {
    const SmallBuffers<T>& b = known.b;
    const T* const weights = known.weights;
    if (from == 0) clear_units(c, b);
    const int end = c.small_plan.first[to];
    for (int i = c.small_plan.first[from]; i < end; ++i) {
        const Op& op = c.small_plan.ops[i];
        const Layer& layer = c.layers[op.layer];
        if constexpr (sizeof(T) == sizeof(float))
            if (c.bf16.parts > 0) {
                if (!op.finish) {
                    bf16_panel(c, known, op);
                    continue;
                }
                if (!bf16_op(c, known, op)) {
                    for (int m = 0; m < op.rows; m += row_block)
                        finish_units(layer, op.row + m, op.rows - m < row_block ? op.rows - m : row_block, b);
                    bf16_values(known.call, layer, op, b);
                }
                bf16_later(c, known, op);
                continue;
            }
        ProductArgs<T> a;
        a.weights = weights;
        a.row = layer.row + op.row;
        a.k0 = op.k0;
        a.k1 = op.k1;
        a.input = layer.below < 0 ? known.input : b.units + c.layers[layer.below].value;
        a.output = b.units + layer.product + op.row;
        a.stride = b.stride;
        a.bias = weights + layer.bias + op.row;
        a.relu = layer.relu;
        small_product(a, op.rows, b.rows);
        if (layer.sweep) finish_units(layer, op.row, op.rows, b);
    }
}

// Computes the contribution of one context to every row: its share of the sums of a layer that also reads coordinates,
// or the values of a layer that reads only the context.
template <class T>
HR_FN void fold_context(const MaskedNetwork<T>& c, const T* weights, const T* context, int n, T* folded) {
    for (int l = 0; l < c.n_layers; ++l) {
        const Layer& layer = c.layers[l];
        if (layer.below >= 0) continue;
        T* const out = folded + layer.fold;
        for (int r = 0; r < layer.out; ++r) {
            T sum = weights[layer.bias + r];
            const T* w = weights + layer.row[r];
            for (int k = 0; k < n; ++k) sum += w[k] * context[k];  // every unit reads all context columns
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

HR_FN Gate gate_of(const Layer& layer) {
    if (keeps_slopes(layer)) return Gate::multiply;
    if (layer.activation == relu_index) return Gate::relu;
    return layer.activation == identity_index ? Gate::pass : Gate::multiply;
}

// Replaces values of hidden layers by the derivatives of their activations, where the value determines the derivative.
// The values of c (layers that read only the context) stay unchanged, because gradients of products need these values.
template <class T>
HR_FN void values_to_slopes(const MaskedNetwork<T>& c, T* units, int64_t height, int64_t used) {
    for (int l = 0; l + 1 < c.n_layers; ++l) {
        const Layer& layer = c.layers[l];
        if (layer.context_alone || keeps_slopes(layer) || layer.activation == relu_index ||
            layer.activation == identity_index)
            continue;
        T* const value = units + layer.value * height;
        with_activation(layer.activation, [&]<class A>() {
            for_runs(layer.out, height, used, [&](int64_t first, int64_t lanes) {
                for (int64_t i = first; i < first + lanes; i += width<T>) store(value + i, A::slope(load(value + i)));
            });
        });
    }
}

// Computes gradients by the sums, the products and c (Layer) of units [unit, unit + n) of a layer, from gradients by
// the layer's values, which the layer above has computed, and from gradients by sums of a later layer to which the
// layer's sums were added.
template <class T>
HR_FN void finish_gradients(const MaskedNetwork<T>& net, const Layer& layer, int unit, int n, const Tape<T>& t,
                            T* units) {
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
        const Layer& from = net.layers[layer.c_layer];
        T *const c = line(place), *const product = line(layer.product + u);
        const T* const slopes = net.slopes >= 0 ? line(net.slopes + place) : nullptr;
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

// The columns of a network's inputs that need a gradient, with the context first, and the destination of the gradient.
template <class T>
struct ReadGradient {
    int first, end;
    T* lines;
    HR_FN int end_of(int columns) const { return columns < end ? columns : end; }
};

// Computes the gradient by an op's inputs from the gradient by its units.
template <class T>
HR_FN void back_op(const MaskedNetwork<T>& c, const KnownBack<T>& known, const BackOp& op, T* units,
                   const ReadGradient<T>& read) {
    const Tape<T>& t = known.tape;
    const int64_t height = t.height;
    const Layer& layer = c.layers[op.layer];
    int begin = op.column, end = op.column + op.columns;
    DataArgs<T> a;
    a.weights = known.weights();
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
        const Layer& below = c.layers[layer.below];
        a.output = units + int64_t(below.value + begin) * height;
        a.kind = gate_of(below);
        if (a.kind == Gate::multiply)
            a.gate = keeps_slopes(below) ? units + int64_t(c.slopes + below.value + begin) * height : a.output;
    }
    a.column = begin;
    bool is_done = false;
    if constexpr (sizeof(T) == sizeof(float))
        if (c.bf16.parts > 0) {
            if (layer.below >= 0 || read.first < read.end_of(layer.in))
                round_gradients(t, known.call, layer, op, units);
            if (begin < end) bf16_columns(known, layer, op, a, end - begin);
            is_done = true;
        }
    if (begin < end && !is_done) data_product(a, end - begin, t.vectors);
    if (layer.below >= 0) finish_gradients(c, c.layers[layer.below], begin, end - begin, t, units);
}

// Computes the backward pass of a masked network for some positions. After the call the tape has the gradients by all
// products and the transposed inputs of all layers, for the gradient of weights.
template <class T>
HR_FN void advance_back(const MaskedNetwork<T>& c, const KnownBack<T>& known, int from, int to) {
    const Tape<T>& t = known.tape;
    const NetworkStep<T>& s = known.step;
    const int64_t height = t.height;
    const bool sums_weights = known.back.weights;
    T* const units = known.line(0);
    const auto transpose_inputs = [&](int l) {
        const Layer& layer = c.layers[l];
        const T* lines = layer.below < 0 ? known.input() : units + c.layers[layer.below].value * height;
        T* const panels = t.panels(known.network, layer.panel);
        if constexpr (sizeof(T) == sizeof(float))
            if (c.bf16.parts > 0) return known.call.bf16->panels(lines, layer.in, height, t.rows, as_pairs(panels));
        to_panels(lines, layer.in, height, t.vectors, panels);
    };
    // Inputs are transposed before they are overwritten: all at once where slopes replace values or positions are
    // computed one after another, otherwise layer by layer.
    const bool at_once = c.has_slope_sweep || s.reads_built;
    int transposed = at_once ? 0 : c.n_layers;
    if (to == c.levels) {
        for (int l = 0; sums_weights && at_once && l < c.n_layers; ++l) transpose_inputs(l);
        if (c.has_slope_sweep) values_to_slopes(c, units, height, int64_t(t.vectors) * width<T>);
    }
    const int context = t.chain.context - s.input_slot;
    const ReadGradient<T> wanted{known.back.context ? 0 : context,
                                 s.reads_built || known.back.input || known.network > 0 ? INT32_MAX : context,
                                 known.input_gradient()};
    const int end = c.back_plan.done[from];
    for (int i = c.back_plan.done[to]; i < end; ++i) {
        const BackOp& op = c.back_plan.ops[i];
        while (sums_weights && transposed > op.layer) transpose_inputs(--transposed);
        back_op(c, known, op, units, wanted);
    }
    while (sums_weights && transposed > 0) transpose_inputs(--transposed);
    if constexpr (sizeof(T) == sizeof(float))
        if (from == 0 && c.bf16.parts > 0 && sums_weights) gradients_of_rows(c, known, units);
}

}  // namespace
}  // namespace headrace
