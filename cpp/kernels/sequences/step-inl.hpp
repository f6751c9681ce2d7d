// One step of a few streams, whose lanes are units. Sums over a layer's old taps are computed at once for all next
// steps whose values are known, so that weights are read once. Weight is the values' type, or uint32_t for pairs of
// weights in bf16 (steps/causal.hpp).
#pragma once

#include <type_traits>

#include "../../math/gate.hpp"
#include "start-inl.hpp"

namespace headrace {
namespace {

// The scratch of a stream, or of a panel, with one value per lane in each line.
template <class T>
struct StepLines {
    T *values, *skip;  // values of the current layer (channel_units lines), and skip values (skip_units lines)
    T *gates, *gated, *hidden, *out, *covariates;
    T* frames;  // products of frames, [kept][layer][gate_units]
    T* ahead;   // sums of old taps, [layer][causal_ahead][gate_units]

    StepLines(const CausalSteps<T>& s, int stream) {
        const CausalNetwork& n = *s.network;
        T* at = s.scratch + stream * causal_steps_scratch(n, s.state.lanes);
        const auto take = [&](int64_t units) {
            T* const taken = at;
            at += units * s.state.lanes;
            return taken;
        };
        values = take(n.channel_units);
        skip = take(n.skip_units);
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

// The number of steps, at most `most`, that are computed ahead in the current step.
template <class T>
HR_FN int steps_ahead(const CausalSteps<T>& s, int most) {
    return int(s.steps - s.made < most ? s.steps - s.made : most);
}

// Whether sums over old taps are computed ahead, which reads weights once for `at_once` steps of each stream, instead
// of once in each step for all streams.
HR_FN bool is_made_ahead(int at_once, int streams) {
    return at_once == causal_ahead || at_once > streams;
}

// The weights of one tap of a layer's gates, and of the other products of a step.
template <class Weight, class T>
HR_FN const Weight* gate_weights(const CausalSteps<T>& s, int l, int tap) {
    const CausalNetwork& n = *s.network;
    if constexpr (std::is_same_v<Weight, T>)
        return s.weights + n.layers[l].gate + int64_t(tap) * n.channels * gate_units(n);
    else
        return s.pairs + n.layers[l].gate_pairs + int64_t(tap) * pair_lines(n.channels) * gate_units(n);
}

template <class Weight, class T>
HR_FN const Weight* step_weights(const CausalSteps<T>& s, uint32_t weights, uint32_t pairs) {
    if constexpr (std::is_same_v<Weight, T>)
        return s.weights + weights;
    else
        return s.pairs + pairs;
}

template <class T>
HR_FN const T* stream_bias(const CausalSteps<T>& s, int stream, int l) {
    return gate_bias_of(*s.network, s.weights, s.side, l) + (s.side.gate_bias ? stream * s.side.stream_bias : 0);
}

// Computes gate biases of a position, with covariates.
template <class T>
HR_FN void start_gates(const CausalSteps<T>& s, const StepLines<T>& lines, int stream, int l, int64_t position, T* to) {
    const CausalNetwork& n = *s.network;
    const T* const bias = stream_bias(s, stream, l);
    if (!s.side.frames) {
        for (int u = 0; u < gate_units(n); u += width<T>) store(to + u, load(bias + u));
        return;
    }
    const FramePlace<T> place = frame_place(n, s.side, position);
    const T *const first = lines.frame(s, place.first, l), *const second = lines.frame(s, place.second, l);
    for (int u = 0; u < gate_units(n); u += width<T>)
        store(to + u, interpolated(load(bias + u), load(first + u), load(second + u), place.share));
}

// Computes the sums of a layer's old taps for the next steps of a stream.
template <class Weight, class T>
void make_ahead(const CausalSteps<T>& s, const StepLines<T>& lines, int stream, int l, int at_once, T* to) {
    const CausalNetwork& n = *s.network;
    const CausalLayer& layer = n.layers[l];
    UnitProduct<T, Weight> a;
    a.weights = gate_weights<Weight>(s, l, 0);
    a.stride = gate_units(n);
    a.taps = n.kernel - 1;
    a.inputs = n.channels;
    a.rows = steps_ahead(s, at_once);
    const T* const ring = stream_numbers(n, s.state, stream) + layer.ring;
    const int64_t slots = ring_slots(n, layer);
    for (int step = 0; step < a.rows; ++step) {
        int64_t slot = s.slots[l] + step;
        if (slot >= slots) slot -= slots;
        for (int tap = 0; tap < a.taps; ++tap) a.x[tap][step] = ring + tap_slot(n, layer, slot, tap) * n.channel_units;
        a.start[step] = a.to[step] = to + step * gate_units(n);
        start_gates(s, lines, stream, l, s.state.position + step, a.to[step]);
    }
    unit_product(a, gate_units(n));
}

// Computes the products of the frames for the steps ahead.
template <class T>
void step_frames(CausalSteps<T>& s) {
    const CausalNetwork& n = *s.network;
    const int64_t from = frame_place(n, s.side, s.state.position).first;
    const int64_t to = frame_place(n, s.side, s.state.position + steps_ahead(s, causal_ahead) - 1).second;
    if (s.frames_ready < from) s.frames_ready = from;
    for (; s.frames_ready <= to; ++s.frames_ready)
        for (int stream = 0; stream < s.streams; ++stream) {
            const StepLines<T> lines(s, stream);
            const T* const frame = frame_of(n, s.side, s.frames_ready) + stream * s.side.stream_frames;
            for (int l = 0; l < n.n_layers; ++l)
                multiply_frame(n, s.weights, l, frame, lines.frame(s, s.frames_ready, l));
        }
}

// Computes a layer's gates from its current and its past values, and stores the current values.
template <class Weight, class T>
void step_gates(CausalSteps<T>& s, const StepLines<T>* lines, int l) {
    const CausalNetwork& n = *s.network;
    const CausalLayer& layer = n.layers[l];
    const int at_once = causal_steps_at_once(layer), step = int(s.made % at_once);
    const bool is_ahead = is_made_ahead(at_once, s.streams);
    const int first = is_ahead ? n.kernel - 1 : 0;
    UnitProduct<T, Weight> a;
    a.weights = gate_weights<Weight>(s, l, first);
    a.stride = gate_units(n);
    a.taps = n.kernel - first;
    a.inputs = n.channels;
    a.rows = s.streams;
    for (int r = 0; r < s.streams; ++r) {
        const T* const ring = stream_numbers(n, s.state, r) + layer.ring;
        for (int tap = first; tap + 1 < n.kernel; ++tap)
            a.x[tap - first][r] = ring + tap_slot(n, layer, s.slots[l], tap) * n.channel_units;
        a.x[n.kernel - 1 - first][r] = lines[r].values;
        a.to[r] = lines[r].gates;
        if (is_ahead) {
            T* const ahead = lines[r].ahead + int64_t(l) * causal_ahead * gate_units(n);
            if (step == 0) make_ahead<Weight>(s, lines[r], r, l, at_once, ahead);
            a.start[r] = ahead + step * gate_units(n);
        } else if (s.side.frames) {
            start_gates(s, lines[r], r, l, s.state.position, lines[r].gates);
            a.start[r] = lines[r].gates;
        } else {
            a.start[r] = stream_bias(s, r, l);
        }
    }
    unit_product(a, gate_units(n));
    for (int r = 0; r < s.streams; ++r) {
        T* const kept = stream_numbers(n, s.state, r) + layer.ring + int64_t(s.slots[l]) * n.channel_units;
        for (int u = 0; u < n.channel_units; u += width<T>) {
            store(kept + u, load(lines[r].values + u));
            store(lines[r].gated + u, gated(load(lines[r].gates + u), load(lines[r].gates + n.channel_units + u)));
        }
    }
    if (++s.slots[l] == ring_slots(n, layer)) s.slots[l] = 0;
}

template <class Weight, class T>
void step_head(const CausalSteps<T>& s, const StepLines<T>* lines, T* raw) {
    const CausalNetwork& n = *s.network;
    UnitProduct<T, Weight> a;
    a.weights = step_weights<Weight>(s, n.head, n.head_pairs);
    a.stride = n.skip_units;
    a.inputs = n.skip;
    a.rows = s.streams;
    a.relu = true;
    for (int r = 0; r < s.streams; ++r) {
        for (int u = 0; u < n.skip_units; u += width<T>) store(lines[r].gated + u, max(load(lines[r].skip + u), T(0)));
        a.x[0][r] = lines[r].gated;
        a.start[r] = s.weights + n.head_bias;
        a.to[r] = lines[r].hidden;
    }
    unit_product(a, n.skip_units);
    a.weights = step_weights<Weight>(s, n.last, n.last_pairs);
    a.stride = n.output_units;
    a.relu = false;
    for (int r = 0; r < s.streams; ++r) {
        a.x[0][r] = lines[r].hidden;
        a.start[r] = s.weights + n.last_bias;
        a.to[r] = lines[r].out;
    }
    unit_product(a, n.output_units);
    for (int r = 0; r < s.streams; ++r)
        for (int u = 0; u < n.outputs; ++u) raw[int64_t(r) * n.outputs + u] = lines[r].out[u];
}

template <class T>
void step_input(const CausalSteps<T>& s, const StepLines<T>* lines) {
    const CausalNetwork& n = *s.network;
    UnitProduct<T> a;
    a.weights = s.weights + n.input;
    a.stride = n.channel_units;
    a.taps = n.kernel;
    a.inputs = n.inputs;
    a.rows = s.streams;
    for (int r = 0; r < s.streams; ++r) {
        const T* const past = stream_numbers(n, s.state, r) + n.past;
        for (int tap = 0; tap < n.kernel; ++tap) a.x[tap][r] = past + (s.state.position + tap) % n.kernel * n.inputs;
        a.start[r] = s.weights + n.input_bias;
        a.to[r] = lines[r].values;
        for (int u = 0; u < n.skip_units; u += width<T>) store(lines[r].skip + u, Pack<T>{});
    }
    unit_product(a, n.channel_units);
}

template <class Weight, class T>
void streams_step(CausalSteps<T>& s, const StepLines<T>* lines, T* raw) {
    const CausalNetwork& n = *s.network;
    if (s.side.frames && s.made % causal_ahead == 0) step_frames(s);
    step_input(s, lines);
    for (int l = 0; l < n.n_layers; ++l) {
        const CausalLayer& layer = n.layers[l];
        step_gates<Weight>(s, lines, l);
        UnitProduct<T, Weight> a;
        a.weights = step_weights<Weight>(s, layer.out, layer.out_pairs);
        a.stride = out_units(n, layer);
        a.inputs = n.channels;
        a.rows = s.streams;
        a.adds = true;
        for (int r = 0; r < s.streams; ++r) {
            a.x[0][r] = lines[r].gated;
            a.start[r] = s.weights + layer.out_bias;
            a.to[r] = layer.is_last ? lines[r].skip : lines[r].values;
        }
        unit_product(a, int(a.stride));
    }
    step_head<Weight>(s, lines, raw);
}

}  // namespace
}  // namespace headrace
