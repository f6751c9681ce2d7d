// The kernels' view of a masked network: its layers, and the order of their block products. Its positions are levels of
// coordinates.
#pragma once

#include <cstdint>

#include "../../math/activations.hpp"
#include "../products.hpp"

namespace headrace {

// A block of a masked product: units [row, row + rows) of a layer from inputs [k0, k1).
struct Op {
    int layer, row, rows, k0, k1;
    bool from_bias;  // otherwise add to the result of an earlier op
    bool finish;     // the last op for these units: apply the activation
    int fresh = 0;   // in bf16: inputs of the network before this one were rounded by earlier ops
    int waits = -1;  // and where the two sums of an unfinished step of each unit wait; -1: ops take whole steps
};

// The order of ops. Those of positions [from, to) are ops [first[from], first[to]); where all positions are computed at
// once, the first one has all ops.
struct ForwardPlan {
    const Op* ops;
    const int* first;
};

// Backwards: the gradient of inputs [column, column + columns) of a layer from that of its units [row0, row1).
struct BackOp {
    int layer, column, columns, row0, row1;
    int fresh = 0;  // in bf16: gradients of units from this one on were rounded for earlier ops
};

// In the backward pass positions come in reverse: those of positions [from, to) are ops [done[to], done[from]).
struct BackPlan {
    const BackOp* ops;
    const int* done;
};

// A layer makes   product = W input + b,   sum = product + c,  or product * c,   + another layer's sum,   value =
// activation(sum) where c is the value of a layer that reads only the context. Lines are scratch units of the
// transform; product, sum and value share a line where only one of them is needed.
struct Layer {
    const uint32_t* row;      // offset of each unit's weights from the transform's first weight
    const int* visible;       // number of inputs that each unit reads
    uint32_t bias;            // offset of the biases
    int in, out;              // inputs, units
    int below;                // the layer whose values it reads; -1: the network's inputs
    int product, sum, value;  // lines at which those of the first unit are
    int activation;
    bool relu;            // the product kernel applies the activation
    bool sweep;           // another pass over the finished products makes the rest
    bool context_alone;   // it reads only the context
    bool gated;           // c multiplies the product
    const int* adds;      // of each unit: the line of the other layer's sum; null: there is none
    const int* added_to;  // of each unit: the line of the sum to which its own is added, -1: to none; null: none is
    const int* c;         // of each unit: its line; null: there is none
    int c_layer;          // the layer that makes it
    double dropout;       // the share of values dropped in training; others are divided by the share that is kept
    int live;             // number of units with a reader
    int panel;            // where the layer's transposed inputs start among those of the transform
    int fold;             // its index among the folded biases of the transform, if it reads a context
    // In bf16 (core/bf16.hpp):
    const uint32_t* block;  // where the pairs of its blocks of units start
    const int64_t* back;    // and those of its blocks of inputs
    int pairs;              // where pairs of its values start among the lines of pairs; -1: no layer reads them
    int grad_pairs;         // likewise those of gradients by its products, in the backward pass
    int grad_rows;          // and where these gradients start among the panels, pairs of rows side by side
    int sums;               // where the sums of its units start among those of the transform, for small batches
};

// Whether derivatives of a layer's activation have lines of their own on the tape.
HR_FN bool keeps_slopes(const Layer& layer) {
    return layer.dropout > 0 || !has_slope_of_value(layer.activation);
}

template <class T>
struct MaskedNetwork {
    const Layer* layers;
    int n_layers, units;          // units: lines of all layers together
    int levels;                   // its positions
    const int* first_coordinate;  // of each level, and their end
    ForwardPlan tile_plan, small_plan;
    BackPlan back_plan;
    int outputs;                   // line of the first parameter that it gives
    bool has_slope_sweep;          // activations whose derivatives replace or stand beside their values
    int slopes;                    // line of the tape at which derivatives of activations start, -1: values tell
    Bf16Layout bf16;               // of the format of the products' factors
    int waits;                     // where sums of steps that wait start among the lines of pairs
    int64_t tile_weights;          // where those of tiles of rows start among the step's rounded weights
    int input_pairs, pairs, sums;  // where pairs of the inputs start among the lines of pairs; lines of pairs, and sums
};

// ---- members of every kind of conditioner (steps/conditioners.hpp) --------------------------------------------------

namespace {

template <class T>
HR_FN int positions(const MaskedNetwork<T>& c, int) {
    return c.levels;
}

template <class T>
HR_FN int first_coordinate(const MaskedNetwork<T>& c, int position) {
    return c.first_coordinate[position];
}

template <class T>
HR_FN int parameters(const MaskedNetwork<T>& c, int, bool) {
    return c.outputs;
}

template <class T>
HR_FN int state_lines(const MaskedNetwork<T>&) {
    return 0;  // the units of earlier levels are among those of all
}

template <class T>
HR_FN int scratch_lines(const MaskedNetwork<T>& c, int) {
    return c.units;
}

template <class T>
HR_FN int tape_lines(const MaskedNetwork<T>& c, int) {
    return c.slopes < 0 ? c.units : 2 * c.units;
}

}  // namespace
}  // namespace headrace
