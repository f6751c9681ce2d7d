// A masked network, and the map whose parameters are its outputs.
#pragma once

#include <cstdint>

#include "../math/activations.hpp"
#include "coordinate_map.hpp"

namespace headrace {

// A block of a masked product: units [row, row + rows) of a layer from inputs [k0, k1).
struct Op {
    int layer, row, rows, k0, k1;
    bool from_bias;  // otherwise add to what an earlier op left
    bool finish;     // the last op for these units: apply the activation
    int fresh = 0;   // in bf16: of what the network reads, numbers before this one were rounded by earlier ops
};

// How numbers in bf16 lie where products are of them (core/bf16.hpp).
struct Bf16Layout {
    int parts = 0;   // of each number; 0: products are exact
    int step = 1;    // so many pairs are added at once
    int copies = 1;  // of the weights for the way forth
};

// Ops, then the coordinates (a range of the transform's active ones) whose parameters they settle.
struct Phase {
    int op_begin, op_end, coordinate_begin, coordinate_end;
};

struct Plan {
    const Op* ops;
    const Phase* phases;
    int n_phases;
};

// Backwards: the gradient of inputs [column, column + columns) of a layer from that of its units [row0, row1).
struct BackOp {
    int layer, column, columns, row0, row1;
    int fresh = 0;  // in bf16: gradients of units from this one on were rounded for earlier ops
};

// What becomes of a sum of the way back: added to the output, let through as it is, or through an activation: the
// output holds the activation's value (ReLU), or its derivative is given.
enum class Gate { add, pass, relu, multiply };

// The map's gradients at some coordinates, then the ops that can be done after them.
struct BackPhase {
    int coordinate_begin, coordinate_end, op_begin, op_end;
};

struct BackPlan {
    const BackOp* ops;
    const BackPhase* phases;
    int n_phases;
};

// A layer makes   product = W input + b,   sum = product + c,  or product * c,   + another layer's sum,   value =
// activation(sum) where c is the value of a layer that reads the context alone. Lines are scratch units of the
// transform; those of two of the three are the same where nobody needs both.
struct Layer {
    const uint32_t* row;      // offset of each unit's weights from the transform's first weight
    const int* visible;       // so many inputs are seen by each unit
    uint32_t bias;            // offset of the biases
    int in, out;              // inputs, units
    int below;                // the layer whose values it reads; -1: what the network reads
    int product, sum, value;  // lines at which those of the first unit are
    int activation;
    bool relu;            // the product kernel applies the activation
    bool sweep;           // another pass over the finished products makes the rest
    bool context_alone;   // it reads the context alone
    bool gated;           // c multiplies the product
    const int* adds;      // of each unit: the line of the other layer's sum; null: there is none
    const int* added_to;  // of each unit: the line of the sum to which its own is added, -1: to none; null: none is
    const int* c;         // of each unit: its line; null: there is none
    int c_layer;          // the layer that makes it
    double dropout;       // the share of values that are left out in training; others are divided by what is kept
    int live;             // so many units are seen by anybody
    int panel;            // where the layer's transposed inputs start among those of the transform
    int fold;             // its place among the folded numbers of the transform, if it reads a context
    // In bf16 (core/bf16.hpp):
    const uint32_t* block;  // where the pairs of its blocks of units start
    const int64_t* back;    // and those of its blocks of inputs
    int pairs;              // where pairs of its values start among the lines of pairs; -1: no layer reads them
    int grad_pairs;         // likewise those of gradients by its products, on the way back
    int grad_rows;          // and where these gradients start among the panels, pairs of rows side by side
    int sums;               // where the sums of its units start among those of the transform, for few rows
};

// Whether derivatives of a layer's activation have lines of their own on the tape.
HR_FN bool keeps_slopes(const Layer& layer) {
    return layer.dropout > 0 || !has_slope_of_value(layer.activation);
}

template <class T>
struct NetworkStep {
    static constexpr bool in_place = false;

    Plan tile_plan, small_plan;
    BackPlan back_plan;
    const Layer* layers;
    int n_layers, units;   // units: lines of all layers together
    bool has_slope_sweep;  // activations whose derivatives replace or stand beside their values
    CoordinateMap<T> map;  // of the active coordinates, in order of level
    int vector_map;        // the network's outputs are the raw parameters of this vector map, -1: of `map`
    int ready;             // where its ready parameters start among the scratch units
    bool reads_built;      // the sequential direction: the network reads what is being built
    int64_t weights;       // offset in the flow's weight vector
    int input_slot;        // where the network's inputs start: after a context that it does not read
    uint32_t stream;       // of the random numbers of dropout: another one for each network of a flow
    int fold;              // place of the first folded number, or -1 (no context)
    int n_passive;
    const int *passive_given, *passive_built;  // coordinates that are copied
    int64_t tape_units, tape_slopes;           // lines of the tape; slopes: of the activation, -1 if its value tells
    Bf16Layout bf16;                           // of the numbers that products are of
    int64_t rounded, rounded_back;             // offsets in the flow's rounded weights, of either order
    int input_pairs;                           // where pairs of the inputs start among the lines of pairs
    int pairs, sums;                           // lines of pairs; sums of all layers together
};

}  // namespace headrace
