// Products of networks whose values are rounded to bf16: the arguments of kernels, and the table of kernels. A flow of
// such products is exactly invertible and normalised all the same, because its conditioner is just another function.
//
// A value is one bf16 number, or a sum of two or three *parts*: the value rounded, the remainder rounded, and the
// second remainder rounded. The product of two values is the sum of the products of those of their parts that count, in
// the order of math/bf16.hpp.
//
// Values are in pairs, the even one in the lower half of 32 bits: inputs 2j and 2j + 1 of a layer for a row, or under a
// unit as weights. Weights are in blocks of bf16_units units, [pair][part][unit], each block as long as the inputs of
// its last unit: tiles broadcast them one by one, small batches read a block's at once. In both each unit's sum starts
// at zero, takes its pairs in ascending order and its bias last, so that no bit of a row depends on the kernel.
//
// Where kernels add a *step* of several pairs at once, the same holds of steps: blocks are whole multiples of them, and
// pairs that do not exist, or are not computed yet, count as zero.
//
// In the backward pass both products are of rounded values, too, and both sum pairs from zero in ascending order. The
// gradient of an input is summed over units, in pairs of these; weights are stored a second time for it, in blocks of
// bf16_units inputs, [pair of units][part][input], from the first step that reads the block. That of a weight is summed
// over rows, in pairs of these; values beyond the last row are zero.
#pragma once

#include <cstdint>

#include "../steps/products.hpp"

namespace headrace {

constexpr int bf16_units = 16;
constexpr int panel_blocks = 8;  // of a layer, that a position's values are added to at once (small_batch_plan)
constexpr int most_bf16_parts = 3;
constexpr int pair_group = 16;  // pairs of a row whose parts are adjacent

// Offsets of blocks, here and below, are those of one part and one copy.

// A layer whose weights are to be rounded.
struct Bf16Layer {
    const float* weights;  // the transform's first weight
    const uint32_t* row;   // offset of each unit's
    const int* visible;    // number of inputs that each unit reads
    int in, out;
    const uint32_t* block;  // where the pairs of each block of units start, and their end
    const int64_t* back;    // where those of each block of inputs would start, if its first pair of units read it
};

// Units [unit, unit + units) of a layer, for the rows of a tile.
struct Bf16Product {
    const uint32_t* weights;  // the transform's first pair
    const uint32_t* block;    // of the layer's blocks: where each starts, and their end
    int unit, units;
    int pair0, pair1;
    const uint32_t* input;  // [pair][part][stride]
    float* output;          // [unit][stride], of the first one
    int64_t stride;
    const float* bias;  // of the first one; null: more pairs follow
    bool from_zero;     // otherwise from the values in the output
    bool relu;
};

// Blocks [first, end) of a layer, small batches: pairs [pair0, pair1), clipped to each block's, are added to sums.
struct Bf16Sums {
    const uint32_t *weights, *block;
    int first, end;
    int pair0, pair1;
    const uint32_t* input;  // [row][stride], a row's [pair / pair_group][part][pair_group]
    float* sums;            // [row][stride], a number for each of the layer's units
    int64_t stride;
    int rows;
};

// Units [unit, end): pairs [pair0, pair1) are added to the sums of their blocks; then the later pairs, some of which
// are not computed yet, or do not exist, the bias, the activation, and the values in pairs for the layer above. Units
// form whole blocks unless `alone`.
struct Bf16Ends {
    Bf16Sums add;
    int unit, end;
    bool alone;
    int pair_end;            // of the pairs after those that are added
    const float* bias;       // of the layer's units; whole blocks can be read, here and below
    float *product, *value;  // of the layer's units; equal to the other where only one is needed
    int activation;          // identity_index: none here
    uint32_t* pairs;         // of the layer's values; null: no layer reads them
};

// The gradient of inputs [column, column + columns) of a layer from that of pairs of units [pair0, pair1).
struct Bf16Columns {
    const uint32_t* weights;  // the transform's first pair
    const int64_t* back;
    int column, columns;
    int pair0, pair1;
    const uint32_t* grad;  // [pair][part][stride]
    float* output;         // [input][stride], from `column`
    const float* gate;
    int64_t stride;
    Gate kind;
};

// The gradient of weights of some units, summed over rows of a group of tapes.
struct Bf16Weights {
    const uint32_t* grad;    // [unit][part][height / 2] of the first tile's tape
    const uint32_t* panels;  // [input / width][height / 2][part][width] of the first tile's tape
    int64_t size;            // from tape to tape
    int height, rows;
    float* output;        // the transform's first weight's gradient
    const uint32_t* row;  // offsets of the units' weights
    int input;
    bool add;  // added to the present values
};

struct Bf16Kernels {
    Bf16Layout layout;
    // Lines [2 first, end) of a tile to pairs; lines beyond the end count as zero.
    void (*round_lines)(const float* lines, int64_t stride, int first, int end, int vectors, uint32_t* pairs) noexcept;
    void (*product)(const Bf16Product&, int vectors) noexcept;
    // Pairs of a small batch, whose values are adjacent.
    void (*round_row)(const float* numbers, int first, int end, uint32_t* pairs) noexcept;
    void (*add)(const Bf16Sums&) noexcept;
    void (*finish)(const Bf16Ends&) noexcept;  // with the values to add before
    // A layer's weights in the layouts that the run and the backward pass read.
    void (*round_weights)(const Bf16Layer&, uint32_t* pairs) noexcept;
    void (*round_columns)(const Bf16Layer&, uint32_t* pairs) noexcept;
    // Lines [first, end) of gradients to pairs. The second value of the last pair is `next` where there is one, else
    // zero; lines before `first` in its step are not computed yet, and count as zero.
    void (*round_gradients)(const float* lines, int64_t stride, int first, int end, bool has_next, int vectors,
                            uint32_t* pairs) noexcept;
    void (*columns)(const Bf16Columns&, int vectors) noexcept;
    // Lines of a tile to pairs of rows: [line][part][height / 2], and [line / width][height / 2][part][width].
    void (*row_pairs)(const float* lines, int n, int64_t height, int rows, uint32_t* pairs) noexcept;
    void (*panels)(const float* lines, int n, int64_t height, int rows, uint32_t* panels) noexcept;
    // Up to row_block units by any number of vectors of inputs.
    void (*weights)(const Bf16Weights&, int units, int vectors) noexcept;
};

}  // namespace headrace
