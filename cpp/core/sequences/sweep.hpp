// Data layout and arguments of the *sweep*, which runs from a sequence's last position to the first. The sweep belongs
// to the direction that computes one position after another, where the network (steps/causal.hpp) reads earlier
// results.
//
// In the sequential direction v[t] depends on the arguments of the call and on outputs[t], and later outputs depend on
// v[t]. With a' for the gradient by a, the implicit function theorem gives a linear recursion for known v:
//
//   v'[t] = gradient by the result v[t] + sum over taps i of  W[i]^T h'[t + kernel - i] of the first layer
//   outputs'[t] = starts[t] + sum over columns c of  v'[t, c] slopes[t, c]
//
// From outputs'[t] the gradients by layers' values at position t follow as in the backward pass (back.hpp). After the
// sweep, the backward pass computes gradients that are sums over positions.
//
// Lanes of the sweep are the results of products with transposed matrices, stored as [unit][input]. Terms of a sum are
// added in a fixed order, so that no bit depends on the length of a segment.
#pragma once

#include "back.hpp"

namespace headrace {

struct CausalSweepLayer {
    int64_t gate;  // transposed weights, lines (kernel, gate_units) of [channel_units]
    int64_t out;   // matrix (channel_units, channel_units), the factor of gradients by the next layer's values;
                   // none in the last layer
    int64_t ring;  // in the state: gradients by the gates' arguments [slot][gate_units], with the slots of the forward
                   // pass
};

struct CausalSweepShape {
    const CausalSweepLayer* layers;
    int64_t skip;            // transposed weights, lines (skip_units) of [layer][channel_units], for skip outputs
    int64_t head, last;      // transposed weights, lines (skip_units), lines (output_units) of [skip_units]
    int64_t turned;          // number of transposed weights
    int64_t first;           // in the state: gradients by values of the first layer [slot][channel_units]
    int64_t ahead;           // in the state: sums over taps whose values are known [layer][causal_ahead][channel_units]
    int64_t factors, lines;  // in the state: scratch arrays
    int64_t numbers;         // total number of values of the state
};

constexpr int sweep_block = 16;  // number of positions of a block of factors, a multiple of a vector's width
constexpr int sweep_rows = 4;    // sequences that are computed together, so that weights are read once for all

// The sweep of one segment of a sequence.
template <class T>
struct CausalSweep {
    const CausalSweepShape* shape;
    const T* turned;  // transposed weights
    T* state;         // state, which is zero after the sequence's last position
    int* slots;       // slot of the segment's last position in each layer
    int64_t steps;    // number of steps of the sequence
    // Slopes [position][values][of_input]: by all outputs, or only by the outputs of the value's map.
    const T* slopes;
    int of_input;
    T* outputs;  // [position][outputs]: starts, which the gradients replace
    T* values;   // [position][values]: gradients by the results, which gradients by v replace
};

}  // namespace headrace
