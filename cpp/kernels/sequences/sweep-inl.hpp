// The sweep from a sequence's last position to the first (core/sequences/sweep.hpp): lanes are the inputs of matrices.
// Sums over taps that look at positions at least causal_ahead later are computed for the next positions at once.
#pragma once

#include "../../core/sequences/sweep.hpp"
#include "record-inl.hpp"
#include "step-inl.hpp"

namespace headrace {
namespace {

constexpr int sweep_chains = 4;  // of a sum: few lanes wait for each other less

// to[unit] = start[unit] + sum over taps and inputs of weights[tap][input][unit] x[tap][input]; the inputs, a multiple
// of the chains, are cut into as many parts.
template <class T>
struct ChainProduct {
    const T* weights;
    int64_t stride;
    int taps = 1, inputs;
    const T* x[most_causal_taps];
    const T* start;
    T* to;
};

template <int N, class T>
void chain_block(const ChainProduct<T>& a, int unit) {
    using V = Pack<T>;
    V sum[sweep_chains][N] = {};
    const int64_t part = a.inputs / sweep_chains, stride = a.stride;
    const T* w = a.weights + unit;
    for (int tap = 0; tap < a.taps; ++tap, w += a.inputs * stride) {
        const T* const x = a.x[tap];
        for (int64_t i = 0; i < part; ++i)
            for (int c = 0; c < sweep_chains; ++c) {
                const int64_t at = c * part + i;
                const T input = x[at];
                for (int n = 0; n < N; ++n) sum[c][n] += input * load(w + at * stride + n * width<T>);
            }
    }
    for (int n = 0; n < N; ++n) {
        const int64_t at = unit + n * width<T>;
        store(a.to + at, load(a.start + at) + ((sum[0][n] + sum[1][n]) + (sum[2][n] + sum[3][n])));
    }
}

// Units are whole vectors.
template <class T>
HR_FN void chain_product(const ChainProduct<T>& a, int units) {
    constexpr int most = block_units / 2;
    const int vectors = units / width<T>;
    for (int v = 0; v < vectors;) {
        const int n = part(vectors - v, most);
        with_sizes<1, most>(1, n, [&]<int, int N>() { chain_block<N>(a, v * width<T>); });
        v += n;
    }
}

// Scratch of the sweep.
template <class T>
struct SweepLines {
    T *outputs, *hidden, *skip, *through, *zeros;  // `through`: [layer][channel_units], gradients by gated values
    T *up, *gates;
    T *gate_factors, *head;  // of a block: [position][layer][gate_units], [position][two][skip_units]

    SweepLines(const CausalNetwork& n, const CausalSweep<T>& w) {
        T* at = w.state + w.shape->lines;
        const auto take = [&](int64_t units) {
            T* const taken = at;
            at += units;
            return taken;
        };
        outputs = take(n.output_units);
        hidden = take(n.skip_units);
        skip = take(n.skip_units);
        through = take(int64_t(n.n_layers) * n.channel_units);
        zeros = take(n.skip_units);
        up = take(n.channel_units);
        gates = take(gate_units(n));
        gate_factors = w.state + w.shape->factors;
        head = gate_factors + int64_t(sweep_block) * n.n_layers * gate_units(n);
    }
};

// Moves positions [position, position + sweep_block) of `units` lines to [position][units], `to_row` apart.
template <class T, class F>
HR_FN void turn_lines(const T* lines, int64_t stride, int units, T* to, int64_t to_row, F&& f) {
    constexpr int W = width<T>;
    for (int64_t t = 0; t < sweep_block; t += W)
        for (int64_t u = 0; u < units; u += W) {
            Pack<T> lanes[W];
            for (int i = 0; i < W; ++i) lanes[i] = f(lines + (u + i) * stride + t);
            transpose(lanes);
            for (int i = 0; i < W; ++i) store(to + (t + i) * to_row + u, lanes[i]);
        }
}

// What gradients by gated values are multiplied by for those by the gates' arguments; and the head's values.
template <class T>
void sweep_factors(const CausalSegment<T>& s, const SweepLines<T>& lines, int64_t begin) {
    const CausalNetwork& n = *s.network;
    const int64_t row = int64_t(n.n_layers) * gate_units(n);
    for (int l = 0; l < n.n_layers; ++l) {
        const T* const gates = gates_at(s, l, begin);
        const int64_t stride = s.shape->layers[l].gate_stride, half = n.channel_units * stride;
        T* const to = lines.gate_factors + int64_t(l) * gate_units(n);
        turn_lines(gates, stride, n.channel_units, to, row, [&](const T* at) {
            const Pack<T> tanh = load(at);
            return load(at + half) * fma(-tanh, tanh, T(1));
        });
        turn_lines(gates, stride, n.channel_units, to + n.channel_units, row, [&](const T* at) {
            const Pack<T> sigmoid = load(at + half);
            return load(at) * sigmoid * (T(1) - sigmoid);
        });
    }
    for (int which = 0; which < 2; ++which)
        turn_lines(head_at(s, which, begin), s.shape->head_stride, n.skip_units, lines.head + which * n.skip_units,
                   2 * n.skip_units, [](const T* at) { return load(at); });
}

// The slot of a layer's gradients `later` positions after the one of `slot`, or before it.
HR_FN int64_t slot_after(int64_t slot, int64_t later, int64_t slots) {
    const int64_t at = slot + later;
    return at >= slots ? at - slots : at < 0 ? at + slots : at;
}

// Sums over a layer's taps that look ahead, for the next positions.
template <class T>
void sweep_ahead(const CausalNetwork& n, const CausalSweep<T>& w, int l, int positions) {
    const CausalLayer& layer = n.layers[l];
    UnitProduct<T> a;
    a.weights = w.turned + w.shape->layers[l].gate;
    a.stride = n.channel_units;
    a.taps = n.kernel - 1;
    a.inputs = gate_units(n);
    a.rows = positions;
    const T* const ring = w.state + w.shape->layers[l].ring;
    const int64_t slots = ring_slots(n, layer);
    for (int i = 0; i < positions; ++i) {
        const int64_t slot = slot_after(w.slots[l], -i, slots);
        for (int tap = 0; tap < a.taps; ++tap)
            a.x[tap][i] = ring + slot_after(slot, int64_t(n.kernel - 1 - tap) * layer.dilation, slots) * gate_units(n);
        a.start[i] = nullptr;
        a.to[i] = w.state + w.shape->ahead + (int64_t(l) * causal_ahead + i) * n.channel_units;
    }
    unit_product(a, n.channel_units);
}

// Gradients by gated values from those by the next layer's, then by the gates' arguments, then by the layer's values.
template <class T>
void sweep_layer(const CausalNetwork& n, const CausalSweep<T>& w, const SweepLines<T>& lines, const T* factors, int l,
                 int made) {
    const CausalLayer& layer = n.layers[l];
    const int64_t slots = ring_slots(n, layer), r = n.channel_units;
    T* const through = lines.through + l * r;
    ChainProduct<T> a;
    a.stride = r;
    if (!layer.is_last) {
        a.weights = w.turned + w.shape->layers[l].out;
        a.inputs = n.channel_units;
        a.x[0] = lines.up;
        a.start = a.to = through;
        chain_product(a, n.channel_units);
    }
    for (int64_t u = 0; u < r; u += width<T>) {
        const Pack<T> by_gated = load(through + u);
        store(lines.gates + u, by_gated * load(factors + u));
        store(lines.gates + r + u, by_gated * load(factors + r + u));
    }
    T* const ring = w.state + w.shape->layers[l].ring;
    const bool is_ahead = layer.dilation >= causal_ahead;
    const int first = is_ahead ? n.kernel - 1 : 0;
    a.weights = w.turned + w.shape->layers[l].gate + int64_t(first) * gate_units(n) * r;
    a.taps = n.kernel - first;
    a.inputs = gate_units(n);
    for (int tap = first; tap + 1 < n.kernel; ++tap)
        a.x[tap] = ring + slot_after(w.slots[l], int64_t(n.kernel - 1 - tap) * layer.dilation, slots) * gate_units(n);
    a.x[n.kernel - 1 - first] = lines.gates;
    a.start = a.to = lines.up;
    if (is_ahead) {
        const T* const known = w.state + w.shape->ahead + (int64_t(l) * causal_ahead + made) * r;
        for (int64_t u = 0; u < r; u += width<T>) store(lines.up + u, load(lines.up + u) + load(known + u));
    }
    chain_product(a, n.channel_units);
    T* const kept = ring + int64_t(w.slots[l]) * gate_units(n);
    for (int u = 0; u < gate_units(n); u += width<T>) store(kept + u, load(lines.gates + u));
    w.slots[l] = int(slot_after(w.slots[l], -1, slots));
}

// Gradients by v of a position, and by its outputs, which are copied to a line.
template <class T>
void sweep_outputs(const CausalSegment<T>& s, const CausalSweep<T>& w, const SweepLines<T>& lines, int64_t t) {
    const CausalNetwork& n = *s.network;
    const T* const first = w.state + w.shape->first;
    T *const values = w.values + t * n.inputs, *const outputs = w.outputs + t * n.outputs;
    const T* const slopes = w.slopes + t * n.inputs * w.of_input;
    for (int64_t c = 0; c < n.inputs; ++c) {
        Pack<T> sum{};
        for (int64_t tap = 0; tap < n.kernel; ++tap) {
            const T* const later = first + (s.begin + t + n.kernel - tap) % n.kernel * n.channel_units;
            const T* const weights = s.weights + n.input + (tap * n.inputs + c) * n.channel_units;
            for (int u = 0; u < n.channel_units; u += width<T>) sum += load(weights + u) * load(later + u);
        }
        values[c] += reduce_add(sum);
        T* const own = outputs + (w.of_input == n.outputs ? 0 : c * w.of_input);
        for (int i = 0; i < w.of_input; ++i) own[i] += values[c] * slopes[c * w.of_input + i];
    }
    for (int i = 0; i < n.outputs; ++i) lines.outputs[i] = outputs[i];
}

// From gradients by outputs to those by gated values of all layers, as far as their skip outputs go.
template <class T>
void sweep_head(const CausalNetwork& n, const CausalSweep<T>& w, const SweepLines<T>& lines, const T* head) {
    const auto open = [&](T* line, const T* values) {
        for (int u = 0; u < n.skip_units; u += width<T>)
            store(line + u, select(load(values + u) <= T(0), Pack<T>{}, load(line + u)));  // as in the backward pass
    };
    ChainProduct<T> a;
    a.weights = w.turned + w.shape->last;
    a.stride = n.skip_units;
    a.inputs = n.output_units;
    a.x[0] = lines.outputs;
    a.start = lines.zeros;
    a.to = lines.hidden;
    chain_product(a, n.skip_units);
    open(lines.hidden, head + n.skip_units);
    a.weights = w.turned + w.shape->head;
    a.inputs = n.skip_units;
    a.x[0] = lines.hidden;
    a.to = lines.skip;
    chain_product(a, n.skip_units);
    open(lines.skip, head);
    UnitProduct<T> all;
    all.weights = w.turned + w.shape->skip;
    all.stride = int64_t(n.n_layers) * n.channel_units;
    all.inputs = n.skip_units;
    all.x[0][0] = lines.skip;
    all.start[0] = nullptr;
    all.to[0] = lines.through;
    unit_product(all, n.n_layers * n.channel_units);
}

// From a segment's last position to its first; values of layers are on the tape, as the record leaves them.
template <class T>
void causal_sweep(const CausalSegment<T>& s, const CausalSweep<T>& w) noexcept {
    const CausalNetwork& n = *s.network;
    const SweepLines<T> lines(n, w);
    const int64_t row = int64_t(n.n_layers) * gate_units(n);
    for (int64_t t = s.positions - 1; t >= 0; --t) {
        const int64_t in_block = t % sweep_block, left = s.begin + t + 1;
        const int made = int((w.steps - left) % causal_ahead);
        if (in_block == sweep_block - 1 || t == s.positions - 1) sweep_factors(s, lines, t - in_block);
        for (int l = 0; made == 0 && l < n.n_layers; ++l)
            if (n.layers[l].dilation >= causal_ahead)
                sweep_ahead(n, w, l, int(left < causal_ahead ? left : causal_ahead));
        sweep_outputs(s, w, lines, t);
        sweep_head(n, w, lines, lines.head + in_block * 2 * n.skip_units);
        for (int u = 0; u < n.channel_units; u += width<T>) store(lines.up + u, Pack<T>{});
        for (int l = n.n_layers - 1; l >= 0; --l)
            sweep_layer(n, w, lines, lines.gate_factors + in_block * row + int64_t(l) * gate_units(n), l, made);
        T* const first = w.state + w.shape->first + (s.begin + t) % n.kernel * n.channel_units;
        for (int u = 0; u < n.channel_units; u += width<T>) store(first + u, load(lines.up + u));
    }
}

}  // namespace
}  // namespace headrace
