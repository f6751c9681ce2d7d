// Data layout and arguments of the *sweep*, which runs from a sequence's last position to the first: for the direction
// that computes one position after another, where the network (steps/causal.hpp) reads earlier results.
//
// In that direction v[t] depends on the arguments of the call and on outputs[t], and later outputs depend on v[t]. With
// a' for the gradient by a, the implicit function theorem gives a linear recursion for known v:
//
//   v'[t] = gradient by the result v[t] + sum over taps i of  W[i]^T h'[t + kernel - i] of the first layer
//   outputs'[t] = starts[t] + sum over columns c of  v'[t, c] slopes[t, c]
//
// and outputs'[t] give the gradients by the layers' values at position t as in the backward pass (back.hpp). Its other
// results, sums over positions, are computed by that pass after the sweep.
//
// The sweep's lanes are outputs of products with turned matrices, whose lines are those of the units:
// [unit][input]. Sums have fixed chains, so no bit depends on the length of a segment.
#pragma once

#include "back.hpp"

namespace headrace {

struct CausalSweepLayer {
    int64_t gate;  // lines (kernel, gate_units) of [channel_units]
    int64_t out;   // lines (channel_units) of [channel_units]: for the next layer's values; the last layer has none
    int64_t ring;  // in the state: gradients by the gates' arguments [slot][gate_units]; slots as in the forward pass
};

struct CausalSweepShape {
    const CausalSweepLayer* layers;
    int64_t skip;            // lines (skip_units) of [layer][channel_units]: of skip outputs
    int64_t head, last;      // lines (skip_units), lines (output_units) of [skip_units]
    int64_t turned;          // weights in total
    int64_t first;           // in the state: gradients by values of the first layer [slot][channel_units]
    int64_t ahead;           // in the state: sums over taps that are known [layer][causal_ahead][channel_units]
    int64_t factors, lines;  // in the state: scratch
    int64_t numbers;         // values of the state in total
};

constexpr int sweep_block = 16;  // positions of a block of factors: a multiple of vectors
constexpr int sweep_rows = 4;    // sequences that are computed together, so that weights are read once for all of them

// The sweep of a sequence's segment.
template <class T>
struct CausalSweep {
    const CausalSweepShape* shape;
    const T* turned;  // weights
    T* state;         // zero behind the sequence's last position
    int* slots;       // for each layer, the slot of the segment's last position
    int64_t steps;    // of the sequence
    // [position][values][of_input]: of all outputs, or of those that only this input's map has.
    const T* slopes;
    int of_input;
    T* outputs;  // [position][outputs]: starts, which become the gradients
    T* values;   // [position][values]: gradients by the results, which become those by v
};

}  // namespace headrace
