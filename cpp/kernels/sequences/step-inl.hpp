// One step of one stream: lanes are units. What is known of the next steps, sums over taps that are at least
// causal_ahead steps old, is made for all of these at once, so that its weights are read once.
#pragma once

#include "../../math/gate.hpp"
#include "start-inl.hpp"

namespace headrace {
namespace {

// Its scratch, in units of one lane; a panel's lines have one number a lane.
template <class T>
struct StepLines {
    T* values;  // of the layer at hand: channel_units, then skip: skip_units
    T *gates, *gated, *hidden, *out, *covariates;
    T* frames;  // [kept][layer][gate_units]
    T* ahead;   // [layer][causal_ahead][gate_units]

    explicit StepLines(const CausalSteps<T>& s) {
        const CausalNetwork& n = *s.network;
        T* at = s.scratch;
        const auto take = [&](int64_t units) {
            T* const taken = at;
            at += units * s.state.lanes;
            return taken;
        };
        values = take(n.channel_units + n.skip_units);
        gates = take(gate_units(n));
        gated = take(n.channel_units > n.skip_units ? n.channel_units : n.skip_units);
        hidden = take(n.skip_units);
        out = take(n.output_units);
        covariates = take(round_up(n.covariates, 16));
        frames = take(int64_t(causal_kept_frames(n, s.state.lanes)) * n.n_layers * gate_units(n));
        ahead = at;
    }

    T* frame(const CausalSteps<T>& s, int64_t frame, int l) const {
        const CausalNetwork& n = *s.network;
        return frames + (frame % causal_kept_frames(n, s.state.lanes) * n.n_layers + l) * gate_units(n) * s.state.lanes;
    }
};

// The slot of the values that a tap of a layer reads.
HR_FN int64_t tap_slot(const CausalNetwork& n, const CausalLayer& layer, int64_t slot, int tap) {
    const int64_t slots = ring_slots(n, layer), at = slot + int64_t(tap) * layer.dilation;
    return at < slots ? at : at - slots;
}

// Gate biases of a position, with covariates.
template <class T>
HR_FN void start_gates(const CausalSteps<T>& s, const StepLines<T>& lines, int l, int64_t position, T* to) {
    const CausalNetwork& n = *s.network;
    const T* const bias = gate_bias_of(n, s.weights, s.side, l);
    if (!s.side.frames) {
        for (int u = 0; u < gate_units(n); u += width<T>) store(to + u, load(bias + u));
        return;
    }
    const FramePlace<T> place = frame_place(n, s.side, position);
    const T *const first = lines.frame(s, place.first, l), *const second = lines.frame(s, place.second, l);
    for (int u = 0; u < gate_units(n); u += width<T>)
        store(to + u, interpolated(load(bias + u), load(first + u), load(second + u), place.share));
}

// Sums of a layer's old taps for the next `steps` steps.
template <class T>
void make_ahead(const CausalSteps<T>& s, const StepLines<T>& lines, int l, int steps, T* to) {
    const CausalNetwork& n = *s.network;
    const CausalLayer& layer = n.layers[l];
    AheadProduct<T> a{};
    a.weights = s.weights + layer.gate;
    a.stride = gate_units(n);
    a.taps = n.kernel - 1;
    a.inputs = n.channels;
    const T* const ring = s.state.numbers + layer.ring;
    const int64_t slots = ring_slots(n, layer);
    for (int step = 0; step < causal_ahead; ++step) {
        const int known = step < steps ? step : steps - 1;  // steps that do not come have the sums of the last one
        int64_t slot = s.slots[l] + known;
        if (slot >= slots) slot -= slots;
        for (int tap = 0; tap + 1 < n.kernel; ++tap)
            a.x[tap][step] = ring + tap_slot(n, layer, slot, tap) * n.channel_units;
        start_gates(s, lines, l, s.state.position + known, to + step * gate_units(n));
    }
    a.to = to;
    a.to_row = gate_units(n);
    ahead_product(a, gate_units(n));
}

// Products of the frames that the next `steps` steps need.
template <class T>
HR_FN void step_frames(CausalSteps<T>& s, const StepLines<T>& lines, int steps) {
    const CausalNetwork& n = *s.network;
    const int64_t from = frame_place(n, s.side, s.state.position).first;
    const int64_t to = frame_place(n, s.side, s.state.position + steps - 1).second;
    if (s.frames_ready < from) s.frames_ready = from;
    for (; s.frames_ready <= to; ++s.frames_ready)
        for (int l = 0; l < n.n_layers; ++l)
            multiply_frame(n, s.weights, l, frame_of(n, s.side, s.frames_ready), lines.frame(s, s.frames_ready, l));
}

// A layer's gates, from its values and those that it keeps; the former are kept, too.
template <class T>
HR_FN void step_gates(CausalSteps<T>& s, const StepLines<T>& lines, int l) {
    const CausalNetwork& n = *s.network;
    const CausalLayer& layer = n.layers[l];
    const int step = int(s.made % causal_ahead);
    T* const ring = s.state.numbers + layer.ring;
    const bool is_ahead = layer.dilation >= causal_ahead;
    const int first = is_ahead ? n.kernel - 1 : 0;
    UnitProduct<T> a{};
    a.weights = s.weights + layer.gate + int64_t(first) * n.channels * gate_units(n);
    a.stride = gate_units(n);
    a.taps = n.kernel - first;
    a.inputs = n.channels;
    for (int tap = first; tap + 1 < n.kernel; ++tap)
        a.x[tap - first] = ring + tap_slot(n, layer, s.slots[l], tap) * n.channel_units;
    a.x[n.kernel - 1 - first] = lines.values;
    a.to = lines.gates;
    if (is_ahead) {
        T* const ahead = lines.ahead + int64_t(l) * causal_ahead * gate_units(n);
        if (step == 0)
            make_ahead(s, lines, l, int(s.steps - s.made < causal_ahead ? s.steps - s.made : causal_ahead), ahead);
        a.start = ahead + step * gate_units(n);
    } else if (s.side.frames) {
        start_gates(s, lines, l, s.state.position, lines.gates);
        a.start = lines.gates;
    } else {
        a.start = gate_bias_of(n, s.weights, s.side, l);
    }
    unit_product(a, gate_units(n));
    T* const kept = ring + int64_t(s.slots[l]) * n.channel_units;
    for (int u = 0; u < n.channel_units; u += width<T>) {
        store(kept + u, load(lines.values + u));
        store(lines.gated + u, gated(load(lines.gates + u), load(lines.gates + n.channel_units + u)));
    }
    if (++s.slots[l] == ring_slots(n, layer)) s.slots[l] = 0;
}

template <class T>
HR_FN void step_head(const CausalSteps<T>& s, const StepLines<T>& lines, T* raw) {
    const CausalNetwork& n = *s.network;
    const T* const skip = lines.values + n.channel_units;
    for (int u = 0; u < n.skip_units; u += width<T>) store(lines.gated + u, max(load(skip + u), T(0)));
    UnitProduct<T> a{};
    a.weights = s.weights + n.head;
    a.stride = n.skip_units;
    a.taps = 1;
    a.inputs = n.skip;
    a.x[0] = lines.gated;
    a.start = s.weights + n.head_bias;
    a.to = lines.hidden;
    a.relu = true;
    unit_product(a, n.skip_units);
    a.weights = s.weights + n.last;
    a.stride = n.output_units;
    a.x[0] = lines.hidden;
    a.start = s.weights + n.last_bias;
    a.to = lines.out;
    a.relu = false;
    unit_product(a, n.output_units);
    for (int u = 0; u < n.outputs; ++u) raw[u] = lines.out[u];
}

template <class T>
void stream_step(CausalSteps<T>& s, T* raw) {
    const StepLines<T> lines(s);
    const CausalNetwork& n = *s.network;
    const int step = int(s.made % causal_ahead);
    if (s.side.frames && step == 0)
        step_frames(s, lines, int(s.steps - s.made < causal_ahead ? s.steps - s.made : causal_ahead));
    UnitProduct<T> a{};
    a.weights = s.weights + n.input;
    a.stride = n.channel_units;
    a.taps = n.kernel;
    a.inputs = n.inputs;
    const T* const past = s.state.numbers + n.past;
    for (int tap = 0; tap < n.kernel; ++tap) a.x[tap] = past + (s.state.position + tap) % n.kernel * n.inputs;
    a.start = s.weights + n.input_bias;
    a.to = lines.values;
    unit_product(a, n.channel_units);
    for (int u = 0; u < n.skip_units; u += width<T>) store(lines.values + n.channel_units + u, Pack<T>{});
    for (int l = 0; l < n.n_layers; ++l) {
        const CausalLayer& layer = n.layers[l];
        step_gates(s, lines, l);
        UnitProduct<T> out{};
        out.weights = s.weights + layer.out;
        out.stride = out_units(n, layer);
        out.taps = 1;
        out.inputs = n.channels;
        out.x[0] = lines.gated;
        out.start = s.weights + layer.out_bias;
        out.to = lines.values + (layer.is_last ? n.channel_units : 0);
        out.add = out.to;
        unit_product(out, int(out.stride));
    }
    if (raw) step_head(s, lines, raw);
}

}  // namespace
}  // namespace headrace
