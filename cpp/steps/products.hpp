// Products of conditioners of every kind: their number format, and the use of their sums.
#pragma once

namespace headrace {

// Layout of bf16 values for products (core/bf16.hpp).
struct Bf16Layout {
    int parts = 0;       // parts of each value; 0: products are exact
    bool steps = false;  // the order of sums: in steps, else in pairs
    int step = 2;        // inputs that a sum takes at once
    int quad = 2;        // inputs after whose multiples a sum may wait: in small batches, and in tiles where it `waits`
    int planes = 1;      // values that a sum consists of while it waits
    int words = 1;       // words of two values in lines and tapes, and of two weights for tiles of rows
    int row_words = 1;   // words of two values of a small batch, and of two weights for it
    int units = 8;       // of an op
    bool waits = false;  // inside a step, in tiles of rows
    bool apart = false;  // tiles of rows and small batches have weights of their own
    bool settles = false;  // products of tiles round the values of the units that they finish
};

// How a backward sum is combined with its output: added, stored, or multiplied by an activation's derivative: the
// output holds the activation's value (ReLU), or its derivative is given.
enum class Gate { add, pass, relu, multiply };

}  // namespace headrace
