// Products of conditioners of every kind: their number format, and the use of their sums.
#pragma once

namespace headrace {

// Layout of bf16 values for products of them (core/bf16.hpp).
struct Bf16Layout {
    int parts = 0;   // of each number; 0: products are exact
    int step = 1;    // number of pairs added at once
    int copies = 1;  // of the weights for the run
};

// How a backward sum is combined with its output: added, written as it is, or multiplied by an activation's
// derivative: the output holds the activation's value (ReLU), or its derivative is given.
enum class Gate { add, pass, relu, multiply };

}  // namespace headrace
