// Ops of a network whose products are of values rounded to bf16. Inputs of the network are rounded before the first op
// that needs them, and values of units after the op that computes them. The products are functions of the table for
// this processor (core/bf16.hpp).
#pragma once

#include "../advance-inl.hpp"
#include "../gradient_product-inl.hpp"

namespace headrace {
namespace {

// The first line of the pairs that a layer reads.
HR_FN int pairs_below(const MaskedNetwork<float>& c, const Layer& layer) {
    return layer.below < 0 ? c.input_pairs : c.layers[layer.below].pairs;
}

// The number of inputs before input n that earlier ops added: whole steps for a tile, whole quads for a small batch.
HR_FN int whole(int n, int at_once) {
    return n / at_once * at_once;
}

HR_FN bool needs_rounding(const Layer& layer, const Op& op) {
    return layer.below < 0 && op.fresh < op.k1;
}

// ---- tiles ----------------------------------------------------------------------------------------------------------

// Whether a product of tiles can finish a layer's units, which requires that no other code reads values between sums
// and results.
HR_FN bool settles(const MaskedNetwork<float>& c, const Layer& layer, const TileBuffers<float>& b) {
    return c.bf16.settles && layer.pairs >= 0 && layer.value == layer.product && !layer.c && !layer.adds &&
           layer.dropout == 0 && !(b.is_recorded && c.slopes >= 0);
}

// Runs an op. Returns whether the units of the op are finished, if no later op adds to these units.
HR_FN bool bf16_op(const MaskedNetwork<float>& c, const Known<float, TileBuffers<float>>& known, const Op& op) {
    const TileBuffers<float>& b = known.b;
    const Call<float>& call = known.call;
    const Layer& layer = c.layers[op.layer];
    uint32_t* const pairs = b.pairs + pairs_below(c, layer) * b.height;
    if (needs_rounding(layer, op)) call.bf16->round_lines(known.input, b.height, op.fresh, op.k1, b.vectors, pairs);
    Bf16Product a;
    a.weights = call.rounded + known.step.rounded + c.tile_weights;
    a.block = layer.block;
    a.unit = op.row;
    a.units = op.rows;
    const bool waits = op.waits >= 0;
    a.waiting = waits ? reinterpret_cast<float*>(b.pairs) + int64_t(c.waits + op.waits) * b.height : nullptr;
    const int at_once = waits ? c.bf16.quad : c.bf16.step;
    a.k0 = whole(op.k0, at_once);  // an op that finishes units also adds an incomplete step
    a.k1 = op.finish ? op.k1 : whole(op.k1, at_once);
    a.input = pairs;
    a.output = b.units + int64_t(layer.product + op.row) * b.height;
    a.stride = b.height;
    a.bias = op.finish ? known.weights + layer.bias + op.row : nullptr;
    a.from_zero = op.from_bias;
    a.relu = op.finish && layer.relu;
    a.activation = layer.activation;
    a.words = op.finish && settles(c, layer, b) ? b.pairs + layer.pairs * b.height : nullptr;
    a.keeps = b.is_recorded || layer.added_to;
    call.bf16->product(a, b.vectors);
    return a.words;
}

// Rounds the values of an op's units for the layer above. Values that are not computed yet are zero in the words.
HR_FN void bf16_values(const Call<float>& call, const Layer& layer, const Op& op, const TileBuffers<float>& b) {
    if (layer.pairs >= 0)
        call.bf16->round_lines(b.units + layer.value * b.height, b.height, op.row, op.row + op.rows, b.vectors,
                               b.pairs + layer.pairs * b.height);
}

// ---- small batches --------------------------------------------------------------------------------------------------

// The blocks of units that contain an op's units. Whole blocks are written, unless a term is added to the units in
// place: earlier units of the blocks are complete and get equal values again, and later units are overwritten by later
// ops.
struct Bf16Blocks {
    int first, end;
    bool whole;
    HR_FN Bf16Blocks(const Layer& layer, const Op& op)
        : first(op.row / bf16_units), end((op.row + op.rows - 1) / bf16_units + 1), whole(!layer.c && !layer.adds) {}
};

// Sets the arguments that add an op's inputs to the sums of blocks of units.
HR_FN void fill_sums(Bf16Sums& a, const MaskedNetwork<float>& c, const Known<float, SmallBuffers<float>>& known,
                     const Op& op, int first, int end) {
    const SmallBuffers<float>& b = known.b;
    const Layer& layer = c.layers[op.layer];
    a.weights = known.call.rounded + known.step.rounded;
    a.block = layer.block;
    a.first = first;
    a.end = end;
    a.k0 = whole(op.k0, c.bf16.quad);
    a.k1 = whole(op.k1, c.bf16.quad);
    a.input = b.pairs + pairs_below(c, layer);
    a.sums = b.sums + layer.sums;
    a.stride = b.stride;
    a.rows = b.rows;
}

// Adds the inputs before a panel to the sums of the panel's blocks.
HR_FN void bf16_panel(const MaskedNetwork<float>& c, const Known<float, SmallBuffers<float>>& known, const Op& op) {
    const Bf16Blocks own(c.layers[op.layer], op);
    Bf16Sums a;
    fill_sums(a, c, known, op, own.first, own.end);
    known.call.bf16->add(a);
}

// Runs an op. Returns whether the units of the op are complete; otherwise a later op adds a term to these units.
HR_FN bool bf16_op(const MaskedNetwork<float>& c, const Known<float, SmallBuffers<float>>& known, const Op& op) {
    const SmallBuffers<float>& b = known.b;
    const Call<float>& call = known.call;
    const Layer& layer = c.layers[op.layer];
    uint32_t* const pairs = b.pairs + pairs_below(c, layer);
    for (int r = 0; r < b.rows && needs_rounding(layer, op); ++r)
        call.bf16->round_row(known.input + r * b.stride, op.fresh, op.k1, pairs + r * b.stride);
    const Bf16Blocks own(layer, op);
    Bf16Ends a;
    fill_sums(a.add, c, known, op, own.first, own.end);
    a.unit = op.row;
    a.end = op.row + op.rows;
    a.alone = !own.whole;
    a.k_end = op.k1;
    a.bias = known.weights + layer.bias;
    a.product = b.units + layer.product;
    a.value = own.whole ? b.units + layer.value : a.product;
    a.activation = layer.activation;
    a.words = layer.pairs >= 0 ? b.pairs + layer.pairs : nullptr;
    call.bf16->finish(a);
    return own.whole;
}

// Rounds the values for the layer above, where the product did not round them.
HR_FN void bf16_values(const Call<float>& call, const Layer& layer, const Op& op, const SmallBuffers<float>& b) {
    for (int r = 0; r < b.rows && layer.pairs >= 0; ++r)
        call.bf16->round_row(b.units + r * b.stride + layer.value, op.row, op.row + op.rows,
                             b.pairs + r * b.stride + layer.pairs);
}

// Adds the inputs of an op to the sums of later units of the panel. The op's own units are computed before, because
// later ops wait for these units.
HR_FN void bf16_later(const MaskedNetwork<float>& c, const Known<float, SmallBuffers<float>>& known, const Op& op) {
    const Layer& layer = c.layers[op.layer];
    const int end = Bf16Blocks(layer, op).end, all = (layer.live + bf16_units - 1) / bf16_units;
    const int panels_end = (end + panel_blocks - 1) / panel_blocks * panel_blocks;
    const int blocks = panels_end < all ? panels_end : all;
    if (end >= blocks || whole(op.k0, c.bf16.quad) >= whole(op.k1, c.bf16.quad)) return;
    Bf16Sums a;
    fill_sums(a, c, known, op, end, blocks);
    known.call.bf16->add(a);
}

// ---- back -----------------------------------------------------------------------------------------------------------

// Rounds gradients by the products of a layer that an op needs and no earlier op needed.
HR_FN void round_gradients(const Tape<float>& t, const Call<float>& call, const Layer& layer, const BackOp& op,
                           const float* units) {
    if (op.row0 < op.fresh)
        call.bf16->round_gradients(units + layer.product * t.height, t.height, op.row0, op.fresh, layer.live, t.vectors,
                                   as_pairs(t.at(t.chain.tape.pairs + layer.grad_pairs)));
}

// Computes data_product for an op, with rounded factors.
HR_FN void bf16_columns(const KnownBack<float>& known, const Layer& layer, const BackOp& op,
                        const DataArgs<float>& args, int columns) {
    const Tape<float>& t = known.tape;
    Bf16Columns a;
    a.weights = known.call.rounded_back + known.step.rounded_back;
    a.back = layer.back;
    a.column = args.column;
    a.columns = columns;
    a.unit0 = op.row0;
    a.unit1 = op.row1;
    a.grad = as_pairs(t.at(t.chain.tape.pairs + layer.grad_pairs));
    a.output = args.output;
    a.gate = args.gate;
    a.stride = t.height;
    a.kind = args.kind;
    known.call.bf16->columns(a, t.vectors);
}

// Stores gradients by all products as words of rows, after all ops, for the gradient of weights.
HR_FN void gradients_of_rows(const MaskedNetwork<float>& c, const KnownBack<float>& known, const float* units) {
    const Tape<float>& t = known.tape;
    for (int l = 0; l < c.n_layers; ++l) {
        const Layer& layer = c.layers[l];
        known.call.bf16->row_words(units + layer.product * t.height, layer.live, t.height, t.rows,
                                   as_pairs(t.panels(known.network, layer.grad_rows)));
    }
}

}  // namespace
}  // namespace headrace
