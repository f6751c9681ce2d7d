// A causal convolution network over time for kernels: plain sizes, and offsets from the network's first weight.
//
// Position t reads the inputs v of earlier positions: the values of a step and, with is_companded, also the companded
// values (math/compand.hpp). The layers of a network have the same weights at all positions (WaveNet,
// arXiv:1609.03499). Values of every layer before the first position are zero. With taps i = 0, ..., kernel - 1 from
// old to new:
//
//   input    h[t] = b + sum over i of  W[i] v[t - kernel + i]
//   layer l  a = start[l, t] + sum over i of  G[i] h[t - (kernel - 1 - i) dilation]
//            z = tanh(a of the first half) sigmoid(a of the second half),    o = b + O z
//            h[t] of the next layer = h[t] + o of the first channels,   skip[t] += o of the others
//   head     outputs[t] = b + H2 relu(b + H1 relu(skip[t]))
//
// The start of a gate is start[l, t] = gate bias + V context + interpolated U covariates, with a frame every `hop`
// positions. The last layer computes no h. Every kernel adds the terms of a sum one after another, in the order of the
// equations and by ascending inputs, so that the outputs of a position have the same bits in every kernel.
//
// Weights are stored [input][unit], one line for each input, tap by tap from old to new; units are padded to multiples
// of row_padding weights, with zeros. Kernels whose lanes are positions broadcast each weight of a line; kernels whose
// lanes are units load the line.
//
// Streams, which read every weight for each step, have bf16 weights as *pairs*: a word has the weights of two adjacent
// inputs of a tap, the even input in the lower half. Pairs are in lines (taps, pairs of inputs) of units; where the
// number of inputs is odd, the upper half of the last word is zero. Sums of pairs have the order, and so the bits, of
// sums of the rounded weights in float32.
#pragma once

#include <cstdint>

#include "../math/lane.hpp"

namespace headrace {

struct CausalLayer {
    int dilation;
    bool is_last;         // the last layer, which has skip outputs only
    uint32_t gate;        // weights in lines (kernel, channels) of [tanh channel_units][sigmoid channel_units]
    uint32_t gate_bias;   // [tanh channel_units][sigmoid channel_units]
    uint32_t context;     // weights in lines (context) of [tanh channel_units][sigmoid channel_units]
    uint32_t covariates;  // weights in lines (covariates) of [tanh channel_units][sigmoid channel_units]
    uint32_t out;         // weights in lines (channels) of [channel_units][skip_units]; in the last layer [skip_units]
    uint32_t out_bias;    // biases of the units of `out`
    uint32_t ring;        // offset of the layer's values in the state of a stream, in values of one lane
    uint32_t gate_pairs, out_pairs;  // offsets of the weights of `gate` and `out` among the pairs
};

struct CausalNetwork {
    int values;         // values of a step
    bool is_companded;  // whether the inputs v end with companded values
    int inputs;         // number of inputs v of a position
    int channels, skip, kernel, n_layers;
    int outputs;                                  // outputs for each position
    int context, covariates, hop;                 // columns of the context and of covariates; positions of a frame of
                                                  // covariates
    int channel_units, skip_units, output_units;  // channels, skip and outputs with their padding
    const CausalLayer* layers;
    uint32_t input, input_bias;  // weights in lines (kernel, inputs) of [channel_units]
    uint32_t head, head_bias;    // weights in lines (skip) of [skip_units]
    uint32_t last, last_bias;    // weights in lines (skip) of [output_units]
    uint32_t head_pairs, last_pairs;
    uint32_t past;   // offset of the past inputs in the state of a stream, in values of one lane
    uint32_t state;  // number of values in the state of a stream
};

// The limits of the logarithm of a value's scale, for networks that output the scale.
constexpr double least_level = -13.0, most_level = 2.0;

// The state of `lanes` streams at one position, kept between calls. Where lanes is 1, the state of several streams is
// stored stream after stream, each with `state` values:
//   from layers[l].ring * lanes on   values of layer l [slot = position mod (kernel - 1) dilation][channel_units][lane]
//   from past * lanes on             past inputs [slot = position mod kernel][inputs][lane]
// The slot of a position is overwritten when that position is computed; until that step it holds the oldest position.
template <class T>
struct CausalState {
    T* numbers;
    int lanes;
    int64_t position;  // position of the next step; the first position is 0
};

namespace {

// The number of positions whose values a layer keeps.
HR_FN int64_t ring_slots(const CausalNetwork& n, const CausalLayer& layer) {
    return int64_t(n.kernel - 1) * layer.dilation;
}

// The number of lines of weight pairs for a tap with `inputs` inputs.
HR_FN int pair_lines(int inputs) {
    return (inputs + 1) / 2;
}

// The number of units of a layer's gate products: two for each channel.
HR_FN int gate_units(const CausalNetwork& n) {
    return 2 * n.channel_units;
}

HR_FN int out_units(const CausalNetwork& n, const CausalLayer& layer) {
    return layer.is_last ? n.skip_units : n.channel_units + n.skip_units;
}

// The two frames around a position, and the weight of the second frame. Positions after the last frame use the values
// of the last frame.
template <class T>
struct FramePlace {
    int64_t first, second;
    T share;
};

template <class T>
HR_FN FramePlace<T> frame_place(const CausalNetwork& n, int64_t last_frame, int64_t position) {
    const int64_t frame = position / n.hop, past = position % n.hop;
    return {frame, past == 0 || frame == last_frame ? frame : frame + 1, T(past) / T(n.hop)};
}

// The start of a gate's sum: the bias plus the products of both frames, interpolated.
template <class V>
HR_FN V interpolated(V bias, V first, V second, Scalar<V> share) {
    return bias + fma(share, second - first, first);
}

}  // namespace
}  // namespace headrace
