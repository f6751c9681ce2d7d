#include "plan.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "../scratch.hpp"

namespace headrace {
namespace {

// The distance of lines of a layer's channels: an odd number of cache lines, so that lines begin in different sets of a
// cache.
int64_t line_stride(int64_t numbers) {
    return (round_up(numbers, 16) / 16 | 1) * 16;
}

}  // namespace

CausalBackPlan::CausalBackPlan(const CausalNetwork& network, int64_t steps, int64_t bytes, size_t size)
    : network_(network) {
    const CausalNetwork& n = network;
    int64_t columns = n.inputs + n.channel_units + 2 * int64_t(n.skip_units);
    columns += n.n_layers * (int64_t(n.channel_units) + gate_units(n));
    const int64_t fit = std::max<int64_t>(1, bytes / (columns * int64_t(size) * back_window));
    const int64_t positions = std::min(fit * back_window, std::max<int64_t>(1, round_up(steps, back_window)));
    segments_ = (steps + positions - 1) / positions;
    lay_out_tape(positions);
    lay_out_sums();
}

void CausalBackPlan::lay_out_tape(int64_t positions) {
    const CausalNetwork& n = network_;
    int64_t at = 0;
    const auto take = [&](int64_t lines, int64_t stride) {
        const int64_t begin = at;
        at += lines * stride;
        return begin;
    };
    for (int l = 0; l < n.n_layers; ++l) {
        const int64_t slots = ring_slots(n, n.layers[l]);
        CausalTapeLayer layer{};
        layer.front = round_up(slots, 16);
        layer.value_stride = line_stride(layer.front + positions + line_pad);
        layer.values = take(n.channel_units, layer.value_stride);
        layer.gate_stride = line_stride(positions + slots + line_pad);
        layer.gates = take(gate_units(n), layer.gate_stride);
        tape_layers_.push_back(layer);
        border_ += slots * n.channels;
    }
    tape_.layers = tape_layers_.data();
    tape_.positions = positions;
    tape_.read_front = round_up(n.kernel, 16);
    tape_.read_stride = line_stride(tape_.read_front + positions + line_pad);
    tape_.read = take(n.inputs, tape_.read_stride);
    tape_.first_stride = line_stride(positions + n.kernel + line_pad);
    tape_.first = take(n.channel_units, tape_.first_stride);
    tape_.head_stride = line_stride(positions + line_pad);
    for (int64_t& head : tape_.head) head = take(n.skip_units, tape_.head_stride);
    tape_.numbers = at;
}

void CausalBackPlan::lay_out_sums() {
    const CausalNetwork& n = network_;
    uint64_t at = 0;
    const auto take = [&](int64_t lines, int64_t numbers) {
        const uint64_t begin = at;
        at += uint64_t(round_up(lines * numbers, 16));
        if (at > std::numeric_limits<uint32_t>::max())
            throw std::invalid_argument("channels, skip: expected fewer weights than 2^32");
        return uint32_t(begin);
    };
    for (int l = 0; l < n.n_layers; ++l) {
        CausalSumsLayer layer{};
        const int outs = out_units(n, n.layers[l]);
        layer.gate = take(int64_t(n.kernel) * gate_units(n), n.channel_units);
        layer.gate_bias = take(1, gate_units(n));
        layer.covariates = take(n.covariates, gate_units(n));
        layer.context = take(n.context, gate_units(n));
        layer.out = take(outs, n.channel_units);
        layer.out_bias = take(1, outs);
        sums_layers_.push_back(layer);
    }
    sums_.layers = sums_layers_.data();
    sums_.input = take(n.channel_units, int64_t(n.kernel) * n.inputs);
    sums_.input_bias = take(1, n.channel_units);
    sums_.head = take(n.skip_units, n.skip_units);
    sums_.head_bias = take(1, n.skip_units);
    sums_.last = take(n.output_units, n.skip_units);
    sums_.last_bias = take(1, n.output_units);
    sums_.numbers = uint32_t(at);
}

template <class T>
void CausalBackPlan::gradient_of(const double* sums, T* weights) const {
    const CausalNetwork& n = network_;
    // Transposes a matrix [unit][input], with lines `stride` apart, to [input][unit].
    const auto turn = [&](uint32_t from, int stride, uint32_t to, int units, int all_units, int inputs) {
        for (int64_t i = 0; i < inputs; ++i)
            for (int64_t u = 0; u < units; ++u) weights[to + i * all_units + u] = T(sums[from + u * stride + i]);
    };
    const auto copy = [&](uint32_t from, uint32_t to, int64_t numbers) {
        for (int64_t i = 0; i < numbers; ++i) weights[to + i] = T(sums[from + i]);
    };
    for (int l = 0; l < n.n_layers; ++l) {
        const CausalLayer& layer = n.layers[l];
        const CausalSumsLayer& s = sums_layers_[size_t(l)];
        const int gates = gate_units(n), outs = out_units(n, layer);
        for (int tap = 0; tap < n.kernel; ++tap)
            turn(s.gate + uint32_t(tap * gates * n.channel_units), n.channel_units,
                 layer.gate + uint32_t(tap * n.channels * gates), gates, gates, n.channels);
        copy(s.gate_bias, layer.gate_bias, gates);
        if (n.covariates > 0) copy(s.covariates, layer.covariates, int64_t(n.covariates) * gates);
        if (n.context > 0) copy(s.context, layer.context, int64_t(n.context) * gates);
        turn(s.out, n.channel_units, layer.out, outs, outs, n.channels);
        copy(s.out_bias, layer.out_bias, outs);
    }
    turn(sums_.input, n.kernel * n.inputs, n.input, n.channels, n.channel_units, n.kernel * n.inputs);
    copy(sums_.input_bias, n.input_bias, n.channels);
    turn(sums_.head, n.skip_units, n.head, n.skip, n.skip_units, n.skip);
    copy(sums_.head_bias, n.head_bias, n.skip);
    turn(sums_.last, n.skip_units, n.last, n.outputs, n.output_units, n.skip);
    copy(sums_.last_bias, n.last_bias, n.outputs);
}

template void CausalBackPlan::gradient_of(const double*, float*) const;
template void CausalBackPlan::gradient_of(const double*, double*) const;

// ---- sweep
// ------------------------------------------------------------------------------------------------------------

CausalSweepPlan::CausalSweepPlan(const CausalNetwork& network) : network_(network) {
    const CausalNetwork& n = network;
    const int64_t r = n.channel_units;
    const auto take = [&](int64_t lines, int64_t units) {
        const int64_t begin = shape_.turned;
        shape_.turned += lines * units;
        return begin;
    };
    for (int l = 0; l < n.n_layers; ++l) {
        CausalSweepLayer layer{};
        layer.gate = take(int64_t(n.kernel) * gate_units(n), r);
        if (!n.layers[l].is_last) layer.out = take(r, r);
        layers_.push_back(layer);
    }
    shape_.skip = take(n.skip_units, n.n_layers * r);
    shape_.head = take(n.skip_units, n.skip_units);
    shape_.last = take(n.output_units, n.skip_units);
    lay_out_state();
    shape_.layers = layers_.data();
}

void CausalSweepPlan::lay_out_state() {
    const CausalNetwork& n = network_;
    const int64_t r = n.channel_units;
    const auto take = [&](int64_t lines, int64_t units) {
        const int64_t begin = shape_.numbers;
        shape_.numbers += lines * units;
        return begin;
    };
    for (int l = 0; l < n.n_layers; ++l) layers_[size_t(l)].ring = take(ring_slots(n, n.layers[l]), gate_units(n));
    shape_.first = take(n.kernel, r);
    shape_.ahead = take(int64_t(n.n_layers) * causal_ahead, r);
    shape_.factors = take(sweep_block, int64_t(n.n_layers) * gate_units(n) + 2 * int64_t(n.skip_units));
    shape_.lines = take(1, n.output_units + 3 * int64_t(n.skip_units) + n.n_layers * r + r + gate_units(n));
}

template <class T>
void CausalSweepPlan::turn(const T* weights, T* turned) const {
    const CausalNetwork& n = network_;
    // Transposes a matrix [input][unit], with lines `stride` apart, to [unit][input], with lines `to_stride` apart.
    const auto turn = [&](int64_t from, int64_t stride, int inputs, int units, int64_t to, int64_t to_stride) {
        for (int64_t i = 0; i < inputs; ++i)
            for (int64_t u = 0; u < units; ++u) turned[to + u * to_stride + i] = weights[from + i * stride + u];
    };
    const int64_t r = n.channel_units, all = n.n_layers * r;
    const int gates = gate_units(n);
    for (int l = 0; l < n.n_layers; ++l) {
        const CausalLayer& layer = n.layers[l];
        const CausalSweepLayer& to = layers_[size_t(l)];
        for (int64_t tap = 0; tap < n.kernel; ++tap)
            turn(layer.gate + tap * n.channels * gates, gates, n.channels, gates, to.gate + tap * gates * r, r);
        const int outs = out_units(n, layer);
        if (!layer.is_last) turn(layer.out, outs, n.channels, n.channel_units, to.out, r);
        turn(layer.out + (outs - n.skip_units), outs, n.channels, n.skip_units, shape_.skip + l * r, all);
    }
    turn(n.head, n.skip_units, n.skip, n.skip_units, shape_.head, n.skip_units);
    turn(n.last, n.output_units, n.skip, n.output_units, shape_.last, n.skip_units);
}

template void CausalSweepPlan::turn(const float*, float*) const;
template void CausalSweepPlan::turn(const double*, double*) const;

}  // namespace headrace
