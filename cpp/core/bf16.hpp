// Products of networks whose values are rounded to bf16: the arguments of kernels, and the table of kernels. A flow
// with rounded products is still exactly invertible and normalised, because any function may be a conditioner.
//
// A float32 value is represented by one bf16 value, or by a sum of two or three *parts*: the rounded value, the rounded
// remainder, and the rounded second remainder. The product of two values is a sum of products of their parts, in the
// order of math/bf16.hpp, without the smallest products.
//
// The terms of a sum over inputs are added in one of two orders, a setting of the flow. A sum in *pairs* starts at zero
// and adds the terms of its inputs two by two, the second input of a pair first. A sum in *steps* adds 32 inputs at
// once, as tiles of AMX do: the even inputs of a step are summed from zero, the odd inputs are summed from zero, and
// the total of both is added to the sum. The bias is added last. Inputs that do not exist, or are not computed yet,
// count as zero, so that results do not depend on the kernel. A sum can wait for further inputs after any whole number
// of *quads*: two inputs for sums in pairs, four for sums in steps. A waiting sum in pairs is one value; a waiting sum
// in steps also has the two sums of its present step.
//
// Kernels store factors in *words* of 32 bits, and the kernel determines which values a word contains. Words for pairs
// and for AMX hold two adjacent inputs, the even one in the lower half. VDPBF16PS adds the product of the upper half
// first, then the product of the lower half. For sums in steps, word 2 j for VDPBF16PS therefore holds inputs 4 j
// (upper half) and 4 j + 2 (lower half), and word 2 j + 1 inputs 4 j + 1 and 4 j + 3. Words for multiply-adds hold one
// input, a rounded float32, but words for pairs in small batches hold two, because small batches wait for the bytes of
// weights.
//
// Weights are in blocks of bf16_units units, [word][part][unit]. A block is as long as the inputs of its last unit,
// rounded up to steps. Tiles of rows broadcast the weights of single units; small batches read all units of a block at
// once.
//
// The backward pass also rounds the factors of both of its products, and adds terms in the order (pairs or steps) of
// the flow. The gradient of an input is summed over units; for this sum weights are stored a second time, in blocks of
// bf16_units inputs, [word][part][input], from the first step that reads the block. The gradient of a weight is summed
// over rows; values beyond the last row are zero.
#pragma once

#include <cstdint>

#include "../steps/products.hpp"

namespace headrace {

constexpr int bf16_units = 16;
constexpr int panel_blocks = 8;  // blocks of units whose sums get the values of a position at once (small_batch_plan)
constexpr int most_bf16_parts = 3;
constexpr int bf16_step = 32;  // number of inputs of a step
constexpr int bf16_quad = 4;

// bf16_kinds: the number of products of a part of a weight and a part of a value. bf16_planes: the number of sums of a
// unit in a small batch, which are its sum and two sums of the present step for each kind of product.
constexpr int bf16_kinds(int parts) {
    return parts * (parts + 1) / 2;
}

constexpr int bf16_planes(int parts) {
    return 1 + 2 * bf16_kinds(parts);
}

// Offsets of blocks in this file count words of one part, where a word has two inputs.

// A layer whose weights are to be rounded.
struct Bf16Layer {
    const float* weights;  // first weight of the transform
    const uint32_t* row;   // offset of each unit's weights
    const int* visible;    // number of inputs that each unit reads
    int in, out;
    const uint32_t* block;  // start of each block of units, and the end of the last block
    const int64_t* back;    // start of each block of inputs, counted back to the first step of units, even if that step
                            // does not read the block
};

// The product of units [unit, unit + units) of a layer, for the rows of a tile.
struct Bf16Product {
    const uint32_t* weights;  // first word of the transform's weights
    const uint32_t* block;    // start of each of the layer's blocks, and the end of the last block
    int unit, units;
    int k0, k1;             // range of inputs; k0 starts a step, or a quad
    const uint32_t* input;  // inputs [word][part][stride]
    float* output;          // results [unit][stride] from `unit` on
    int64_t stride;
    float* waiting;     // sums [unit][2][stride] from `unit` on, of an unfinished step at k0 or k1
    const float* bias;  // biases; null if further inputs are added before the bias, where k1 ends a step, or a quad
    bool from_zero;     // whether sums start from zero; false: from the values in the output
    bool relu;
    // Kernels whose layout has `settles` use the members below where `words` is not null, and finish all units of the
    // op.
    int activation;
    uint32_t* words;  // the layer's rounded values, in lines like the input
    bool keeps;       // whether values are also stored in the output
};

// Sums of blocks [first, end) of a layer in a small batch, to which inputs [k0, k1) are added as far as a block reads
// them. k0 and k1 are multiples of quads.
struct Bf16Sums {
    const uint32_t *weights, *block;
    int first, end;
    int k0, k1;
    const uint32_t* input;  // inputs [row][stride]; a row is [step][part][word]
    float* sums;            // sums [row][stride]; a row is the layer's [block][plane][unit]
    int64_t stride;
    int rows;
};

// The last op of units [unit, end). First inputs [k0, k1) are added to the sums of the units' blocks, then inputs up to
// k_end, which do not fill a quad, and the bias. Last, the activation is applied, and values are rounded for the layer
// above. Units form whole blocks unless `alone` is true.
struct Bf16Ends {
    Bf16Sums add;
    int unit, end;
    bool alone;
    int k_end;
    const float* bias;       // biases of the layer's units; this array and those below can be read in whole blocks
    float *product, *value;  // products and values of the layer's units; equal pointers where only one is needed
    int activation;          // identity_index: no activation is applied here
    uint32_t* words;         // values as inputs of the next layer; null: no layer reads them
};

// The gradient of inputs [column, column + columns) of a layer from the gradient of units [unit0, unit1).
struct Bf16Columns {
    const uint32_t* weights;  // first word of the transform's weights
    const int64_t* back;
    int column, columns;
    int unit0, unit1;
    const uint32_t* grad;  // gradients of units, [word][part][stride]
    float* output;         // gradients of inputs, [input][stride] from `column` on
    const float* gate;
    int64_t stride;
    Gate kind;
};

// The gradient of the weights of some units, summed over the rows of a group of tapes.
struct Bf16Weights {
    const uint32_t* grad;    // gradients [unit][part][word] on the first tile's tape
    const uint32_t* panels;  // inputs [input / width][word][part][width] on the first tile's tape
    int64_t size;            // distance of one tape from the next
    int height, rows;
    float* output;        // gradient of the transform's first weight
    const uint32_t* row;  // offsets of the weights of units
    int input;
    bool add;  // whether gradients are added to the present values
};

struct Bf16Kernels {
    Bf16Layout layout;
    // Rounds lines [first, end) of a tile to words; lines beyond the end count as zero.
    void (*round_lines)(const float* lines, int64_t stride, int first, int end, int vectors, uint32_t* words) noexcept;
    void (*product)(const Bf16Product&, int vectors) noexcept;
    // Rounds values [first, end) of a row of a small batch to words.
    void (*round_row)(const float* values, int first, int end, uint32_t* words) noexcept;
    void (*add)(const Bf16Sums&) noexcept;
    void (*finish)(const Bf16Ends&) noexcept;  // first adds inputs as `add` does
    // Rounds a layer's weights, in the layouts of the run and the backward pass; tiles of rows may have a separate
    // layout.
    void (*round_weights)(const Bf16Layer&, uint32_t* words) noexcept;
    void (*round_tile_weights)(const Bf16Layer&, uint32_t* words) noexcept;
    void (*round_columns)(const Bf16Layer&, uint32_t* words) noexcept;
    // Rounds lines [first, end) of gradients to words. Lines [end, live) are already rounded, and may be rounded again.
    // Lines before `first`, which are not computed yet, and lines from `live` on count as zero.
    void (*round_gradients)(const float* lines, int64_t stride, int first, int end, int live, int vectors,
                            uint32_t* words) noexcept;
    void (*columns)(const Bf16Columns&, int vectors) noexcept;
    // Round lines of a tile to words of rows: row_words as [line][part][word], panels as [line /
    // width][word][part][width].
    void (*row_words)(const float* lines, int n, int64_t height, int rows, uint32_t* words) noexcept;
    void (*panels)(const float* lines, int n, int64_t height, int rows, uint32_t* panels) noexcept;
    // Sums the weight gradients of at most row_block units by any number of vectors of inputs.
    void (*weights)(const Bf16Weights&, int units, int vectors) noexcept;
    // Functions that a thread calls before and after it computes tiles of rows or sums of weight gradients; null where
    // a kernel needs no such call.
    void (*begin)() noexcept = nullptr;
    void (*end)() noexcept = nullptr;
};

// The use of kernels for tiles of rows by a thread: its constructor calls `begin`, its destructor `end`.
class Bf16Session {
  public:
    explicit Bf16Session(const Bf16Kernels* kernels) : end_(kernels ? kernels->end : nullptr) {
        if (kernels && kernels->begin) kernels->begin();
    }
    ~Bf16Session() {
        if (end_) end_();
    }
    Bf16Session(const Bf16Session&) = delete;
    Bf16Session& operator=(const Bf16Session&) = delete;

  private:
    void (*end_)() noexcept;
};

}  // namespace headrace
