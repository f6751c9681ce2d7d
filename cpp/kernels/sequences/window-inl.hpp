// A window of positions of one sequence, whose lanes are positions, computed layer after layer. Lines of a layer begin
// with values of positions before the window, which are updated after the window.
#pragma once

#include "../../math/gate.hpp"
#include "start-inl.hpp"

namespace headrace {
namespace {

// The scratch of a window.
template <class T>
struct WindowLines {
    const CausalNetwork& network;
    const T* weights;
    const CausalSide<T>& side;
    int most;
    T* values;               // lines of channel_units with the values of all layers
    T *input, *skip;         // lines of the window
    T *gates, *gated, *out;  // lines of a block of positions
    T* frames;               // products of frames of the current layer
    int64_t row;             // distance of the lines of the window
    int block;               // number of positions of a block

    explicit WindowLines(const CausalWindow<T>& w)
        : network(*w.network), weights(w.weights), side(w.side), most(w.most), values(w.scratch) {
        const CausalNetwork& n = network;
        block = block_vectors * width<T>;
        row = causal_line(0, most).row;
        T* at = values;
        for (int l = 0; l < n.n_layers; ++l) at += n.channel_units * line(l).row;
        const auto take = [&](int64_t numbers) {
            T* const taken = at;
            at += numbers;
            return taken;
        };
        input = take(int64_t(n.kernel) * n.inputs * row);
        skip = take(n.skip_units * row);
        gates = take(int64_t(gate_units(n)) * block);
        gated = take(int64_t(n.channel_units > n.skip_units ? n.channel_units : n.skip_units) * block);
        out = take(int64_t(n.output_units) * block);
        frames = at;
    }

    CausalLine line(int l) const { return causal_line(ring_slots(network, network.layers[l]), most); }
};

// Computes the sums of gates for a block of positions from `first` on, and then their activation.
template <class T>
void window_gates(const WindowLines<T>& w, int l, const T* values, int64_t position, int first, int vectors) {
    const CausalNetwork& n = w.network;
    const CausalLayer& layer = n.layers[l];
    constexpr int W = width<T>;
    const T* const bias = gate_bias_of(n, w.weights, w.side, l);
    LineProduct<T> a{};
    a.weights = w.weights + layer.gate;
    a.stride = gate_units(n);
    a.taps = n.kernel;
    a.inputs = n.channels;
    a.row = w.line(l).row;
    for (int tap = 0; tap < n.kernel; ++tap) a.x[tap] = values + first - int64_t(n.kernel - 1 - tap) * layer.dilation;
    a.to = w.gates;
    a.to_row = w.block;
    a.start = bias;
    if (w.side.frames) {
        const int64_t first_frame = frame_place(n, w.side, position).first, last = w.side.first_frame + w.side.n_frames;
        for (int v = 0; v < vectors; ++v)
            for (int u = 0; u < gate_units(n); u += W) {
                Pack<T> lanes[W];
                for (int i = 0; i < W; ++i) {
                    FramePlace<T> place = frame_place(n, w.side, position + first + v * W + i);
                    if (place.first >= last) place = {last - 1, last - 1, T(0)};  // a lane after the sequence
                    const T* const p = w.frames + u;
                    lanes[i] = interpolated(load(bias + u), load(p + (place.first - first_frame) * gate_units(n)),
                                            load(p + (place.second - first_frame) * gate_units(n)), place.share);
                }
                transpose(lanes);
                for (int i = 0; i < W; ++i) store(w.gates + (u + i) * w.block + v * W, lanes[i]);
            }
        a.start = w.gates;
        a.start_row = w.block;
    }
    line_product(a, n.channels, vectors);
    a.weights += n.channel_units;
    a.start += a.start_row ? n.channel_units * a.start_row : n.channel_units;
    a.to += n.channel_units * a.to_row;
    line_product(a, n.channels, vectors);
    for (int64_t u = 0; u < n.channels; ++u) {
        T* const line = w.gates + u * w.block;
        for (int v = 0; v < vectors * W; v += W)
            store(line + v, gated(load(line + v), load(line + n.channel_units * w.block + v)));
    }
}

// Computes the products of all frames that positions [position, position + n) read.
template <class T>
void window_frames(const WindowLines<T>& w, int l, int64_t position, int n) {
    const int64_t from = frame_place(w.network, w.side, position).first;
    const int64_t to = frame_place(w.network, w.side, position + n - 1).second;
    for (int64_t frame = from; frame <= to; ++frame)
        multiply_frame(w.network, w.weights, l, frame_of(w.network, w.side, frame),
                       w.frames + (frame - from) * gate_units(w.network));
}

// Computes outputs [position][outputs] of a block of n positions.
template <class T>
void window_head(const WindowLines<T>& w, int first, int n, int vectors, T* raw) {
    const CausalNetwork& net = w.network;
    constexpr int W = width<T>;
    for (int64_t u = 0; u < net.skip; ++u) {
        T* const line = w.skip + u * w.row + first;
        for (int v = 0; v < vectors * W; v += W) store(line + v, max(load(line + v), T(0)));
    }
    LineProduct<T> a{};
    a.weights = w.weights + net.head;
    a.stride = net.skip_units;
    a.taps = 1;
    a.inputs = net.skip;
    a.x[0] = w.skip + first;
    a.row = w.row;
    a.start = w.weights + net.head_bias;
    a.to = w.gated;
    a.to_row = w.block;
    a.relu = true;
    line_product(a, net.skip, vectors);
    a.weights = w.weights + net.last;
    a.stride = net.output_units;
    a.x[0] = w.gated;
    a.row = w.block;
    a.start = w.weights + net.last_bias;
    a.to = w.out;
    a.relu = false;
    line_product(a, net.outputs, vectors);
    lines_to_rows<T>(w.out, w.block, net.outputs, nullptr, nullptr, nullptr, n, raw);
}

template <class T>
void window_input(const WindowLines<T>& w, const T* v, int n, int vectors) {
    const CausalNetwork& net = w.network;
    for (int i = 0; i < net.kernel; ++i)
        for (int c = 0; c < net.inputs; ++c) {
            T* const line = w.input + (int64_t(i) * net.inputs + c) * w.row;
            for (int t = 0; t < n; ++t) line[t] = v[int64_t(t + i) * net.inputs + c];
            for (int t = n; t < vectors * width<T>; ++t) line[t] = T(0);
        }
    LineProduct<T> a{};
    a.weights = w.weights + net.input;
    a.stride = net.channel_units;
    a.taps = 1;
    a.inputs = net.kernel * net.inputs;
    a.x[0] = w.input;
    a.row = w.row;
    a.start = w.weights + net.input_bias;
    const CausalLine line = w.line(0);
    a.to = w.values + line.before;
    a.to_row = line.row;
    line_product(a, net.channels, vectors);
}

// Computes positions [position, position + n) of a sequence: v [kernel + n][inputs] begins with the inputs before these
// positions. raw is [n][outputs], or null where only the values before the next window are needed.
template <class T>
void causal_window(const CausalWindow<T>& window, const T* v, int64_t position, int n, T* raw) noexcept {
    const WindowLines<T> w(window);
    const CausalNetwork& net = w.network;
    const int all = (n + width<T> - 1) / width<T>, of_block = w.block / width<T>;
    window_input(w, v, n, all);
    for (int64_t u = 0; u < net.skip_units; ++u)
        for (int t = 0; t < all * width<T>; t += width<T>) store(w.skip + u * w.row + t, Pack<T>{});
    T* lines = w.values;
    for (int l = 0; l < net.n_layers; ++l) {
        const CausalLayer& layer = net.layers[l];
        const CausalLine line = w.line(l);
        T *const values = lines + line.before, *const next = lines + net.channel_units * line.row;
        if (w.side.frames) window_frames(w, l, position, n);
        for (int vector = 0; vector < all; vector += of_block) {
            const int vectors = all - vector < of_block ? all - vector : of_block, first = vector * width<T>;
            window_gates(w, l, values, position, first, vectors);
            LineProduct<T> a{};
            a.weights = w.weights + layer.out;
            a.stride = out_units(net, layer);
            a.taps = 1;
            a.inputs = net.channels;
            a.x[0] = w.gates;
            a.row = w.block;
            a.start = w.weights + layer.out_bias;
            if (!layer.is_last) {
                const CausalLine above = w.line(l + 1);
                a.to = next + above.before + first;
                a.to_row = above.row;
                a.add = values + first;
                a.add_row = line.row;
                line_product(a, net.channels, vectors);
                a.weights += net.channel_units;
                a.start += net.channel_units;
            }
            a.to = w.skip + first;
            a.to_row = w.row;
            a.add = a.to;
            a.add_row = w.row;
            line_product(a, net.skip, vectors);
        }
        const int64_t before = ring_slots(net, layer);
        for (int u = 0; u < net.channels; ++u)
            __builtin_memmove(values + u * line.row - before, values + u * line.row + n - before, before * sizeof(T));
        lines = next;
    }
    if (!raw) return;
    for (int vector = 0; vector < all; vector += of_block) {
        const int vectors = all - vector < of_block ? all - vector : of_block, first = vector * width<T>;
        const int positions = n - first < w.block ? n - first : w.block;
        window_head(w, first, positions, vectors, raw + int64_t(first) * net.outputs);
    }
}

// Loads the values before a window from the first stream of a state, or zeros without a state.
template <class T>
void causal_window_begin(const CausalWindow<T>& window, const CausalState<T>* state) noexcept {
    const WindowLines<T> w(window);
    const CausalNetwork& n = w.network;
    T* lines = w.values;
    for (int l = 0; l < n.n_layers; ++l) {
        const CausalLine line = w.line(l);
        const int64_t slots = ring_slots(n, n.layers[l]);
        for (int u = 0; u < n.channels; ++u) {
            T* const to = lines + u * line.row + line.before - slots;
            if (!state) {
                for (int64_t i = 0; i < slots; ++i) to[i] = T(0);
                continue;
            }
            const T* const ring = state->numbers + (int64_t(n.layers[l].ring) + u) * state->lanes;
            int64_t slot = state->position % slots;
            for (int64_t i = 0; i < slots; ++i) {
                to[i] = ring[slot * n.channel_units * state->lanes];
                if (++slot == slots) slot = 0;
            }
        }
        lines += n.channel_units * line.row;
    }
}

// Stores the last values of each layer in a state, for the position that the windows have reached.
template <class T>
void causal_window_end(const CausalWindow<T>& window, const CausalState<T>& state) noexcept {
    const WindowLines<T> w(window);
    const CausalNetwork& n = w.network;
    const T* lines = w.values;
    for (int l = 0; l < n.n_layers; ++l) {
        const CausalLine line = w.line(l);
        const int64_t slots = ring_slots(n, n.layers[l]);
        for (int u = 0; u < n.channels; ++u) {
            const T* const from = lines + u * line.row + line.before - slots;
            T* const ring = state.numbers + (int64_t(n.layers[l].ring) + u) * state.lanes;
            int64_t slot = state.position % slots;
            for (int64_t i = 0; i < slots; ++i) {
                ring[slot * n.channel_units * state.lanes] = from[i];
                if (++slot == slots) slot = 0;
            }
        }
        lines += n.channel_units * line.row;
    }
}

}  // namespace
}  // namespace headrace
