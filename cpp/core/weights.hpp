// The layout of weights in one vector, and the named tensors through which callers read and set weights.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "views.hpp"

namespace headrace {

// The length of n weights or biases, padded to whole vectors.
inline int padded(int n) {
    return padded_row(n);
}

// A range of a vector of weights.
struct WeightRange {
    int64_t begin, end;
    bool is_bias;
};

// A block of rows of a weight matrix that read the same inputs, the first units of the layer below. A block has no
// masked entries, but some entries may be fixed at zero. The entries of a row start at `begin` plus the offset of the
// row.
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
    virtual std::vector<WeightRange> parts() const = 0;  // ranges in order, which together are [0, n_weights)
    // Blocks of the matrices of a network with hidden layers; other weights are in no block.
    virtual std::vector<WeightBlock> blocks() const { return {}; }
    virtual std::vector<Tensor> tensors() const = 0;
    // Copy tensors, row by row, to the vector of weights and back. Masked entries are not copied, and are zero in the
    // tensors that are read.
    virtual void pack(const std::vector<const float*>& tensors, float* weights) const = 0;
    virtual void pack(const std::vector<const double*>& tensors, double* weights) const = 0;
    virtual void unpack(const float* weights, const std::vector<float*>& tensors) const = 0;
    virtual void unpack(const double* weights, const std::vector<double*>& tensors) const = 0;
    // Sets entries of a vector, of the length of the weight vector, to zero if the entries are not weights.
    virtual void clear_masked(float* weights) const = 0;
    virtual void clear_masked(double* weights) const = 0;
};

}  // namespace headrace
