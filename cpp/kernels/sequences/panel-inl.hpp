// One step of a panel of streams: lanes are streams.
#pragma once

#include "step-inl.hpp"

namespace headrace {
namespace {

// Computes products of the frames of a step, from the covariates of every lane.
template <class T>
void panel_frames(CausalSteps<T>& s, const StepLines<T>& lines, int vectors) {
    const CausalNetwork& n = *s.network;
    const int lanes = s.state.lanes;
    const FramePlace<T> place = frame_place(n, s.side, s.state.position);
    if (s.frames_ready < place.first) s.frames_ready = place.first;
    for (; s.frames_ready <= place.second; ++s.frames_ready) {
        for (int lane = 0; lane < lanes; ++lane) {
            const T* const from =
                frame_of(n, s.side, s.frames_ready) + (lane < s.streams ? lane : 0) * s.side.stream_frames;
            for (int c = 0; c < n.covariates; ++c) lines.covariates[c * lanes + lane] = from[c];
        }
        LineProduct<T> a{};
        a.stride = gate_units(n);
        a.taps = 1;
        a.inputs = n.covariates;
        a.x[0] = lines.covariates;
        a.row = a.to_row = lanes;
        for (int l = 0; l < n.n_layers; ++l) {
            a.weights = s.weights + n.layers[l].covariates;
            a.to = lines.frame(s, s.frames_ready, l);
            line_product(a, gate_units(n), vectors);
        }
    }
}

// Computes the start of a layer's gates: the gate biases plus the contribution of the covariates.
template <class T>
void panel_start(const CausalSteps<T>& s, const StepLines<T>& lines, int l) {
    const CausalNetwork& n = *s.network;
    const int64_t lanes = s.state.lanes;
    const FramePlace<T> place = frame_place(n, s.side, s.state.position);
    const T *const first = lines.frame(s, place.first, l), *const second = lines.frame(s, place.second, l);
    const T* const folded = s.side.gate_bias ? s.side.gate_bias + l * gate_units(n) * lanes : nullptr;
    for (int64_t u = 0; u < gate_units(n); ++u)
        for (int64_t at = u * lanes; at < (u + 1) * lanes; at += width<T>) {
            const Pack<T> bias = folded ? load(folded + at) : splat<Pack<T>>(s.weights[n.layers[l].gate_bias + u]);
            store(lines.gates + at, interpolated(bias, load(first + at), load(second + at), place.share));
        }
}

template <class T>
void panel_gates(CausalSteps<T>& s, const StepLines<T>& lines, int l, int vectors) {
    const CausalNetwork& n = *s.network;
    const CausalLayer& layer = n.layers[l];
    const int64_t lanes = s.state.lanes, column = n.channel_units * lanes;
    T* const ring = s.state.numbers + layer.ring * lanes;
    LineProduct<T> a{};
    a.weights = s.weights + layer.gate;
    a.stride = gate_units(n);
    a.taps = n.kernel;
    a.inputs = n.channels;
    for (int tap = 0; tap + 1 < n.kernel; ++tap) a.x[tap] = ring + tap_slot(n, layer, s.slots[l], tap) * column;
    a.x[n.kernel - 1] = lines.values;
    a.row = a.to_row = lanes;
    a.to = lines.gates;
    if (s.side.frames) {
        panel_start(s, lines, l);
        a.start = lines.gates;
        a.start_row = lanes;
    } else if (s.side.gate_bias) {
        a.start = s.side.gate_bias + l * gate_units(n) * lanes;
        a.start_row = lanes;
    } else {
        a.start = s.weights + layer.gate_bias;
    }
    line_product(a, n.channels, vectors);
    a.weights += n.channel_units;
    a.start += a.start_row ? column : n.channel_units;
    a.to += column;
    line_product(a, n.channels, vectors);
    T* const kept = ring + s.slots[l] * column;
    for (int64_t at = 0; at < n.channels * lanes; at += width<T>) {
        store(kept + at, load(lines.values + at));
        store(lines.gates + at, gated(load(lines.gates + at), load(lines.gates + column + at)));
    }
    if (++s.slots[l] == ring_slots(n, layer)) s.slots[l] = 0;
}

template <class T>
void panel_head(const CausalSteps<T>& s, const StepLines<T>& lines, int vectors, T* raw) {
    const CausalNetwork& n = *s.network;
    const int64_t lanes = s.state.lanes;
    for (int64_t at = 0; at < n.skip * lanes; at += width<T>) store(lines.gated + at, max(load(lines.skip + at), T(0)));
    LineProduct<T> a{};
    a.weights = s.weights + n.head;
    a.stride = n.skip_units;
    a.taps = 1;
    a.inputs = n.skip;
    a.x[0] = lines.gated;
    a.row = a.to_row = lanes;
    a.start = s.weights + n.head_bias;
    a.to = lines.hidden;
    a.relu = true;
    line_product(a, n.skip, vectors);
    a.weights = s.weights + n.last;
    a.stride = n.output_units;
    a.x[0] = lines.hidden;
    a.start = s.weights + n.last_bias;
    a.to = lines.out;
    a.relu = false;
    line_product(a, n.outputs, vectors);
    lines_to_rows<T>(lines.out, lanes, n.outputs, nullptr, nullptr, nullptr, s.streams, raw);
}

template <class T>
void panel_step(CausalSteps<T>& s, T* raw) {
    const StepLines<T> lines(s, 0);
    const CausalNetwork& n = *s.network;
    const int64_t lanes = s.state.lanes;
    const int vectors = int(lanes / width<T>);
    if (s.side.frames) panel_frames(s, lines, vectors);
    LineProduct<T> a{};
    a.weights = s.weights + n.input;
    a.stride = n.channel_units;
    a.taps = n.kernel;
    a.inputs = n.inputs;
    const T* const past = s.state.numbers + n.past * lanes;
    for (int tap = 0; tap < n.kernel; ++tap) a.x[tap] = past + (s.state.position + tap) % n.kernel * n.inputs * lanes;
    a.row = a.to_row = lanes;
    a.start = s.weights + n.input_bias;
    a.to = lines.values;
    line_product(a, n.channels, vectors);
    for (int64_t at = 0; at < n.skip_units * lanes; at += width<T>) store(lines.skip + at, Pack<T>{});
    for (int l = 0; l < n.n_layers; ++l) {
        const CausalLayer& layer = n.layers[l];
        panel_gates(s, lines, l, vectors);
        LineProduct<T> out{};
        out.weights = s.weights + layer.out;
        out.stride = out_units(n, layer);
        out.taps = 1;
        out.inputs = n.channels;
        out.x[0] = lines.gates;
        out.row = out.to_row = out.add_row = lanes;
        out.start = s.weights + layer.out_bias;
        if (!layer.is_last) {
            out.to = lines.values;
            out.add = out.to;
            line_product(out, n.channels, vectors);
            out.weights += n.channel_units;
            out.start += n.channel_units;
        }
        out.to = lines.skip;
        out.add = out.to;
        line_product(out, n.skip, vectors);
    }
    panel_head(s, lines, vectors, raw);
}

// Computes the outputs [stream][outputs] of the next position, whose inputs causal_push stores afterwards.
template <class T>
void causal_step(CausalSteps<T>& s, T* raw) noexcept {
    if (s.state.lanes > 1) {
        panel_step(s, raw);
        return;
    }
    const auto with_lines = [&]<int... I>(Indices<I...>) {
        const StepLines<T> lines[] = {StepLines<T>(s, I < s.streams ? I : 0)...};
        if constexpr (std::is_same_v<T, float>)
            if (s.pairs) return streams_step<uint32_t>(s, lines, raw);
        streams_step<T>(s, lines, raw);
    };
    with_lines(typename MakeIndices<most_unit_rows>::type{});
}

}  // namespace
}  // namespace headrace
