// Arguments of the kernels: plain structs of sizes and pointers, whose owners are in compiled.hpp, published.hpp and
// scratch.hpp. Functions are inlined (HR_FN), so that each instruction set can include this header.
//
// A *slot* is a line of a tile, with one coordinate (or one context column) of all rows of the tile; `given` are the
// slots that a step reads, and `built` the slots that it fills.
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

constexpr int row_block = 8;         // number of rows of a weight matrix that have equal length
constexpr int row_padding = 16;      // row lengths and biases are padded to multiples of this number of weights
constexpr int max_tile_vectors = 6;  // vectors of rows in a tile: twice the three vectors of a block of products
constexpr int small_batch = 8;       // calls with fewer rows are small batches, whose lanes are not rows
constexpr int sum_rows = 128;        // number of rows whose share of the weights' gradient is summed in registers
constexpr int fold_rows = 8192;      // number of rows summed in float32, a multiple of sum_rows; totals are in float64

// The tape of a tile: the record of a run through the chain, for the backward pass. Offsets count lines of `height`
// values.
struct TapeShape {
    int64_t states;     // coordinates and context before each step and after the last step, in `slots` lines each
    int64_t gradients;  // gradients by the states after and before the current step, in `slots` lines each
    int64_t panels[2];  // transposed inputs of a network's layers, for networks with even and with odd index; in bf16,
                        // also gradients
    int64_t pairs;      // in bf16: pairs of the current network
    int64_t sums;       // one line for the log-determinant, and one for its gradient
    int64_t lines;      // total number of lines
};

// The steps of a program in one direction, and the ends of the chain.
template <class T>
struct Chain {
    int features, context;
    int units;        // number of scratch units of the largest step
    int64_t ready;    // number of parameters of all vector, elementwise and density steps (steps/ready.hpp)
    bool tiles_only;  // whether some step has no kernel for small batches
    int pairs, sums;  // in bf16: largest number of lines of pairs of a step, and of sums for small batches
    const Step<T>* steps;
    int n_steps;
    const int *load_slot, *store_slot;        // slot of each column
    const double *load_shift, *load_scale;    // inputs are loaded as (value - shift) * scale; or null
    const double *store_shift, *store_scale;  // results are stored as value * scale + shift; or null
    // The support of each column, applied before the shift when loading and after it when storing; or null.
    const SupportColumn *load_support, *store_support;
    const DensityStep<T>* density;                // the base, if it is a step of the chain; or null
    const double *context_shift, *context_scale;  // the context is loaded as (context - shift) * scale; or null
    double log_det;                               // the constant part of the log-determinant
    const int* networks;                          // indices of the steps that have weights
    int n_networks;
    TapeShape tape;
};

// A view of an array, as in NumPy: strides are in bytes, and any alignment is allowed. `rows` has the indices of the
// chosen rows; null: all rows in order.
struct ArrayView {
    const char* data;
    int64_t row_stride, column_stride;
    bool is_double;
    const int64_t* rows;
};

// The start of a backward pass: the gradient of a scalar by the results of a run. Missing arrays are null.
struct Cotangent {
    ArrayView value;   // gradient by the resulting coordinates
    ArrayView row;     // gradient by the row's log-determinant or log-density, times row_scale; null: row_scale for all
                       // rows
    double row_scale;  // 0: the scalar depends neither on log-determinants nor on log-densities
    bool of_log_prob;  // whether the row's value is the log-density
};

// The arguments of one call. Missing outputs are null; `input.data` is null for a sample.
template <class T>
struct Call {
    int64_t rows;
    ArrayView input, context;
    bool context_is_folded;  // there is one context row, which the folded biases contain already
    const T* folded;         // folded first biases of all steps
    const T* ready;          // ready parameters of all vector, elementwise and density steps
    uint64_t seed;           // seed of a sample, or of dropout
    int64_t first_row;       // index of the first row of a sample
    bool drops;
    Base base;
    bool inverse;  // from data to latent: the base density is at the end of the chain
    const T* weights;
    const Bf16Kernels* bf16;  // kernels for products in bf16 with rounded weights, or null
    const uint32_t *rounded, *rounded_back;
    T *value, *log_det, *log_prob;
    double* wide_value;  // results at the data end, not rounded to T, in place of `value`
};

// The index of a row for random values: its index in the caller's array.
HR_FN int64_t row_number(const ArrayView& input, int64_t row) {
    return input.rows ? input.rows[row] : row;
}

// The outputs of a backward pass that are requested.
template <class T>
struct Back {
    Cotangent from;
    T *input, *context;  // gradients by rows and by context, or null
    T* weights;          // gradient by weights, or null
    double* finished;    // sums of all earlier groups of fold_rows rows; null: there are none
    int height;          // number of rows of a tile
    const Bf16Kernels* bf16;
};

// A task of the weights' gradient: sums for units [unit0, unit1) and inputs [input0, input1) of a step, over the tapes
// of a group of tiles.
struct WeightTask {
    int network, summed, unit0, unit1, input0, input1;
};

template <class T>
struct TapeGroup {
    const T* tapes;
    int64_t size, rows;  // number of values of one tape, and of rows of all tiles together
    int64_t begin;       // index of the group's first row
};

// Vector maps without a program (hr.ops): rows of arrays (rows, columns), with one set of ready parameters for all
// rows, or raw parameters for each row.
constexpr int vector_rows_of_tile = 64;

template <class T>
struct VectorRows {
    int map;
    bool inverse;
    MapOptions<T> options;
    int features, n_raw, n_ready;
    const T *value, *params, *ready;  // ready is null if each row has params
    T *result, *log_det;
};

template <class T>
struct VectorRowsBack {
    const T *grad_value, *grad_log_det;
    T *grad_input, *grad_params;
};

// A step of dual ascent on tiles [feature][tile_rows] of rows.
constexpr int ascent_block_rows = 4608;  // number of rows with sums in lanes; a multiple of the rows of a tile

template <class T>
struct AscentStep {
    int features, tile_rows;
    const T *bend, *center, *square;  // parameters of each coordinate's map z + bend sqrt(square + (z - center)²)
    double log_scale;                 // the term of the next affine map in the log-Jacobian
    const int* slot;                  // line of each coordinate in the input of the affine map
    const T *matrix, *shift;          // the affine map: its matrix block after block, row by row, as in RotationStep
    const uint32_t* row;              // offset of each row of the matrix
    const int* first;                 // first line of each block, and the end of the last block
    int blocks;
    const T *next_center, *next_square;  // center and square of the next map; null: only sums of x² are computed
    const T* ones;                       // a vector of ones
};

// The length of a row of n values of a matrix in scratch, or of a layer's weights, rounded up to whole vectors.
HR_FN int padded_row(int n) {
    return (n + row_padding - 1) / row_padding * row_padding;
}

// A block of a weight matrix to which Muon gives one orthogonal update (WeightBlock).
struct MuonBlock {
    const uint32_t* row;  // offset of each row of the block
    int rows, columns;
    const uint32_t *x_row, *side_row;  // offsets in scratch of rows as long as the columns, and as the shorter side
    const uint8_t* is_weight;          // 1 for entries that are weights, from the same start as the weights; null: all
                                       // entries of the block are weights
};

}  // namespace headrace
