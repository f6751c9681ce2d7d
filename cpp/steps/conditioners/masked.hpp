// The kernels' view of a masked network: its layers, and the order of their block products. The positions of a masked
// network are levels of coordinates.
#pragma once

#include <cstdint>

#include "../../math/activations.hpp"
#include "../products.hpp"

namespace headrace {

// A block of a masked product: units [row, row + rows) of a layer from inputs [k0, k1).
struct Op {
    int layer, row, rows, k0, k1;
    bool from_bias;  // otherwise add to the result of an earlier op
    bool finish;     // the last op for these units, which applies the activation
    int fresh = 0;   // in bf16: inputs of the network before this one were rounded by earlier ops
    int waits = -1;  // lines of the two sums of an unfinished step of each unit; -1: ops take whole steps
};

// The order of ops. The ops of positions [from, to) are [first[from], first[to]); where all positions are computed at
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

// In the backward pass positions come in reverse: the ops of positions [from, to) are [done[to], done[from]).
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
    bool sweep;           // another pass over the finished products computes the values
    bool context_alone;   // the layer reads only the context
    bool gated;           // c multiplies the product
    const int* adds;      // line of the other layer's sum for each unit; null: no sum is added
    const int* added_to;  // line of the sum to which each unit's is added, -1: none; null: none for all units
    const int* c;         // line of each unit; null: none
    int c_layer;          // the layer that makes it
    double dropout;       // the share of values dropped in training; others are divided by the share that is kept
    int live;             // number of units with a reader
    int panel;            // start of the layer's transposed inputs among those of the transform
    int fold;             // its index among the folded biases of the transform, if it reads a context
    // In bf16 (core/bf16.hpp):
    const uint32_t* block;  // start of the pairs of its blocks of units
    const int64_t* back;    // start of those of its blocks of inputs
    int pairs;              // start of the pairs of its values among the lines of pairs; -1: no layer reads them
    int grad_pairs;         // start of the pairs of gradients by its products, in the backward pass
    int grad_rows;          // start of these gradients among the panels, pairs of rows side by side
    int sums;               // start of the sums of its units among those of the transform, for small batches
};

// Whether derivatives of a layer's activation have lines of their own on the tape.
HR_FN bool keeps_slopes(const Layer& layer) {
    return layer.dropout > 0 || !has_slope_of_value(layer.activation);
}

template <class T>
struct MaskedNetwork {
    const Layer* layers;
    int n_layers, units;          // units: lines of all layers together
    int levels;                   // the number of positions
    const int* first_coordinate;  // of each level, and end of the last
    ForwardPlan tile_plan, small_plan;
    BackPlan back_plan;
    int outputs;                   // line of the first parameter that it gives
    bool has_slope_sweep;          // some derivatives of activations replace their values or are stored beside them
    int slopes;                    // line of the tape at which derivatives of activations start, -1: values tell
    Bf16Layout bf16;               // format of the products' factors
    int waits;                     // start of waiting sums among the lines of pairs
    int64_t tile_weights;          // start of the weights for tiles of rows among the step's rounded weights
    int input_pairs, pairs, sums;  // start of the pairs of inputs among the lines of pairs; lines of pairs, and sums
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
