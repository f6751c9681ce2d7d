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
    bool from_bias;  // the sum starts from the bias; otherwise from the result of an earlier op
    bool finish;     // the last op for these units, which applies the activation
    int fresh = 0;   // in bf16: earlier ops have rounded the inputs before this index
    int waits = -1;  // line of the two sums of each unit's unfinished step; -1: ops add whole steps
};

// The order of forward ops. The ops of positions [from, to) are [first[from], first[to]); where all positions are
// computed at once, the first position has all ops.
struct ForwardPlan {
    const Op* ops;
    const int* first;
};

// An op of the backward pass: the gradient of inputs [column, column + columns) of a layer from the gradient of its
// units [row0, row1).
struct BackOp {
    int layer, column, columns, row0, row1;
    int fresh = 0;  // in bf16: earlier ops have rounded the gradients of units from this index on
};

// The plan of the backward pass, in which positions are computed in reverse order: the ops of positions [from, to) are
// [done[to], done[from]).
struct BackPlan {
    const BackOp* ops;
    const int* done;
};

// A layer makes product = W input + b, sum = product + c, or product * c, + another layer's sum, value =
// activation(sum) where c is the value of a layer that reads only the context. A line is a scratch unit of the
// transform; product, sum and value share a line where only one of them is needed.
struct Layer {
    const uint32_t* row;      // offset of each unit's weights from the transform's first weight
    const int* visible;       // number of inputs that each unit reads
    uint32_t bias;            // offset of the biases
    int in, out;              // inputs, units
    int below;                // the layer whose values this layer reads; -1: the network's inputs
    int product, sum, value;  // first line of the products, of the sums and of the values
    int activation;
    bool relu;            // the product kernel applies the activation
    bool sweep;           // another pass over the finished products computes the values
    bool context_alone;   // the layer reads only the context
    bool gated;           // c multiplies the product
    const int* adds;      // line of the sum of another layer that is added, for each unit; null: none
    const int* added_to;  // line of the sum to which each unit's sum is added, -1: none; null: none for all units
    const int* c;         // line of c for each unit; null: the layer has no c
    int c_layer;          // the layer that computes c
    double dropout;       // the share of values dropped in training; kept values are divided by the share that is kept
    int live;             // number of units whose values are read
    int panel;            // start of the layer's inputs among the transposed inputs of the transform
    int fold;             // the layer's index among the folded biases of the transform, if it reads a context
    // The members below are for bf16 (core/bf16.hpp).
    const uint32_t* block;  // start of the weight pairs of the layer's blocks of units
    const int64_t* back;    // start of the weight pairs of the layer's blocks of inputs
    int pairs;              // first line of pairs of the layer's values; -1: no layer reads these pairs
    int grad_pairs;         // first line of pairs of the gradients by the layer's products, in the backward pass
    int grad_rows;          // start of the gradients by the layer's products among the panels, pairs of rows side by
                            // side
    int sums;               // start of the sums of the layer's units among the sums of the transform, for small batches
};

// Whether derivatives of a layer's activation have separate lines on the tape.
HR_FN bool keeps_slopes(const Layer& layer) {
    return layer.dropout > 0 || !has_slope_of_value(layer.activation);
}

template <class T>
struct MaskedNetwork {
    const Layer* layers;
    int n_layers, units;          // `units`: the number of lines of all layers
    int levels;                   // number of levels, which are the positions of the network
    const int* first_coordinate;  // first coordinate of each level, and the end of the last level
    ForwardPlan tile_plan, small_plan;
    BackPlan back_plan;
    int outputs;                   // line of the network's first output, a parameter of the map
    bool has_slope_sweep;          // some derivatives of activations replace values or are stored beside values
    int slopes;                    // first line of the tape with derivatives of activations; -1: derivatives follow
                                   // from the values
    Bf16Layout bf16;               // format of the products' factors
    int waits;                     // first line of waiting sums among the lines of pairs
    int64_t tile_weights;          // start of the weights for tiles of rows among the step's rounded weights
    int input_pairs, pairs, sums;  // first line of pairs of inputs; numbers of lines of pairs and of sums
};

// ---- functions of every kind of conditioner (steps/conditioners.hpp) ------------------------------------------------

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
    return 0;  // units of earlier levels stay in the scratch lines of all units
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
