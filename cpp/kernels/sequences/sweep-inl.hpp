// The sweep from a sequence's last position to the first (core/sequences/sweep.hpp), whose lanes are the inputs of
// matrices. Sums over taps that read positions at least causal_ahead later are computed for several positions at once.
#pragma once

#include "../../core/sequences/sweep.hpp"
#include "record-inl.hpp"
#include "step-inl.hpp"

namespace headrace {
namespace {

constexpr int sweep_chains = 4;  // number of partial sums (chains) of a sum, whose additions do not wait for each other

// to[row][unit] = start[row][unit] + sum over taps and inputs of weights[tap][input][unit] x[tap][row][input]; the
// inputs, a multiple of sweep_chains, are divided into sweep_chains parts.
template <class T>
struct ChainProduct {
    const T* weights;
    int64_t stride;
    int taps = 1, inputs, rows;
    const T* x[most_causal_taps][sweep_rows];
    const T* start[sweep_rows];
    T* to[sweep_rows];
};

// Computes a block of rows. All chains of a single row are computed together, and chains of several rows one after
// another; both ways give the same bits.
template <int R, int N, class T>
void chain_block(const ChainProduct<T>& a, int row, int unit) {
    using V = Pack<T>;
    constexpr int together = R == 1 ? sweep_chains : 1;
    const int64_t part = a.inputs / sweep_chains, stride = a.stride;
    V sum[sweep_chains][R][N];
    for (int first = 0; first < sweep_chains; first += together) {
        V own[together][R][N] = {};
        const T* w = a.weights + unit + first * part * stride;
        for (int tap = 0; tap < a.taps; ++tap, w += a.inputs * stride) {
            const T* x[R];
            for (int r = 0; r < R; ++r) x[r] = a.x[tap][row + r] + first * part;
            for (int64_t i = 0; i < part; ++i)
                for (int c = 0; c < together; ++c) {
                    const int64_t at = c * part + i;
                    V weight[N];
                    for (int n = 0; n < N; ++n) weight[n] = load(w + at * stride + n * width<T>);
                    for (int r = 0; r < R; ++r) {
                        const T input = x[r][at];
                        for (int n = 0; n < N; ++n) own[c][r][n] += input * weight[n];
                    }
                }
        }
        for (int c = 0; c < together; ++c)
            for (int r = 0; r < R; ++r)
                for (int n = 0; n < N; ++n) sum[first + c][r][n] = own[c][r][n];
    }
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) {
            const int64_t at = unit + n * width<T>;
            const V all = (sum[0][r][n] + sum[1][r][n]) + (sum[2][r][n] + sum[3][r][n]);
            store(a.to[row + r] + at, load(a.start[row + r] + at) + all);
        }
}

template <int R, class T>
HR_FN void chain_rows(const ChainProduct<T>& a, int row, int units) {
    constexpr int most = block_units / 2;
    const int vectors = units / width<T>;
    for (int v = 0; v < vectors;) {
        const int n = part(vectors - v, most);
        with_sizes<1, most>(1, n, [&]<int, int N>() { chain_block<R, N>(a, row, v * width<T>); });
        v += n;
    }
}

// Computes units, rounded up to vectors.
template <class T>
HR_FN void chain_product(const ChainProduct<T>& a, int units) {
    int row = 0;
    for (; row + 4 <= a.rows; row += 4) chain_rows<4>(a, row, units);
    for (; row + 2 <= a.rows; row += 2) chain_rows<2>(a, row, units);
    if (row < a.rows) chain_rows<1>(a, row, units);
}

// The scratch of the sweep.
template <class T>
struct SweepLines {
    T *outputs, *hidden, *skip, *through, *zeros;  // through: gradients by gated values, [layer][channel_units]
    T *up, *gates;
    T *gate_factors, *head;  // of a block: factors [position][layer][gate_units], head [position][two][skip_units]

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

// Transposes sweep_block positions of `units` lines to rows of units, `to_row` apart.
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

// Computes the factors from gradients by gated values to gradients by the gates' arguments, and the values of the head.
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

// Prefetches, at each position of a block, one part of the inputs for the factors of the previous block, whose cache
// lines are so far apart that the processor does not prefetch them.
template <class T>
HR_FN void fetch_factors(const CausalSegment<T>& s, int64_t t) {
    const CausalNetwork& n = *s.network;
    const int64_t begin = t / sweep_block * sweep_block - sweep_block;
    for (int l = int(t % sweep_block); begin >= 0 && l < n.n_layers; l += sweep_block) {
        const T* const gates = gates_at(s, l, begin);
        for (int64_t u = 0; u < gate_units(n); ++u) __builtin_prefetch(gates + u * s.shape->layers[l].gate_stride);
    }
}

// The slot of a layer's gradients `later` positions after (or before) the position of `slot`.
HR_FN int64_t slot_after(int64_t slot, int64_t later, int64_t slots) {
    const int64_t at = slot + later;
    return at >= slots ? at - slots : at < 0 ? at + slots : at;
}

// Computes sums over the taps of a layer whose gradients are known, for the next positions.
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

// Sequences that are computed together, with their scratch.
template <class T>
struct SweepRows {
    const CausalNetwork& network;
    const CausalSegment<T>* segments;
    const CausalSweep<T>* sweeps;
    const SweepLines<T>* lines;
    int rows;
};

// Computes gradients of a layer from gradients by the next layer's values: first by gated values, then by the gates'
// arguments, and then by the layer's values.
template <class T>
void sweep_layer(const SweepRows<T>& s, int64_t in_block, int l, int made) {
    const CausalNetwork& n = s.network;
    const CausalLayer& layer = n.layers[l];
    const CausalSweepShape& shape = *s.sweeps->shape;
    const int64_t slots = ring_slots(n, layer), r = n.channel_units, units = gate_units(n);
    const bool is_ahead = layer.dilation >= causal_ahead;
    const int first = is_ahead ? n.kernel - 1 : 0;
    ChainProduct<T> out, gate;
    out.weights = s.sweeps->turned + shape.layers[l].out;
    gate.weights = s.sweeps->turned + shape.layers[l].gate + first * units * r;
    out.stride = gate.stride = r;
    out.rows = gate.rows = s.rows;
    out.inputs = n.channel_units;
    gate.inputs = gate_units(n);
    gate.taps = n.kernel - first;
    for (int i = 0; i < s.rows; ++i) {
        const CausalSweep<T>& w = s.sweeps[i];
        const SweepLines<T>& lines = s.lines[i];
        out.x[0][i] = lines.up;
        out.start[i] = out.to[i] = lines.through + l * r;
        const T* const ring = w.state + shape.layers[l].ring;
        for (int tap = first; tap + 1 < n.kernel; ++tap)
            gate.x[tap - first][i] =
                ring + slot_after(w.slots[l], int64_t(n.kernel - 1 - tap) * layer.dilation, slots) * units;
        gate.x[n.kernel - 1 - first][i] = lines.gates;
        gate.start[i] = gate.to[i] = lines.up;
    }
    if (!layer.is_last) chain_product(out, n.channel_units);
    for (int i = 0; i < s.rows; ++i) {
        const SweepLines<T>& lines = s.lines[i];
        const T* const factors = lines.gate_factors + (in_block * n.n_layers + l) * units;
        const T* const known = s.sweeps[i].state + shape.ahead + (int64_t(l) * causal_ahead + made) * r;
        for (int64_t u = 0; u < r; u += width<T>) {
            const Pack<T> by_gated = load(lines.through + l * r + u);
            store(lines.gates + u, by_gated * load(factors + u));
            store(lines.gates + r + u, by_gated * load(factors + r + u));
            if (is_ahead) store(lines.up + u, load(lines.up + u) + load(known + u));
        }
    }
    chain_product(gate, n.channel_units);
    for (int i = 0; i < s.rows; ++i) {
        const CausalSweep<T>& w = s.sweeps[i];
        T* const kept = w.state + shape.layers[l].ring + w.slots[l] * units;
        for (int64_t u = 0; u < units; u += width<T>) store(kept + u, load(s.lines[i].gates + u));
        w.slots[l] = int(slot_after(w.slots[l], -1, slots));
    }
}

// Computes gradients by v and by the outputs of a position, and copies the gradients by outputs to a line.
template <class T>
void sweep_outputs(const CausalSegment<T>& s, const CausalSweep<T>& w, const SweepLines<T>& lines, int64_t t) {
    const CausalNetwork& n = *s.network;
    const T* const first = w.state + w.shape->first;
    T *const values = w.values + t * n.values, *const outputs = w.outputs + t * n.outputs;
    const T* const slopes = w.slopes + t * n.values * w.of_input;
    const auto by_column = [&](int64_t c) {
        Pack<T> sum{};
        for (int64_t tap = 0; tap < n.kernel; ++tap) {
            const T* const later = first + (s.begin + t + n.kernel - tap) % n.kernel * n.channel_units;
            const T* const weights = s.weights + n.input + (tap * n.inputs + c) * n.channel_units;
            for (int u = 0; u < n.channel_units; u += width<T>) sum += load(weights + u) * load(later + u);
        }
        return reduce_add(sum);
    };
    for (int64_t c = 0; c < n.values; ++c) {
        values[c] += by_column(c);
        if (n.is_companded)
            values[c] += by_column(n.values + c) * compand_slope(read_at(s, t)[c * s.shape->read_stride]);
        T* const own = outputs + (w.of_input == n.outputs ? 0 : c * w.of_input);
        for (int i = 0; i < w.of_input; ++i) own[i] += values[c] * slopes[c * w.of_input + i];
    }
    for (int i = 0; i < n.outputs; ++i) lines.outputs[i] = outputs[i];
}

// Computes gradients by gated values of all layers, through skip outputs, from gradients by outputs.
template <class T>
void sweep_head(const SweepRows<T>& s, int64_t in_block) {
    const CausalNetwork& n = s.network;
    const CausalSweepShape& shape = *s.sweeps->shape;
    const auto open = [&](T* line, const T* values) {
        for (int u = 0; u < n.skip_units; u += width<T>)
            store(line + u, select(load(values + u) <= T(0), Pack<T>{}, load(line + u)));  // the gradient of ReLU
    };
    ChainProduct<T> last, head;
    UnitProduct<T> all;
    last.weights = s.sweeps->turned + shape.last;
    head.weights = s.sweeps->turned + shape.head;
    all.weights = s.sweeps->turned + shape.skip;
    last.stride = head.stride = n.skip_units;
    all.stride = int64_t(n.n_layers) * n.channel_units;
    last.inputs = n.output_units;
    head.inputs = all.inputs = n.skip_units;
    last.rows = head.rows = all.rows = s.rows;
    for (int i = 0; i < s.rows; ++i) {
        const SweepLines<T>& lines = s.lines[i];
        last.x[0][i] = lines.outputs;
        head.x[0][i] = last.to[i] = lines.hidden;
        all.x[0][i] = head.to[i] = lines.skip;
        all.to[i] = lines.through;
        last.start[i] = head.start[i] = lines.zeros;
        all.start[i] = nullptr;
    }
    const auto values = [&](int i) { return s.lines[i].head + in_block * 2 * n.skip_units; };
    chain_product(last, n.skip_units);
    for (int i = 0; i < s.rows; ++i) open(s.lines[i].hidden, values(i) + n.skip_units);
    chain_product(head, n.skip_units);
    for (int i = 0; i < s.rows; ++i) open(s.lines[i].skip, values(i));
    unit_product(all, n.n_layers * n.channel_units);
}

template <class T>
void sweep_position(const SweepRows<T>& s, int64_t t) {
    const CausalNetwork& n = s.network;
    const int64_t in_block = t % sweep_block, position = s.segments->begin + t, left = position + 1;
    const int made = int((s.sweeps->steps - left) % causal_ahead);
    for (int i = 0; i < s.rows; ++i) {
        const CausalSweep<T>& w = s.sweeps[i];
        if (in_block == sweep_block - 1 || t == s.segments->positions - 1)
            sweep_factors(s.segments[i], s.lines[i], t - in_block);
        fetch_factors(s.segments[i], t);
        for (int l = 0; made == 0 && l < n.n_layers; ++l)
            if (n.layers[l].dilation >= causal_ahead)
                sweep_ahead(n, w, l, int(left < causal_ahead ? left : causal_ahead));
        sweep_outputs(s.segments[i], w, s.lines[i], t);
        for (int u = 0; u < n.channel_units; u += width<T>) store(s.lines[i].up + u, Pack<T>{});
    }
    sweep_head(s, in_block);
    for (int l = n.n_layers - 1; l >= 0; --l) sweep_layer(s, in_block, l, made);
    for (int i = 0; i < s.rows; ++i) {
        T* const first = s.sweeps[i].state + s.sweeps->shape->first + position % n.kernel * n.channel_units;
        for (int u = 0; u < n.channel_units; u += width<T>) store(first + u, load(s.lines[i].up + u));
    }
}

// Sweeps segments from the last position to the first; the tapes have values of layers, as causal_record stores them.
template <class T>
void causal_sweep(const CausalSegment<T>* segments, const CausalSweep<T>* sweeps, int sequences) noexcept {
    const CausalNetwork& n = *segments->network;
    const auto with_lines = [&]<int... I>(Indices<I...>) {
        const SweepLines<T> lines[] = {SweepLines<T>(n, sweeps[I < sequences ? I : 0])...};
        const SweepRows<T> rows{n, segments, sweeps, lines, sequences};
        for (int64_t t = segments->positions - 1; t >= 0; --t) sweep_position(rows, t);
    };
    with_lines(typename MakeIndices<sweep_rows>::type{});
}

}  // namespace
}  // namespace headrace
