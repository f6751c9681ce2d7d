// Data layout and arguments of the backward pass of a causal network (steps/causal.hpp).
//
// A sequence is cut into *segments*, at multiples of whole windows of positions. The forward pass keeps the values of
// every layer at the borders of segments. The backward pass runs from the last segment to the first: each segment is
// computed again with a tape, and then differentiated backward over the tape, window by window from the last. The
// gradients of a layer's gates are kept until the earlier positions that need them are computed, so that the gradient
// by a position is one sum, independent of the windows. Sums over positions are added in the order of the windows, so
// that no bit depends on the length of a segment.
#pragma once

#include "calls.hpp"

namespace headrace {

constexpr int back_window = 384;  // positions of one sum; a multiple of every block of lanes
constexpr int line_pad = 64;      // number of values after a line that a whole vector may read or write

// Offsets of the sums over positions that are gradients by weights. Sums of matrices whose lanes are inputs are stored
// [tap][unit][input], with inputs padded to row_padding; sums of `covariates` and `context` have the layout of the
// weights.
struct CausalSumsLayer {
    uint32_t gate, gate_bias, covariates, context, out, out_bias;
};

struct CausalSumsShape {
    const CausalSumsLayer* layers;
    uint32_t input, input_bias, head, head_bias, last, last_bias;  // `input` is stored [unit][tap][input] without
                                                                   // padding
    uint32_t numbers;                                              // total number of values
};

// Lines of a layer on the tape, as offsets from the start of the tape. Column 0 of `values` is `front` positions before
// the segment's first position.
struct CausalTapeLayer {
    int64_t values, value_stride;  // channel_units lines of the layer's input
    int64_t gates, gate_stride;    // gate_units lines: values of tanh and sigmoid, then gradients by their arguments
    int64_t front;
};

struct CausalTapeShape {
    const CausalTapeLayer* layers;
    int64_t positions;                      // largest number of positions of a segment: a multiple of the window
    int64_t read, read_stride, read_front;  // `inputs` lines of the network's input, from read_front positions before
                                            // the segment
    int64_t first, first_stride;            // channel_units lines of gradients by the values of the first layer
    int64_t head[2], head_stride;           // skip_units lines of values of the head's layers, after their rectifiers
    int64_t numbers;                        // total number of values
};

// A segment of one sequence, on its tape.
template <class T>
struct CausalSegment {
    const CausalNetwork* network;
    const CausalTapeShape* shape;
    const T* weights;
    CausalSide<T> side;
    int64_t begin, positions;
    T* tape;
    T* scratch;  // memory of back_scratch(network).numbers values
};

template <class T>
struct CausalBack {
    const CausalSumsShape* shape;
    const T* outputs;  // gradients by the outputs: [position][outputs]
    T* read;           // gradients by the network's input: [position][inputs], or null
    T* gate_bias;      // gradients by gate biases, which are added: [layer][gate_units]
    T* covariates;     // gradients by covariates, which are added: [frame][covariates] of the sequence, or null
    T* sums;           // gradients by weights, which are added, or null
};

namespace {

// The distance of adjacent lines of a window.
constexpr int64_t back_stride = back_window + 16;

// Offsets of arrays in the scratch of a window.
struct BackScratch {
    int64_t up, gated, hidden, outputs, starts, frames, products, panels, numbers;
    int64_t frame_stride;
};

HR_FN BackScratch back_scratch(const CausalNetwork& n) {
    BackScratch s{};
    int64_t most_slots = 0;
    for (int l = 0; l < n.n_layers; ++l)
        if (ring_slots(n, n.layers[l]) > most_slots) most_slots = ring_slots(n, n.layers[l]);
    const auto take = [&](int64_t numbers) {
        const int64_t begin = s.numbers;
        s.numbers += round_up(numbers, 16);
        return begin;
    };
    s.up = take((n.channel_units + n.skip_units) * back_stride);
    s.gated = take(n.channel_units * back_stride);
    s.hidden = take(n.skip_units * back_stride);
    s.outputs = take(n.output_units * back_stride);
    s.frame_stride = round_up(causal_window_frames(n, back_window), 16);
    if (n.covariates > 0) {
        s.starts = take(gate_units(n) * back_stride);
        s.frames = take(n.covariates * s.frame_stride);
        s.products = take(gate_units(n) * s.frame_stride);
    }
    const int64_t widest = n.channel_units > n.skip_units ? n.channel_units : n.skip_units;
    s.panels = take(widest * (most_slots + back_stride));
    s.numbers += line_pad;
    return s;
}

}  // namespace
}  // namespace headrace
