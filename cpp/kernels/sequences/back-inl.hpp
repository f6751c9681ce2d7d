// The backward pass of a segment of a sequence (core/sequences/back.hpp): from gradients by a causal network's outputs
// to gradients by its input, its weights, its gate biases and its covariates.
//
// With a' for the gradient by a, from the last layer down:
//   o' = [h' of the next layer, skip'],   z' = O^T o',   t' = z' s (1 - t^2),   s' = z' t s (1 - s)
//   h' = h' of the next layer + sum over taps i of  G[i]^T a'[t + (kernel - 1 - i) dilation]
#pragma once

#include "record-inl.hpp"

namespace headrace {
namespace {

template <class T>
HR_FN void add_line_sums(const T* lines, int64_t stride, int units, int vectors, T* sums) {
    for (int64_t u = 0; u < units; ++u) sums[u] += line_sum(lines + u * stride, vectors);
}

// Copies value lines to panels, from `before` positions before the window on, and returns the arguments that add
// products of gradient lines and these values to sums.
template <class T>
HR_FN SumsArgs<T> value_panels(const T* values, int64_t stride, int units, int padded, int64_t before, int positions,
                               T* panels) {
    const int64_t height = (before + positions + width<T> - 1) / width<T> * width<T>;
    lines_to_panels(values - before, stride, units, padded, before + positions, panels, height);
    SumsArgs<T> a{};
    a.panels = panels;
    a.height = height;
    a.positions = positions;
    a.inputs = padded;
    return a;
}

// ---- head -----------------------------------------------------------------------------------------------------------

template <class T>
void back_head_sums(const CausalSegment<T>& s, const CausalBack<T>& b, const Window& w) {
    const CausalNetwork& net = *s.network;
    const BackScratch at = back_scratch(net);
    T* const panels = s.scratch + at.panels;
    const auto add = [&](int value, const T* gradient, int units, uint32_t matrix, uint32_t bias) {
        SumsArgs<T> a = value_panels(head_at(s, value, w.begin), s.shape->head_stride, net.skip, net.skip_units, 0,
                                     w.positions, panels);
        a.gradient = gradient;
        a.stride = back_stride;
        a.sums = b.sums + matrix;
        sums_product(a, units);
        add_line_sums(gradient, back_stride, units, w.vectors, b.sums + bias);
    };
    add(1, s.scratch + at.outputs, net.outputs, b.shape->last, b.shape->last_bias);
    add(0, s.scratch + at.hidden, net.skip, b.shape->head, b.shape->head_bias);
}

// Computes gradients by skip values, in the lower lines of `up`.
template <class T>
void back_head(const CausalSegment<T>& s, const CausalBack<T>& b, const Window& w) {
    const CausalNetwork& net = *s.network;
    const BackScratch at = back_scratch(net);
    T *const outputs = s.scratch + at.outputs, *const hidden = s.scratch + at.hidden;
    const char* const rows = reinterpret_cast<const char*>(b.outputs + w.begin * net.outputs);
    const int64_t row = int64_t(net.outputs) * int64_t(sizeof(T));
    rows_to_lines<T, T>([&](int r) { return rows + r * row; }, true, net.outputs, nullptr, nullptr, nullptr,
                        w.positions, outputs, back_stride);
    BackLines<T> a{};
    a.weights = s.weights + net.last;
    a.unit = net.output_units;
    a.lines = outputs;
    a.row = a.to_row = back_stride;
    a.inputs = net.outputs;
    a.taps = 1;
    a.open = head_at(s, 1, w.begin);
    a.open_row = s.shape->head_stride;
    a.to = hidden;
    BackLines<T> first = a;
    first.weights = s.weights + net.head;
    first.unit = net.skip_units;
    first.lines = hidden;
    first.inputs = net.skip;
    first.open = head_at(s, 0, w.begin);
    first.to = s.scratch + at.up + net.channel_units * back_stride;
    for_blocks<T>(w, [&](int64_t column, int vectors) {
        back_lines(a, net.skip, column, vectors);
        back_lines(first, net.skip, column, vectors);
    });
    if (b.sums) back_head_sums(s, b, w);
}

// ---- layers ---------------------------------------------------------------------------------------------------------

// Overwrites, in a block of columns, values of gates with gradients by the gates' arguments, and gradients by gated
// values with the gated values.
template <class T>
void back_gates(const CausalNetwork& net, T* gates, int64_t stride, T* gated, int64_t column, int vectors) {
    using V = Pack<T>;
    T* const first = gates + column;
    T* const second = first + int64_t(net.channel_units) * stride;
    for (int64_t r = 0; r < net.channels; ++r)
        for (int v = 0; v < vectors * width<T>; v += width<T>) {
            T *const by_tanh = first + r * stride + v, *const by_sigmoid = second + r * stride + v;
            T* const by_gated = gated + r * back_stride + column + v;
            const V t = load(by_tanh), g = load(by_sigmoid), through = load(by_gated) * g;
            store(by_tanh, through * fma(-t, t, T(1)));
            store(by_sigmoid, through * t * (T(1) - g));
            store(by_gated, product(t, g));
        }
}

// Computes gradients by the products of a layer's covariates, in panels [unit / width][frame][width], and returns the
// height of the panels.
template <class T>
int64_t back_frames(const CausalSegment<T>& s, const Window& w, int layer, T* panels, int64_t first) {
    const CausalNetwork& net = *s.network;
    constexpr int W = width<T>;
    const int units = gate_units(net);
    const int64_t height = back_scratch(net).frame_stride, stride = s.shape->layers[layer].gate_stride;
    const T* const gates = gates_at(s, layer, w.begin);
    for (int64_t i = 0; i < units * height; i += W) store(panels + i, Pack<T>{});
    for (int64_t u = 0; u < units; u += W)
        for (int64_t t = 0; t < w.positions; t += W) {
            Pack<T> lanes[W];
            for (int i = 0; i < W; ++i) lanes[i] = load(gates + (u + i) * stride + t);
            transpose(lanes);
            for (int i = 0; i < W && t + i < w.positions; ++i) {
                const FramePlace<T> place = frame_place(net, s.side, s.begin + w.begin + t + i);
                const Pack<T> of_second = product(lanes[i], place.share);
                T* const to = panels + u * height;
                T *const one = to + (place.first - first) * W, *const other = to + (place.second - first) * W;
                store(one, load(one) + (lanes[i] - of_second));
                store(other, load(other) + of_second);
            }
        }
    return height;
}

template <class T>
void back_covariates(const CausalSegment<T>& s, const CausalBack<T>& b, const Window& w, int layer) {
    const CausalNetwork& net = *s.network;
    const BackScratch at = back_scratch(net);
    constexpr int W = width<T>;
    const int units = gate_units(net);
    const int64_t begin = s.begin + w.begin, first = frame_place(net, s.side, begin).first;
    const int64_t frames = frame_place(net, s.side, begin + w.positions - 1).second - first + 1;
    T *const panels = s.scratch + at.products, *const lines = s.scratch + at.frames;
    const int64_t height = back_frames(s, w, layer, panels, first);
    if (b.sums) {
        for (int64_t j = 0; j < frames; ++j) {
            const T* const frame = frame_of(net, s.side, first + j);
            for (int k = 0; k < net.covariates; ++k) lines[k * at.frame_stride + j] = frame[k];
        }
        SumsArgs<T> a{};
        a.gradient = lines;
        a.stride = at.frame_stride;
        a.panels = panels;
        a.height = height;
        a.positions = frames;
        a.sums = b.sums + b.shape->layers[layer].covariates;
        a.inputs = units;
        sums_product(a, net.covariates);
    }
    if (!b.covariates) return;
    const T* const weights = s.weights + net.layers[layer].covariates;
    for (int64_t j = 0; j < frames; ++j)
        for (int64_t k = 0; k < net.covariates; ++k) {
            Pack<T> sum{};
            for (int64_t u = 0; u < units; u += W)
                sum += load(weights + k * units + u) * load(panels + u * height + j * W);
            b.covariates[(first + j) * net.covariates + k] += reduce_add(sum);
        }
}

template <class T>
void back_layer_sums(const CausalSegment<T>& s, const CausalBack<T>& b, const Window& w, int layer) {
    const CausalNetwork& net = *s.network;
    const CausalLayer& l = net.layers[layer];
    const CausalTapeLayer& tape = s.shape->layers[layer];
    const CausalSumsLayer& to = b.shape->layers[layer];
    const BackScratch at = back_scratch(net);
    const int units = gate_units(net), outs = out_units(net, l), r = net.channel_units;
    T* const panels = s.scratch + at.panels;
    const T* const up = s.scratch + at.up + (l.is_last ? r * back_stride : 0);
    SumsArgs<T> out = value_panels<T>(s.scratch + at.gated, back_stride, net.channels, r, 0, w.positions, panels);
    out.gradient = up;
    out.stride = back_stride;
    out.sums = b.sums + to.out;
    sums_product(out, outs);
    add_line_sums(up, back_stride, outs, w.vectors, b.sums + to.out_bias);
    SumsArgs<T> gate = value_panels<T>(values_at(s, layer, w.begin), tape.value_stride, net.channels, r,
                                       ring_slots(net, l), w.positions, panels);
    gate.gradient = gates_at(s, layer, w.begin);
    gate.stride = tape.gate_stride;
    for (int64_t tap = 0; tap < net.kernel; ++tap) {
        SumsArgs<T> a = gate;
        a.panels += tap * l.dilation * width<T>;
        a.sums = b.sums + to.gate + tap * units * r;
        sums_product(a, units);
    }
}

// Computes h' from o', both in `up`, where the upper lines hold h'.
template <class T>
void back_layer(const CausalSegment<T>& s, const CausalBack<T>& b, const Window& w, int layer) {
    const CausalNetwork& net = *s.network;
    const CausalLayer& l = net.layers[layer];
    const CausalTapeLayer& tape = s.shape->layers[layer];
    const BackScratch at = back_scratch(net);
    const int units = gate_units(net), outs = out_units(net, l);
    T *const up = s.scratch + at.up, *const gated = s.scratch + at.gated;
    T* const gates = gates_at(s, layer, w.begin);
    BackLines<T> o{};
    o.weights = s.weights + l.out;
    o.unit = outs;
    o.lines = up + (l.is_last ? net.channel_units * back_stride : 0);
    o.row = o.to_row = back_stride;
    o.inputs = outs;
    o.taps = 1;
    o.to = gated;
    for_blocks<T>(w, [&](int64_t column, int vectors) {
        back_lines(o, net.channels, column, vectors);
        back_gates(net, gates, tape.gate_stride, gated, column, vectors);
    });
    add_line_sums(gates, tape.gate_stride, units, w.vectors, b.gate_bias + int64_t(layer) * units);
    if (b.sums) back_layer_sums(s, b, w, layer);
    if (s.side.frames) back_covariates(s, b, w, layer);
    BackLines<T> a{};
    a.weights = s.weights + l.gate;
    a.unit = units;
    a.tap = int64_t(net.channels) * units;
    a.lines = gates + ring_slots(net, l);
    a.row = tape.gate_stride;
    a.shift = -int64_t(l.dilation);
    a.inputs = units;
    a.taps = net.kernel;
    a.start = a.to = up;
    a.start_row = a.to_row = back_stride;
    for_blocks<T>(w, [&](int64_t column, int vectors) { back_lines(a, net.channels, column, vectors); });
}

// Computes gradients by the network's input from h' of the first layer in `up`.
template <class T>
void back_input(const CausalSegment<T>& s, const CausalBack<T>& b, const Window& w) {
    const CausalNetwork& net = *s.network;
    const BackScratch at = back_scratch(net);
    const int64_t stride = s.shape->first_stride, columns = int64_t(net.kernel) * net.inputs;
    const T* const up = s.scratch + at.up;
    T* const first = s.tape + s.shape->first + w.begin;
    for (int64_t u = 0; u < net.channels; ++u)
        for (int64_t t = 0; t < w.vectors * width<T>; t += width<T>)
            store(first + u * stride + t, load(up + u * back_stride + t));
    if (b.sums) {
        for (int64_t u = 0; u < net.channels; ++u)
            for (int64_t j = 0; j < columns; ++j) {
                const int64_t tap = j / net.inputs, c = j % net.inputs;
                const T* const values = read_at(s, w.begin - net.kernel + tap) + c * s.shape->read_stride;
                b.sums[b.shape->input + u * columns + j] += lines_dot(first + u * stride, values, w.vectors);
            }
        add_line_sums(first, stride, net.channels, w.vectors, b.sums + b.shape->input_bias);
    }
    if (!b.read) return;
    T* const lines = s.scratch + at.gated;  // channel_units lines of a block of columns
    for (int c = 0; c < net.inputs;) {
        const int n = net.inputs - c < net.channel_units ? net.inputs - c : net.channel_units;
        BackLines<T> a{};
        a.weights = s.weights + net.input + int64_t(c) * net.channel_units;
        a.unit = net.channel_units;
        a.tap = int64_t(net.inputs) * net.channel_units;
        a.lines = first + net.kernel;
        a.row = stride;
        a.shift = -1;
        a.inputs = net.channels;
        a.taps = net.kernel;
        a.to = lines;
        a.to_row = back_stride;
        for_blocks<T>(w, [&](int64_t column, int vectors) { back_lines(a, n, column, vectors); });
        for (int64_t t = 0; t < w.positions; ++t)
            for (int64_t k = 0; k < n; ++k) b.read[(w.begin + t) * net.inputs + c + k] = lines[k * back_stride + t];
        c += n;
    }
}

// The backward pass over a segment with its tape, from its last window to the first. The tape has the gradients by
// gates and by values of the first layer at positions after the segment.
template <class T>
void causal_back(const CausalSegment<T>& s, const CausalBack<T>& b) noexcept {
    const CausalNetwork& net = *s.network;
    const BackScratch at = back_scratch(net);
    T* const up = s.scratch + at.up;
    for (int64_t begin = (s.positions - 1) / back_window * back_window; begin >= 0; begin -= back_window) {
        const Window w = window_at(s, begin);
        for (int64_t i = 0; i < (net.channel_units + net.skip_units) * back_stride; i += width<T>)
            store(up + i, Pack<T>{});
        back_head(s, b, w);
        for (int l = net.n_layers - 1; l >= 0; --l) back_layer(s, b, w, l);
        back_input(s, b, w);
    }
}

}  // namespace
}  // namespace headrace
