// Products of conditioners of every kind: the format of their factors, and the use of their sums.
#pragma once

namespace headrace {

// Layout of bf16 values for products (core/bf16.hpp).
struct Bf16Layout {
    int parts = 0;         // number of bf16 parts of a value; 0: products are exact
    bool steps = false;    // the order of summands: in steps, otherwise in pairs
    int step = 2;          // inputs of one step of a sum
    int quad = 2;          // inputs between the points at which a sum may wait: in small batches, and also in tiles if
                           // `waits` is true
    int planes = 1;        // number of values that make up a waiting sum
    int words = 1;         // number of words for two values in lines and tapes, and for two weights of tiles
    int row_words = 1;     // number of words for two values, and for two weights, of small batches
    int units = 8;         // number of units of an op
    bool waits = false;    // whether sums of tiles of rows may wait inside a step
    bool apart = false;    // tiles of rows and small batches have separate weights
    bool settles = false;  // products of tiles round the values of the units that they finish
};

// The use of a backward sum: it is added to the output, stored, or multiplied by an activation's derivative. With
// `relu` the output holds the activation's value, with `multiply` the derivative.
enum class Gate { add, pass, relu, multiply };

}  // namespace headrace
