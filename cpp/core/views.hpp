// Arguments of the kernels: plain structs of sizes and pointers, whose owners are in compiled.hpp, published.hpp and
// scratch.hpp. Functions are inlined (HR_FN), so that this header may be included once per instruction set.
//
// Words: a *slot* is a line of a tile that holds one coordinate (or one context column) for all its rows; `given` are
// the slots that a step reads, `built` those that it fills.
#pragma once

#include <cstdint>

#include "../math/adam.hpp"
#include "../math/ascent.hpp"
#include "../math/base_density.hpp"
#include "../math/maps/options.hpp"
#include "../math/muon.hpp"
#include "../steps/steps.hpp"
#include "bf16.hpp"

namespace headrace {

constexpr int row_block = 8;         // rows of a weight matrix that share a length
constexpr int row_padding = 16;      // row lengths and biases are padded to this many weights
constexpr int max_tile_vectors = 6;  // vectors of rows in a tile: the product kernel's three, twice
constexpr int small_batch = 8;       // with fewer rows than this, lanes are not rows
constexpr int sum_rows = 128;        // rows whose share of the weights' gradient is summed in registers
constexpr int fold_rows = 8192;  // rows with sums in float32; sums of more rows are added in float64. Of sum_rows many

// The record that a tile keeps of a run through the chain, for the backward pass; offsets count lines of `height`
// values.
struct TapeShape {
    int64_t states;     // coordinates and context before each step and after the last: slots lines each
    int64_t gradients;  // gradients by the current state, and by the one before: slots lines each
    int64_t panels[2];  // transposed inputs of a network's layers, of odd and even networks; in bf16 gradients, too
    int64_t pairs;      // in bf16, of the current network
    int64_t sums;       // lines of the log-determinant and of its gradient
    int64_t lines;      // in all
};

// A program in one direction.
template <class T>
struct Chain {
    int features, context;
    int units;        // scratch units of the largest step
    int64_t ready;    // values of the ready parameters of all vector, elementwise and density steps
    bool tiles_only;  // some step has no kernel for small batches
    int pairs, sums;  // in bf16: lines of pairs, and sums of units for small batches; of the step that has most
    const Step<T>* steps;
    int n_steps;
    const int *load_slot, *store_slot;        // of each column
    const double *load_shift, *load_scale;    // (value - shift) * scale on the way in, or null
    const double *store_shift, *store_scale;  // value * scale + shift on the way out, or null
    // Of each column, before the shift on the way in, after it on the way out; or null.
    const SupportColumn *load_support, *store_support;
    const DensityStep<T>* density;                // the base, if it is a step; or null
    const double *context_shift, *context_scale;  // (context - shift) * scale on the way in, or null
    double log_det;                               // the constant part
    const int* networks;                          // the steps that have weights
    int n_networks;
    TapeShape tape;
};

// An array as NumPy describes it: strides in bytes, any alignment. `rows` chooses its rows; null: all in their order.
struct ArrayView {
    const char* data;
    int64_t row_stride, column_stride;
    bool is_double;
    const int64_t* rows;
};

// The start of a backward pass: the gradient of a scalar with respect to the results of a run. Missing arrays are null.
struct Cotangent {
    ArrayView value;   // by the resulting coordinates
    ArrayView row;     // by the row's log-determinant or log-density, times row_scale; null: row_scale for all rows
    double row_scale;  // 0: neither matters
    bool of_log_prob;  // the row's value is the log-density
};

// One call. Missing outputs are null; `input.data` is null for a sample.
template <class T>
struct Call {
    int64_t rows;
    ArrayView input, context;
    bool context_is_folded;  // the only context row: the folded biases contain it already
    const T* folded;         // folded first biases of all steps
    const T* ready;          // ready parameters of all vector, elementwise and density steps
    uint64_t seed;           // of drawn values, or of dropout
    int64_t first_row;       // index of the first row that is drawn
    bool drops;
    Base base;
    bool inverse;  // data -> latent: the base density belongs to the end of the chain
    const T* weights;
    const Bf16Kernels* bf16;  // if it has products, and the weights rounded
    const uint32_t *rounded, *rounded_back;
    T *value, *log_det, *log_prob;
    double* wide_value;  // instead of value: the data end's result, without a rounding to T
};

// The index of a row for random numbers: its index in the caller's array.
HR_FN int64_t row_number(const ArrayView& input, int64_t row) {
    return input.rows ? input.rows[row] : row;
}

// Outputs requested of the backward pass.
template <class T>
struct Back {
    Cotangent from;
    T *input, *context;  // gradients, or null
    T* weights;          // gradient, or null
    double* finished;    // the sums of all earlier groups of fold_rows rows; null: there are none
    int height;          // rows of a tile
    const Bf16Kernels* bf16;
};

// A task of the weights' gradient: units [unit0, unit1) of a step's sums, by inputs [input0, input1), over the tapes of
// a group of tiles.
struct WeightTask {
    int network, summed, unit0, unit1, input0, input1;
};

template <class T>
struct TapeGroup {
    const T* tapes;
    int64_t size, rows;  // values of one tape; rows of all tiles together
    int64_t begin;       // the first of these rows
};

// Vector maps without a program (hr.ops): rows of arrays (rows, columns), with one set of ready parameters for all
// rows, or raw ones for each row.
constexpr int vector_rows_of_tile = 64;

template <class T>
struct VectorRows {
    int map;
    bool inverse;
    MapOptions<T> options;
    int features, n_raw, n_ready;
    const T *value, *params, *ready;  // ready: null if rows have params of their own
    T *result, *log_det;
};

template <class T>
struct VectorRowsBack {
    const T *grad_value, *grad_log_det;
    T *grad_input, *grad_params;
};

// A step of dual ascent on tiles [feature][tile_rows] of rows.
constexpr int ascent_block_rows = 4608;  // rows with sums in lanes; a multiple of the rows of a tile

template <class T>
struct AscentStep {
    int features, tile_rows;
    const T *bend, *center, *square;  // of each coordinate's map z + bend sqrt(square + (z - center)²)
    double log_scale;                 // the next affine map's term of the log-Jacobian
    const int* slot;                  // line of each coordinate at the affine map
    const T *matrix, *shift;          // of this affine map: block after block, row by row, as in RotationStep
    const uint32_t* row;              // offset of each row
    const int* first;                 // line of each block, and their end
    int blocks;
    const T *next_center, *next_square;  // of the next map; null: only sums of x²
    const T* ones;                       // a vector of ones
};

// Length of a row of a matrix in scratch, or of a layer's weights: whole vectors.
HR_FN int padded_row(int n) {
    return (n + row_padding - 1) / row_padding * row_padding;
}

// A block of a weight matrix to which Muon gives one orthogonal update (WeightBlock).
struct MuonBlock {
    const uint32_t* row;  // offsets of its rows
    int rows, columns;
    const uint32_t *x_row, *side_row;  // offsets of rows of columns, and of the shorter side's length, in scratch
    const uint8_t* is_weight;          // for entries of a vector like the weights; null: all of the block are weights
};

}  // namespace headrace
