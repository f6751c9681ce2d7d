// What the kernels get: plain structs of sizes and pointers, owned by program.cpp. No function lives here, so that this
// header may be included once per instruction set.
//
// Words: a *slot* is a line of a tile that holds one coordinate (or one context column) for all its rows; `given` are
// the slots that a step starts from, `built` those it fills.
#pragma once

#include <cstdint>

#include "../math/maps/options.hpp"

namespace headrace {

constexpr int row_block = 8;         // rows of a weight matrix that share a length
constexpr int row_padding = 16;      // row lengths and biases are padded to this many weights
constexpr int max_tile_vectors = 6;  // vectors of rows in a tile: the product kernel's three, twice
constexpr int small_batch = 8;       // fewer rows than this: the batch's rows are not worth a vector's lanes
constexpr int sum_rows = 128;        // rows whose share of the weights' gradient is summed in registers
constexpr int fold_rows = 8192;  // whose sums are float32; those of more rows are added in float64. Of sum_rows many

// A block of a masked product: units [row, row + rows) of a layer from inputs [k0, k1).
struct Op {
    int layer, row, rows, k0, k1;
    bool from_bias;  // otherwise add to what an earlier op left
    bool finish;     // the last op for these units: apply the activation
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
};

// The map's gradients at some coordinates, then the ops that can be done after them.
struct BackPhase {
    int coordinate_begin, coordinate_end, op_begin, op_end;
};

struct BackPlan {
    const BackOp* ops;
    const BackPhase* phases;
    int n_phases;
};

struct Layer {
    const uint32_t* row;  // offset of each unit's weights from the transform's first weight
    const int* visible;   // so many inputs are seen by each unit
    uint32_t bias;        // offset of the biases
    int in, out, unit;    // inputs, units, and where the units start among the scratch units of the transform
    int live;             // so many units are seen by anybody
    int panel;            // where the layer's transposed inputs start among those of the transform
};

template <class T>
struct MaskedStep {
    Plan tile_plan, small_plan;
    BackPlan back_plan;
    const Layer* layers;
    int n_layers, units;  // units: of all layers together
    int activation, map, n_params;
    MapOptions<T> options;
    bool map_inverse;  // which way the map runs
    bool reads_built;  // the sequential direction: the network reads what is being built
    bool has_activation_sweep;
    int64_t weights;  // offset in the flow's weight vector
    int input_slot;   // where the network's inputs start: after a context that it does not read
    int fold;         // place of the folded first bias, or -1 (no context)
    int n_active, n_passive;
    const int *active_given, *active_built;    // slots of the active coordinates, in order of level
    const int *passive_given, *passive_built;  // the rest is copied
    int64_t tape_units, tape_slopes;           // lines of the tape; slopes: of the activation, -1 if its value tells
    int vector_map;  // the network's outputs are the raw parameters of this vector map, -1: of `map`
    int ready;       // where its ready parameters start among the scratch units
};

// A run of vector maps with one set of parameters each for all rows. Their ready parameters are made once a call, in
// the order of the slots.
template <class T>
struct VectorStep {
    int map;
    bool inverse;  // which way the maps run
    MapOptions<T> options;
    int transforms, n_ready;
    int64_t ready;           // where they start among those of the chain
    const int64_t* weights;  // where each transform's raw parameters start in the flow's weight vector
    const int* coordinate;   // of each slot, transform by transform
    int64_t tape_states;     // lines of the tape: coordinates between the transforms
};

// value * scale + shift for each coordinate, or (value - shift) * scale, in float64; at the data end of a chain it is
// part of loading and storing.
struct ScaleStep {
    const double *scale, *shift;  // by slot
    bool shift_first;
};

// A map with ready parameters for each coordinate, the same for all rows. On the way back it is a network that reads
// nothing.
struct ElementwiseStep {
    int n_ready;
    int64_t ready;          // where they start among those of the chain, in the order of the slots
    int64_t weights;        // where the raw ones start in the flow's weight vector, coordinate by coordinate
    const int* coordinate;  // of each slot: its place among them
};

// Products of the coordinates with a block diagonal matrix, [built slot][given slot], and back with its transpose.
// Block i takes coordinates' slots [first[i], first[i + 1]) to themselves; a dense matrix is one block.
template <class T>
struct RotationStep {
    const T *matrix, *transpose, *zeros;  // block after block, row by row
    const uint32_t* row;                  // offset of each row, which is as long as its block is wide
    const int* first;
    int blocks;
};

// Moves coordinates to where the next network reads them, where the step before could not put them there.
struct MoveStep {
    const int *given, *built;
};

enum class StepKind : int { network, elementwise, vector, rotation, scale, move };

template <class T>
struct Step {
    StepKind kind;
    MaskedStep<T> network;  // of a vector step: the layers whose biases are its parameters, and their gradients' lines
    VectorStep<T> vector;
    ElementwiseStep elementwise;
    RotationStep<T> rotation;
    ScaleStep scale;
    MoveStep move;
};

enum class Base : int { none, normal, logistic };

// What a tile keeps of a run through the chain, for the way back; places are lines of `height` numbers.
struct TapeShape {
    int64_t states;     // coordinates and context before each step and after the last: slots lines each
    int64_t gradients;  // of the state at hand, and of the one before: slots lines each
    int64_t panels[2];  // transposed inputs of a network's layers, of odd and even networks
    int64_t sums;       // one line each: log-determinant, its gradient
    int64_t lines;      // in all
};

// A program in one direction.
template <class T>
struct Chain {
    int features, context;
    int units;        // scratch units of the largest step
    int64_t ready;    // numbers in the ready parameters of all vector steps
    bool tiles_only;  // some step knows no path of its own for small batches
    const Step<T>* steps;
    int n_steps;
    const int *load_slot, *store_slot;            // of each column
    const double *load_shift, *load_scale;        // (value - shift) * scale on the way in, or null
    const double *store_shift, *store_scale;      // value * scale + shift on the way out, or null
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

// Where a gradient comes from: that of some number with respect to the results of a run. Missing arrays are null.
struct Cotangent {
    ArrayView value;   // by the resulting coordinates
    ArrayView row;     // by the row's log-determinant or log-density, times row_scale; null: row_scale for all rows
    double row_scale;  // 0: neither matters
    bool of_log_prob;  // the row's number is the log-density
};

// One call. Missing outputs are null; `input.data` is null for a sample.
template <class T>
struct Call {
    int64_t rows;
    ArrayView input, context;
    bool context_is_folded;  // one context row for all: it already is in the folded biases
    const T* folded;         // folded first biases of all steps
    const T* ready;          // ready parameters of all vector and elementwise steps
    uint64_t seed;
    Base base;
    bool inverse;  // data -> latent: the base density belongs to the end of the chain
    const T* weights;
    T *value, *log_det, *log_prob;
    double* wide_value;  // in the place of value: as the data end makes it, without a rounding to T
};

// What the way back is asked for.
template <class T>
struct Back {
    Cotangent from;
    T *input, *context;  // gradients, or null
    T* weights;          // gradient, or null
    double* finished;    // the sums of all fold_rows rows before; null: there are no more than those
    int height;          // rows of a tile
};

// A task of the weights' gradient: units [unit0, unit1) of a layer by inputs [input0, input1), summed over the tapes of
// a group of tiles.
struct WeightTask {
    int network, layer, unit0, unit1, input0, input1;
};

template <class T>
struct TapeGroup {
    const T* tapes;
    int64_t size, rows;  // of one tape, in numbers; rows of all tiles together
    int64_t begin;       // the first of these rows
};

// Vector maps alone (hr.ops): rows of arrays (rows, columns), with one set of ready parameters, or raw ones for each
// row.
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
constexpr int ascent_sum_count = 6;           // of z, z², r, z r, q = (z - center) / r, and 1 / r²
constexpr int ascent_sums_of(int features) {  // those of each coordinate, then for each the sum of its map's logarithms
    return features * (ascent_sum_count + 1);
}
constexpr int ascent_block_rows = 4608;  // whose sums are kept in lanes; a whole number of tiles

template <class T>
struct AscentStep {
    int features, tile_rows;
    const T *bend, *center, *square;  // of each coordinate's map z + bend sqrt(square + (z - center)²)
    double log_scale;                 // what the affine map after it adds to the log-Jacobian
    const int* slot;                  // line at which each coordinate meets the affine map
    const T *matrix, *shift;          // of this affine map: block after block, row by row, as in RotationStep
    const uint32_t* row;              // offset of each row
    const int* first;                 // line of each block, and their end
    int blocks;
    const T *next_center, *next_square;  // of the next map; null: sums of x² alone
    const T* ones;                       // a vector's width of them
};

// Adam (Kingma, Ba 2015) with the weight decay of AdamW (Loshchilov, Hutter 2019); factors of one step.
template <class T>
struct AdamStep {
    T mean_decay, square_decay;  // beta1, beta2
    T rate;                      // learning rate over the mean's bias correction
    T square_correction;         // 1 / (1 - beta2^t)
    T epsilon, shrink;           // shrink: 1 - learning rate times weight decay
    T gradient_scale;            // of the clipped gradient
    T average_gain;              // of the running mean of the weights
};

}  // namespace headrace
