// The layout of weights in one vector, and the named tensors through which users read and set them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "views.hpp"

namespace headrace {

// Rows of weights and biases are padded to vectors.
inline int padded(int n) {
    return padded_row(n);
}

// A stretch of a vector of weights.
struct WeightRange {
    int64_t begin, end;
    bool is_bias;
};

// Rows of a weight matrix that read the same inputs, the first ones of the layer below: a matrix without masked
// entries, unless some are fixed at zero. Its entries from `begin` on: in each row those from its offset on.
struct WeightBlock {
    int64_t begin = 0;
    std::vector<uint32_t> row;
    int columns = 0;
};

// A named array of parameters, in the shape in which it is read and set.
struct Tensor {
    std::string name;
    std::vector<int64_t> shape;
};

class WeightLayout {
  public:
    WeightLayout() = default;
    virtual ~WeightLayout() = default;
    WeightLayout(const WeightLayout&) = delete;
    WeightLayout& operator=(const WeightLayout&) = delete;

    virtual uint32_t n_weights() const = 0;
    virtual std::vector<WeightRange> parts() const = 0;  // in order, from 0 to n_weights
    // Of the matrices of a network with hidden layers; other kinds of weights are in none.
    virtual std::vector<WeightBlock> blocks() const { return {}; }
    virtual std::vector<Tensor> tensors() const = 0;
    // Tensors, row by row, to the vector of weights and back. Masked entries are dropped, and come back as zero.
    virtual void pack(const std::vector<const float*>& tensors, float* weights) const = 0;
    virtual void pack(const std::vector<const double*>& tensors, double* weights) const = 0;
    virtual void unpack(const float* weights, const std::vector<float*>& tensors) const = 0;
    virtual void unpack(const double* weights, const std::vector<double*>& tensors) const = 0;
    // Sets the entries of a vector like the weights that are no weights to zero.
    virtual void clear_masked(float* weights) const = 0;
    virtual void clear_masked(double* weights) const = 0;
};

}  // namespace headrace
