// Products of networks whose numbers are rounded to bf16: what kernels get, and the table of them. A flow of such
// products is exactly invertible and normalised all the same: its conditioner is another function, no less one.
//
// Numbers lie in pairs, the even one in the lower half of 32 bits: inputs 2j and 2j + 1 of a layer for a row, or under
// a unit as weights. Weights lie in blocks of bf16_units units, [pair][unit], each block as long as its last unit sees:
// tiles broadcast them one by one, few rows read a whole block's at once. In both each unit's sum starts at zero, takes
// its pairs in ascending order and its bias last, so that no bit of a row depends on the way that it took.
#pragma once

#include <cstdint>

namespace headrace {

constexpr int bf16_units = 16;

// Units [unit, unit + units) of a layer, for the rows of a tile.
struct Bf16Product {
    const uint32_t* weights;  // the transform's first pair
    const uint32_t* block;    // of the layer's blocks: where each starts, and their end
    int unit, units;
    int pair0, pair1;
    const uint32_t* input;  // [pair][stride]
    float* output;          // [unit][stride], of the first one
    int64_t stride;
    const float* bias;  // of the first one; null: more pairs follow
    bool from_zero;     // otherwise from what is in the output
    bool relu;
};

// Blocks [first, end) of a layer, for few rows: pairs [pair0, pair1), as far as a block has them, are added to sums.
struct Bf16Sums {
    const uint32_t *weights, *block;
    int first, end;
    int pair0, pair1;
    const uint32_t* input;  // [row][stride]
    float* sums;            // [row][stride], a number for each of the layer's units
    int64_t stride;
    int rows;
};

// Units [unit, end), which are done but for one pair of which the second input is not known, or not there, and the
// bias.
struct Bf16Ends {
    const uint32_t *weights, *block;
    int unit, end;
    int pair;  // -1: none is left
    const uint32_t* input;
    const float *sums, *bias;  // of the layer's units; whole blocks can be read
    float* output;             // of the layer's units
    int64_t stride;
    int rows;
    bool relu;
};

struct Bf16Kernels {
    // Lines [2 first, end) of a tile to pairs; a second one beyond the end counts as zero.
    void (*round_lines)(const float* lines, int64_t stride, int first, int end, int vectors, uint32_t* pairs) noexcept;
    void (*product)(const Bf16Product&, int vectors) noexcept;
    // The same of few rows, whose numbers lie side by side.
    void (*round_row)(const float* numbers, int first, int end, uint32_t* pairs) noexcept;
    void (*add)(const Bf16Sums&) noexcept;
    void (*finish)(const Bf16Ends&) noexcept;
};

}  // namespace headrace
