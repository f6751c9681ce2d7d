// Products of networks whose values are rounded to bf16: the arguments of kernels, and the table of kernels. A flow of
// such products is exactly invertible and normalised nevertheless, because its conditioner is just another function.
//
// A value is one bf16 number, or a sum of two or three *parts*: the rounded value, the rounded remainder, and the
// rounded second remainder. The product of two values is a sum of products of their parts, in the order of
// math/bf16.hpp, which leaves out the smallest.
//
// A sum has one of two orders, which is the flow's setting. In *pairs* it starts at zero and takes its inputs two by
// two, the second one first. In *steps* of 32, as tiles of AMX do: in a step the even inputs are summed from zero, and
// the odd ones from zero; the two are added, and the result to the sum. The bias is last. Inputs that do not exist, or
// are not computed yet, count as zero, so that results do not depend on the kernel. A waiting sum of pairs is one
// value, a waiting sum of steps also has the two sums of its present step, after any whole number of *quads*, which are
// here pairs or four inputs.
//
// Kernels differ in the *words* of 32 bits of their factors. Words of pairs and of AMX hold two adjacent inputs, the
// even one in the lower half. VDPBF16PS adds the upper half's product first, and then the lower half's: for steps,
// words 2 j and 2 j + 1 have inputs 4 j and 4 j + 2, 4 j + 1 and 4 j + 3, in the upper and the lower half. Words of
// multiply-adds hold one input, a rounded float32, but for pairs in small batches, which wait for the bytes of weights.
//
// Weights are in blocks of bf16_units units, [word][part][unit], each block as long as the inputs of its last unit,
// rounded up to steps: tiles of rows broadcast units one by one, small batches read a block's units at once.
//
// In the backward pass both products are of rounded values, too, and have the same order. The gradient of an input is
// summed over units; weights are stored a second time for it, in blocks of bf16_units inputs, [word][part][input], from
// the first step that reads the block. The product for a weight's gradient is summed over rows; values beyond the last
// row are zero.
#pragma once

#include <cstdint>

#include "../steps/products.hpp"

namespace headrace {

constexpr int bf16_units = 16;
constexpr int panel_blocks = 8;  // of a layer: a position's values are added to these at once (small_batch_plan)
constexpr int most_bf16_parts = 3;
constexpr int bf16_step = 32;  // inputs of a step
constexpr int bf16_quad = 4;

// The products of parts of a weight and of a value, the smallest first; and the sums of a unit in a small batch: the
// sum, and of each kind of product the two of its step.
constexpr int bf16_kinds(int parts) {
    return parts * (parts + 1) / 2;
}

constexpr int bf16_planes(int parts) {
    return 1 + 2 * bf16_kinds(parts);
}

// Offsets of blocks, here and below, are those of one part, in words of two inputs.

// A layer whose weights are to be rounded.
struct Bf16Layer {
    const float* weights;  // the transform's first weight
    const uint32_t* row;   // offset of each unit's
    const int* visible;    // number of inputs that each unit reads
    int in, out;
    const uint32_t* block;  // start of each block of units, and end of the last one
    const int64_t* back;    // start of each block of inputs, if the first step of units read it
};

// Units [unit, unit + units) of a layer, for the rows of a tile.
struct Bf16Product {
    const uint32_t* weights;  // the transform's first word
    const uint32_t* block;    // start of each of the layer's blocks, and end of the last one
    int unit, units;
    int k0, k1;             // inputs; the first one starts a step, or a quad
    const uint32_t* input;  // [word][part][stride]
    float* output;          // [unit][stride], of the first one
    int64_t stride;
    float* waiting;     // [unit][2][stride], of the first one: sums of the step that k0 or k1 is inside of
    const float* bias;  // null unless these inputs come first: more inputs follow, and the last ends a step, or a quad
    bool from_zero;     // otherwise from the values in the output
    bool relu;
    // Kernels that `settle` finish the units of the whole op, where `words` is not null:
    int activation;
    uint32_t* words;  // the layer's values: lines like the input
    bool keeps;       // the output gets the values, too
};

// Blocks [first, end) of a layer, small batches: inputs [k0, k1), clipped to each block's, are added to sums. Both ends
// are multiples of quads.
struct Bf16Sums {
    const uint32_t *weights, *block;
    int first, end;
    int k0, k1;
    const uint32_t* input;  // [row][stride], a row's [step][part][word]
    float* sums;            // [row][stride], a row's [block][plane][unit] of the layer
    int64_t stride;
    int rows;
};

// Units [unit, end): inputs [k0, k1) are added to the sums of their blocks; then the inputs up to k_end, which do not
// fill a quad, the bias, the activation, and the rounded values for the layer above. Units form whole blocks unless
// `alone`.
struct Bf16Ends {
    Bf16Sums add;
    int unit, end;
    bool alone;
    int k_end;
    const float* bias;       // biases of the layer's units; whole blocks can be read, here and below
    float *product, *value;  // of the layer's units; equal pointers where only one is needed
    int activation;          // identity_index: none here
    uint32_t* words;         // values as inputs of the next layer; null: no layer reads them
};

// The gradient of inputs [column, column + columns) of a layer from that of units [unit0, unit1).
struct Bf16Columns {
    const uint32_t* weights;  // the transform's first word
    const int64_t* back;
    int column, columns;
    int unit0, unit1;
    const uint32_t* grad;  // [word][part][stride]
    float* output;         // [input][stride], from `column`
    const float* gate;
    int64_t stride;
    Gate kind;
};

// The gradient of weights of some units, summed over rows of a group of tapes.
struct Bf16Weights {
    const uint32_t* grad;    // [unit][part][word] of the first tile's tape
    const uint32_t* panels;  // [input / width][word][part][width] of the first tile's tape
    int64_t size;            // from tape to tape
    int height, rows;
    float* output;        // the transform's first weight's gradient
    const uint32_t* row;  // offsets of the units' weights
    int input;
    bool add;  // added to the present values
};

struct Bf16Kernels {
    Bf16Layout layout;
    // Lines [first, end) of a tile to words; lines beyond the end count as zero.
    void (*round_lines)(const float* lines, int64_t stride, int first, int end, int vectors, uint32_t* words) noexcept;
    void (*product)(const Bf16Product&, int vectors) noexcept;
    // Values [first, end) of a row of a small batch.
    void (*round_row)(const float* values, int first, int end, uint32_t* words) noexcept;
    void (*add)(const Bf16Sums&) noexcept;
    void (*finish)(const Bf16Ends&) noexcept;  // with the values to add before
    // A layer's weights in the layouts that the run and the backward pass read; tiles of rows may have their own.
    void (*round_weights)(const Bf16Layer&, uint32_t* words) noexcept;
    void (*round_tile_weights)(const Bf16Layer&, uint32_t* words) noexcept;
    void (*round_columns)(const Bf16Layer&, uint32_t* words) noexcept;
    // Lines [first, end) of gradients to words. Lines from the end to `live` are rounded already, and may be rounded
    // again; those beyond count as zero. Lines before `first` are not computed yet, and count as zero.
    void (*round_gradients)(const float* lines, int64_t stride, int first, int end, int live, int vectors,
                            uint32_t* words) noexcept;
    void (*columns)(const Bf16Columns&, int vectors) noexcept;
    // Lines of a tile to words of rows: [line][part][word], and [line / width][word][part][width].
    void (*row_words)(const float* lines, int n, int64_t height, int rows, uint32_t* words) noexcept;
    void (*panels)(const float* lines, int n, int64_t height, int rows, uint32_t* panels) noexcept;
    // Up to row_block units by any number of vectors of inputs.
    void (*weights)(const Bf16Weights&, int units, int vectors) noexcept;
    // Called before and after a thread's tiles of rows and its sums of weights; null where nothing is needed.
    void (*begin)() noexcept = nullptr;
    void (*end)() noexcept = nullptr;
};

// A thread's use of the kernels for tiles of rows, if a call has any.
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
