// The run of a segment of a sequence through a causal network with a tape (core/sequences/back.hpp); outputs have the
// bits of the kernels without a tape.
#pragma once

#include "lines-inl.hpp"

#include "../../core/sequences/back.hpp"
#include "../../math/gate.hpp"
#include "start-inl.hpp"

namespace headrace {
namespace {

// A window of a segment, with positions counted from the segment's first position.
struct Window {
    int64_t begin;
    int positions, vectors;
};

template <class T>
HR_FN Window window_at(const CausalSegment<T>& s, int64_t begin) {
    const int64_t left = s.positions - begin;
    const int n = int(left < back_window ? left : back_window);
    return {begin, n, (n + width<T> - 1) / width<T>};
}

// Calls f(first column, vectors) for blocks of a window's columns, each as wide as a block of products.
template <class T, class F>
HR_FN void for_blocks(const Window& w, F&& f) {
    for (int v = 0; v < w.vectors;) {
        const int n = part(w.vectors - v, block_vectors);
        f(int64_t(v) * width<T>, n);
        v += n;
    }
}

// The lines of a layer's values, and of its gates, at a position.
template <class T>
HR_FN T* values_at(const CausalSegment<T>& s, int layer, int64_t position) {
    const CausalTapeLayer& l = s.shape->layers[layer];
    return s.tape + l.values + l.front + position;
}

template <class T>
HR_FN T* gates_at(const CausalSegment<T>& s, int layer, int64_t position) {
    return s.tape + s.shape->layers[layer].gates + position;
}

template <class T>
HR_FN T* read_at(const CausalSegment<T>& s, int64_t position) {
    return s.tape + s.shape->read + s.shape->read_front + position;
}

template <class T>
HR_FN T* head_at(const CausalSegment<T>& s, int which, int64_t position) {
    return s.tape + s.shape->head[which] + position;
}

// ---- gates ----------------------------------------------------------------------------------------------------------

// Computes lines of the start of a layer's gates at the window's positions, where there are covariates.
template <class T>
void record_starts(const CausalSegment<T>& s, const Window& w, int layer) {
    const CausalNetwork& net = *s.network;
    const BackScratch at = back_scratch(net);
    constexpr int W = width<T>;
    const int64_t units = gate_units(net), begin = s.begin + w.begin;
    T *const products = s.scratch + at.products, *const starts = s.scratch + at.starts;
    const int64_t first = frame_place(net, s.side, begin).first;
    const int64_t last = frame_place(net, s.side, begin + w.positions - 1).second;
    for (int64_t frame = first; frame <= last; ++frame)
        multiply_frame(net, s.weights, layer, frame_of(net, s.side, frame), products + (frame - first) * units);
    const T* const bias = gate_bias_of(net, s.weights, s.side, layer);
    for (int64_t t = 0; t < w.vectors * W; t += W)
        for (int64_t u = 0; u < units; u += W) {
            Pack<T> lanes[W];
            for (int i = 0; i < W; ++i) {
                const int64_t position = t + i < w.positions ? t + i : w.positions - 1;
                const FramePlace<T> place = frame_place(net, s.side, begin + position);
                lanes[i] = interpolated(load(bias + u), load(products + (place.first - first) * units + u),
                                        load(products + (place.second - first) * units + u), place.share);
            }
            transpose(lanes);
            for (int i = 0; i < W; ++i) store(starts + (u + i) * back_stride + t, lanes[i]);
        }
}

// Replaces the arguments of gates in a block of columns by the gates' values, and computes the gated values.
template <class T>
void record_gates(const CausalNetwork& net, T* gates, int64_t stride, T* through, int vectors) {
    T* const second = gates + int64_t(net.channel_units) * stride;
    for (int64_t r = 0; r < net.channels; ++r)
        for (int v = 0; v < vectors * width<T>; v += width<T>) {
            const Pack<T> a = load(gates + r * stride + v), b = load(second + r * stride + v);
            store(through + r * back_stride + v, gated(a, b));
            const OpenGate<Pack<T>> open = open_gate(a, b);
            store(gates + r * stride + v, open.tanh);
            store(second + r * stride + v, open.sigmoid);
        }
}

// ---- layers ---------------------------------------------------------------------------------------------------------

template <class T>
void record_input(const CausalSegment<T>& s, const Window& w) {
    const CausalNetwork& net = *s.network;
    LineProduct<T> a{};
    a.weights = s.weights + net.input;
    a.stride = net.channel_units;
    a.taps = net.kernel;
    a.inputs = net.inputs;
    for (int tap = 0; tap < net.kernel; ++tap) a.x[tap] = read_at(s, w.begin - net.kernel + tap);
    a.row = s.shape->read_stride;
    a.start = s.weights + net.input_bias;
    a.to = values_at(s, 0, w.begin);
    a.to_row = s.shape->layers[0].value_stride;
    line_product(a, net.channels, w.vectors);
}

template <class T>
HR_FN void move_lanes(LineProduct<T>& a, int64_t lanes) {
    for (int tap = 0; tap < a.taps; ++tap) a.x[tap] += lanes;
    if (a.start_row) a.start += lanes;
    if (a.add) a.add += lanes;
    a.to += lanes;
}

template <class T>
HR_FN LineProduct<T> gate_product(const CausalSegment<T>& s, const Window& w, int layer) {
    const CausalNetwork& net = *s.network;
    const CausalLayer& l = net.layers[layer];
    LineProduct<T> a{};
    a.weights = s.weights + l.gate;
    a.stride = gate_units(net);
    a.taps = net.kernel;
    a.inputs = net.channels;
    for (int tap = 0; tap < net.kernel; ++tap)
        a.x[tap] = values_at(s, layer, w.begin) - int64_t(net.kernel - 1 - tap) * l.dilation;
    a.row = s.shape->layers[layer].value_stride;
    a.start = gate_bias_of(net, s.weights, s.side, layer);
    if (s.side.frames) {
        a.start = s.scratch + back_scratch(net).starts;
        a.start_row = back_stride;
    }
    a.to = gates_at(s, layer, w.begin);
    a.to_row = s.shape->layers[layer].gate_stride;
    return a;
}

template <class T>
void record_layer(const CausalSegment<T>& s, const Window& w, int layer) {
    const CausalNetwork& net = *s.network;
    const CausalLayer& l = net.layers[layer];
    const int64_t half = net.channel_units;
    if (s.side.frames) record_starts(s, w, layer);
    LineProduct<T> first = gate_product(s, w, layer), second = first;
    second.weights += half;
    second.start += half * (second.start_row ? second.start_row : 1);
    second.to += half * second.to_row;
    LineProduct<T> out{};
    out.weights = s.weights + l.out;
    out.stride = out_units(net, l);
    out.taps = 1;
    out.inputs = net.channels;
    out.x[0] = s.scratch + back_scratch(net).gated;
    out.row = back_stride;
    out.start = s.weights + l.out_bias;
    LineProduct<T> skip = out;
    if (!l.is_last) {
        out.add = values_at(s, layer, w.begin);
        out.add_row = s.shape->layers[layer].value_stride;
        out.to = values_at(s, layer + 1, w.begin);
        out.to_row = s.shape->layers[layer + 1].value_stride;
        skip.weights += half;
        skip.start += half;
    }
    skip.to = head_at(s, 0, w.begin);
    skip.to_row = skip.add_row = s.shape->head_stride;
    skip.add = skip.to;
    skip.relu = l.is_last;
    for_blocks<T>(w, [&](int64_t column, int vectors) {
        LineProduct<T> parts[4] = {first, second, out, skip};
        for (LineProduct<T>& p : parts) move_lanes(p, column);
        line_product(parts[0], net.channels, vectors);
        line_product(parts[1], net.channels, vectors);
        record_gates(net, parts[0].to, parts[0].to_row, s.scratch + back_scratch(net).gated + column, vectors);
        if (!l.is_last) line_product(parts[2], net.channels, vectors);
        line_product(parts[3], net.skip, vectors);
    });
}

// Computes outputs [position][outputs] from skip values after their rectifier.
template <class T>
void record_head(const CausalSegment<T>& s, const Window& w, T* outputs) {
    const CausalNetwork& net = *s.network;
    T* const lines = s.scratch + back_scratch(net).outputs;
    LineProduct<T> a{};
    a.weights = s.weights + net.head;
    a.stride = net.skip_units;
    a.taps = 1;
    a.inputs = net.skip;
    a.x[0] = head_at(s, 0, w.begin);
    a.row = s.shape->head_stride;
    a.start = s.weights + net.head_bias;
    a.to = head_at(s, 1, w.begin);
    a.to_row = s.shape->head_stride;
    a.relu = true;
    line_product(a, net.skip, w.vectors);
    a.weights = s.weights + net.last;
    a.stride = net.output_units;
    a.x[0] = a.to;
    a.start = s.weights + net.last_bias;
    a.to = lines;
    a.to_row = back_stride;
    a.relu = false;
    line_product(a, net.outputs, w.vectors);
    lines_to_rows<T>(lines, back_stride, net.outputs, nullptr, nullptr, nullptr, w.positions,
                     outputs + w.begin * net.outputs);
}

// Computes the segment's outputs, [position][outputs]. Values of layers before the segment and the network's input are
// on the tape.
template <class T>
void causal_record(const CausalSegment<T>& s, T* outputs) noexcept {
    const CausalNetwork& net = *s.network;
    for (int64_t begin = 0; begin < s.positions; begin += back_window) {
        const Window w = window_at(s, begin);
        record_input(s, w);
        for (int64_t u = 0; u < net.skip_units; ++u)
            for (int64_t t = 0; t < w.vectors * width<T>; t += width<T>)
                store(head_at(s, 0, begin) + u * s.shape->head_stride + t, Pack<T>{});
        for (int l = 0; l < net.n_layers; ++l) record_layer(s, w, l);
        record_head(s, w, outputs);
    }
}

}  // namespace
}  // namespace headrace
