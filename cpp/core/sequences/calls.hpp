// Arguments of a call to the kernels of causal networks (steps/causal.hpp has the equations).
#pragma once

#include <cstdint>

#include "../../math/compand.hpp"
#include "../../steps/causal.hpp"

namespace headrace {

constexpr int causal_ahead = 8;       // the largest number of steps whose sums over old taps are computed at once
constexpr int most_unit_rows = 8;     // largest number of streams that are computed together with units as lanes
constexpr int most_causal_taps = 32;  // largest number of taps of a layer

// Context and covariates of a network, for one stream, or for the lanes of a panel.
template <class T>
struct CausalSide {
    // Gate biases plus the contribution of the context: [layer][gate_units], in a panel [layer][gate_units][lane]; for
    // streams with lanes of units, stream_bias is the distance from one stream to the next. Null: the network has no
    // context.
    const T* gate_bias;
    int64_t stream_bias;
    // Covariates [frame][covariates], from frame `first_frame` on; stream_frames is the distance from one stream to the
    // next. Null: the network has no covariates.
    const T* frames;
    int64_t first_frame, n_frames, stream_frames;
};

// A sequence that is computed window by window, where values of positions before the window stay in the scratch.
template <class T>
struct CausalWindow {
    const CausalNetwork* network;
    const T* weights;
    CausalSide<T> side;
    int most;    // largest number of positions of a window
    T* scratch;  // memory of causal_window_scratch values
};

// Steps of a few streams, or of a panel. Each step first computes outputs; then the inputs of the step are pushed.
template <class T>
struct CausalSteps {
    const CausalNetwork* network;
    const T* weights;
    const uint32_t* pairs;  // the weights as bf16 pairs, or null: see steps/causal.hpp
    CausalSide<T> side;
    CausalState<T> state;
    int streams;           // number of streams, at most most_unit_rows, or number of used lanes
    int64_t steps, made;   // number of steps of the call, and number of finished steps
    int64_t frames_ready;  // products of frames before this frame are computed, as far as they are still needed
    int* slots;            // slot of the next position in each layer
    T* scratch;            // memory of causal_steps_scratch values, for each stream or for the panel
};

namespace {

HR_FN int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

// A line of a window: `before` values of earlier positions, then values of the window. The length `row` is an odd
// number of cache lines, so that lines of a layer are in different sets of a cache.
struct CausalLine {
    int64_t before, row;
};
HR_FN CausalLine causal_line(int64_t before, int most) {
    const int64_t padded = round_up(before, 16), row = padded + most + 16;
    return {padded, row / 16 % 2 == 0 ? row + 16 : row};
}

// The number of steps of a window: large enough that moving a layer's past is cheap, and small enough for the L2 cache.
HR_FN int causal_window_positions(const CausalNetwork& n) {
    int64_t most = 0;
    for (int l = 0; l < n.n_layers; ++l)
        if (ring_slots(n, n.layers[l]) > most) most = ring_slots(n, n.layers[l]);
    return most > 480 ? 480 : 240;
}

// The largest number of frames of covariates that a window reads.
HR_FN int64_t causal_window_frames(const CausalNetwork& n, int most) {
    return n.covariates > 0 ? (most + n.hop - 1) / n.hop + 2 : 0;
}

constexpr int64_t most_block_lanes = 48;  // lanes of a block: three vectors of the widest instruction set

HR_FN int64_t causal_window_scratch(const CausalNetwork& n, int most) {
    const int64_t row = causal_line(0, most).row;
    const int64_t units = gate_units(n) + n.channel_units + n.skip_units + n.output_units;
    int64_t lines = int64_t(n.kernel) * n.inputs + n.skip_units;
    int64_t numbers = lines * row + units * most_block_lanes + causal_window_frames(n, most) * gate_units(n);
    for (int l = 0; l < n.n_layers; ++l) numbers += n.channel_units * causal_line(ring_slots(n, n.layers[l]), most).row;
    return numbers;
}

// The number of steps whose sums over the old taps of a layer are computed at once, which is possible because all
// values that these sums read are already computed.
HR_FN int causal_steps_at_once(const CausalLayer& layer) {
    int steps = 1;
    while (2 * steps <= causal_ahead && 2 * steps <= layer.dilation) steps *= 2;
    return steps;
}

// The number of frames whose products are kept: the frames of the steps computed ahead, or of one step.
HR_FN int causal_kept_frames(const CausalNetwork& n, int lanes) {
    return n.covariates == 0 ? 0 : lanes == 1 ? causal_ahead + 2 : 2;
}

HR_FN int64_t causal_steps_scratch(const CausalNetwork& n, int lanes) {
    const int64_t gates = gate_units(n);
    const int64_t lines = gates + 2 * n.channel_units + 3 * n.skip_units + n.output_units + n.covariates;
    const int64_t ahead = lanes == 1 ? int64_t(n.n_layers) * causal_ahead * gates : 0;
    return ahead + (lines + int64_t(causal_kept_frames(n, lanes)) * n.n_layers * gates) * lanes;
}

// The first value of a stream in a state; values of one stream are `lanes` apart.
template <class T>
HR_FN T* stream_numbers(const CausalNetwork& n, const CausalState<T>& state, int64_t stream) {
    return state.numbers + (state.lanes == 1 ? stream * n.state : stream);
}

// Input c of the network at a position, from the values of the position.
template <class T>
HR_FN T causal_input(const CausalNetwork& n, const T* values, int c) {
    return c < n.values ? values[c] : compand(values[c - n.values]);
}

// Stores the values [stream][values] of the current position as the past of the next one.
template <class T>
HR_FN void causal_push(CausalSteps<T>& s, const T* values) {
    const CausalNetwork& n = *s.network;
    const int64_t lanes = s.state.lanes, slot = s.state.position % n.kernel * n.inputs;
    for (int stream = 0; stream < s.streams; ++stream) {
        T* const past = stream_numbers(n, s.state, stream) + (n.past + slot) * lanes;
        for (int c = 0; c < n.inputs; ++c) past[c * lanes] = causal_input(n, values + int64_t(stream) * n.values, c);
    }
    ++s.state.position;
    ++s.made;
}

}  // namespace

template <class T>
struct CausalSegment;  // defined in back.hpp
template <class T>
struct CausalBack;
template <class T>
struct CausalSweep;  // defined in sweep.hpp

// The kernels of causal networks for one instruction set (kernels/sequences.cpp).
template <class T>
struct SequenceKernelsOf {
    // window_begin starts windows of a sequence from the values in the first stream of a state (null: zeros). window
    // computes positions [position, position + n): v [kernel + n][inputs] begins with the inputs before these
    // positions, and raw [n][outputs] is null if only the values after the window are needed.
    void (*window_begin)(const CausalWindow<T>&, const CausalState<T>*) noexcept;
    void (*window)(const CausalWindow<T>&, const T* v, int64_t position, int n, T* raw) noexcept;
    void (*window_end)(const CausalWindow<T>&, const CausalState<T>&) noexcept;
    // Computes the outputs [stream][outputs] of the next position; causal_push then appends the inputs of that
    // position.
    void (*step)(CausalSteps<T>&, T* raw) noexcept;
    // Computes gate biases of all layers plus the contribution of one context row: [layer][gate_units].
    void (*fold)(const CausalNetwork&, const T* weights, const T* context, T* folded) noexcept;
    // `record` computes a segment of a sequence with its tape and outputs [position][outputs]; `back` is its backward
    // pass.
    void (*record)(const CausalSegment<T>&, T* outputs) noexcept;
    void (*back)(const CausalSegment<T>&, const CausalBack<T>&) noexcept;
    // `sweep` runs between `record` and `back` in the direction that computes one position after another: from the last
    // position to the first, for the same segment of up to sweep_rows sequences.
    void (*sweep)(const CausalSegment<T>*, const CausalSweep<T>*, int sequences) noexcept;
};

struct SequenceKernels {
    SequenceKernelsOf<float> f32;
    SequenceKernelsOf<double> f64;
};

template <class T>
const SequenceKernelsOf<T>& sequence_kernels_of(const SequenceKernels& kernels) {
    if constexpr (sizeof(T) == sizeof(float)) {
        return kernels.f32;
    } else {
        return kernels.f64;
    }
}

}  // namespace headrace
