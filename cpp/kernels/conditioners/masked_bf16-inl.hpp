// A network's ops where products are of values rounded to bf16: a network's input is rounded before the op that needs
// it first, and a unit's value after the op that computes it. The products are those of the table for this processor
// (core/bf16.hpp).
#pragma once

#include "../advance-inl.hpp"
#include "../gradient_product-inl.hpp"

namespace headrace {
namespace {

// The start of the pairs that a layer reads.
HR_FN int pairs_below(const MaskedNetwork<float>& c, const Layer& layer) {
    return layer.below < 0 ? c.input_pairs : c.layers[layer.below].pairs;
}

// The pairs that hold n values, or the only ones that count.
HR_FN int whole_pairs(const MaskedNetwork<float>& c, int n) {
    return n / (2 * c.bf16.step) * c.bf16.step;
}

HR_FN int pairs_with(const MaskedNetwork<float>& c, int n) {
    return whole_pairs(c, n + 2 * c.bf16.step - 1);
}

HR_FN bool needs_rounding(const Layer& layer, const Op& op) {
    return layer.below < 0 && op.fresh < op.k1;
}

// ---- tiles ----------------------------------------------------------------------------------------------------------

HR_FN void bf16_op(const MaskedNetwork<float>& c, const Known<float, TileBuffers<float>>& known, const Op& op) {
    const TileBuffers<float>& b = known.b;
    const Call<float>& call = known.call;
    const Layer& layer = c.layers[op.layer];
    uint32_t* const pairs = b.pairs + pairs_below(c, layer) * b.height;
    if (needs_rounding(layer, op)) call.bf16->round_lines(known.input, b.height, op.fresh / 2, op.k1, b.vectors, pairs);
    Bf16Product a;
    a.weights = call.rounded + known.step.rounded;
    a.block = layer.block;
    a.unit = op.row;
    a.units = op.rows;
    a.pair0 = whole_pairs(c, op.k0);  // pairs with a value not computed yet are left to the op that finishes
    a.pair1 = op.finish ? pairs_with(c, op.k1) : whole_pairs(c, op.k1);
    a.input = pairs;
    a.output = b.units + int64_t(layer.product + op.row) * b.height;
    a.stride = b.height;
    a.bias = op.finish ? known.weights + layer.bias + op.row : nullptr;
    a.from_zero = op.from_bias;
    a.relu = op.finish && layer.relu;
    call.bf16->product(a, b.vectors);
}

// The values of an op's units, for the layer above. A value whose pair is not complete yet has zero beside it.
HR_FN void bf16_values(const Call<float>& call, const Layer& layer, const Op& op, const TileBuffers<float>& b) {
    if (layer.pairs >= 0)
        call.bf16->round_lines(b.units + layer.value * b.height, b.height, op.row / 2, op.row + op.rows, b.vectors,
                               b.pairs + layer.pairs * b.height);
}

// ---- small batches --------------------------------------------------------------------------------------------------

// The blocks of units that contain an op's units. Units before its own are complete, and recomputing them gives equal
// values; units after them are not, and are overwritten later. So whole blocks are written, unless a term is added to
// the units in place.
struct Bf16Blocks {
    int first, end;
    bool whole;
    HR_FN Bf16Blocks(const Layer& layer, const Op& op)
        : first(op.row / bf16_units), end((op.row + op.rows - 1) / bf16_units + 1), whole(!layer.c && !layer.adds) {}
};

// Adds an op's inputs to blocks of units.
HR_FN void fill_sums(Bf16Sums& a, const MaskedNetwork<float>& c, const Known<float, SmallBuffers<float>>& known,
                     const Op& op, int first, int end) {
    const SmallBuffers<float>& b = known.b;
    const Layer& layer = c.layers[op.layer];
    a.weights = known.call.rounded + known.step.rounded;
    a.block = layer.block;
    a.first = first;
    a.end = end;
    a.pair0 = whole_pairs(c, op.k0);
    a.pair1 = whole_pairs(c, op.k1);
    a.input = b.pairs + pairs_below(c, layer);
    a.sums = b.sums + layer.sums;
    a.stride = b.stride;
    a.rows = b.rows;
}

// Adds the inputs before a panel to the sums of its blocks.
HR_FN void bf16_panel(const MaskedNetwork<float>& c, const Known<float, SmallBuffers<float>>& known, const Op& op) {
    const Bf16Blocks own(c.layers[op.layer], op);
    Bf16Sums a;
    fill_sums(a, c, known, op, own.first, own.end);
    known.call.bf16->add(a);
}

// Whether its units are complete; else a term is added to them later.
HR_FN bool bf16_op(const MaskedNetwork<float>& c, const Known<float, SmallBuffers<float>>& known, const Op& op) {
    const SmallBuffers<float>& b = known.b;
    const Call<float>& call = known.call;
    const Layer& layer = c.layers[op.layer];
    uint32_t* const pairs = b.pairs + pairs_below(c, layer);
    for (int r = 0; r < b.rows && needs_rounding(layer, op); ++r)
        call.bf16->round_row(known.input + r * b.stride, op.fresh / 2, op.k1, pairs + r * b.stride);
    const Bf16Blocks own(layer, op);
    Bf16Ends a;
    fill_sums(a.add, c, known, op, own.first, own.end);
    a.unit = op.row;
    a.end = op.row + op.rows;
    a.alone = !own.whole;
    a.pair_end = pairs_with(c, op.k1);
    a.bias = known.weights + layer.bias;
    a.product = b.units + layer.product;
    a.value = own.whole ? b.units + layer.value : a.product;
    a.activation = layer.activation;
    a.pairs = layer.pairs >= 0 ? b.pairs + layer.pairs : nullptr;
    call.bf16->finish(a);
    return own.whole;
}

// The values for the layer above, where they were not done at once.
HR_FN void bf16_values(const Call<float>& call, const Layer& layer, const Op& op, const SmallBuffers<float>& b) {
    for (int r = 0; r < b.rows && layer.pairs >= 0; ++r)
        call.bf16->round_row(b.units + r * b.stride + layer.value, op.row / 2, op.row + op.rows,
                             b.pairs + r * b.stride + layer.pairs);
}

// After the op's own units, which others wait for: adds its inputs to the sums of later units of the panel.
HR_FN void bf16_later(const MaskedNetwork<float>& c, const Known<float, SmallBuffers<float>>& known, const Op& op) {
    const Layer& layer = c.layers[op.layer];
    const int end = Bf16Blocks(layer, op).end, all = (layer.live + bf16_units - 1) / bf16_units;
    const int panels_end = (end + panel_blocks - 1) / panel_blocks * panel_blocks;
    const int blocks = panels_end < all ? panels_end : all;
    if (end >= blocks || whole_pairs(c, op.k0) >= whole_pairs(c, op.k1)) return;
    Bf16Sums a;
    fill_sums(a, c, known, op, end, blocks);
    known.call.bf16->add(a);
}

// ---- back -----------------------------------------------------------------------------------------------------------

// Gradients by the products of a layer that an op needs, and no earlier op did.
HR_FN void round_gradients(const Tape<float>& t, const Call<float>& call, const Layer& layer, const BackOp& op,
                           const float* units) {
    if (op.row0 < op.fresh)
        call.bf16->round_gradients(units + layer.product * t.height, t.height, op.row0, op.fresh, op.fresh < layer.live,
                                   t.vectors, as_pairs(t.at(t.chain.tape.pairs + layer.grad_pairs)));
}

// Counterpart of data_product for the op.
HR_FN void bf16_columns(const MaskedNetwork<float>& c, const KnownBack<float>& known, const Layer& layer,
                        const BackOp& op, const DataArgs<float>& args, int columns) {
    const Tape<float>& t = known.tape;
    Bf16Columns a;
    a.weights = known.call.rounded_back + known.step.rounded_back;
    a.back = layer.back;
    a.column = args.column;
    a.columns = columns;
    a.pair0 = whole_pairs(c, op.row0);
    a.pair1 = pairs_with(c, op.row1);
    a.grad = as_pairs(t.at(t.chain.tape.pairs + layer.grad_pairs));
    a.output = args.output;
    a.gate = args.gate;
    a.stride = t.height;
    a.kind = args.kind;
    known.call.bf16->columns(a, t.vectors);
}

// After all ops: gradients by the products in pairs of rows, for those of the weights.
HR_FN void gradients_of_rows(const MaskedNetwork<float>& c, const KnownBack<float>& known, const float* units) {
    const Tape<float>& t = known.tape;
    for (int l = 0; l < c.n_layers; ++l) {
        const Layer& layer = c.layers[l];
        known.call.bf16->row_pairs(units + layer.product * t.height, layer.live, t.height, t.rows,
                                   as_pairs(t.panels(known.network, layer.grad_rows)));
    }
}

}  // namespace
}  // namespace headrace
