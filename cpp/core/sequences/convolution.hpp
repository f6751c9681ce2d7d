// A causal convolution network over time on the host: its sizes, and the layout of its weights (steps/causal.hpp).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../../steps/causal.hpp"
#include "../weights.hpp"

namespace headrace {

struct CausalOptions {
    int inputs = 1;              // number of values of a step
    bool is_companded = false;   // whether the network also reads companded values (math/compand.hpp)
    int channels = 0, skip = 0;  // widths of the layers, and of their skip outputs
    int kernel = 2;              // number of taps of a layer
    std::vector<int> dilations;  // dilation of each layer
    int outputs = 0;             // outputs for each position
    int context = 0;             // number of columns of the context, one row for a sequence
    int covariates = 0;          // number of columns of the covariates
    int hop = 1;                 // number of positions for one frame of covariates
};

class CausalConvolution final : public WeightLayout {
  public:
    // Throws std::invalid_argument for impossible sizes.
    explicit CausalConvolution(CausalOptions options);

    const CausalOptions& options() const { return options_; }
    // The number of earlier positions whose inputs affect the outputs at a position.
    int64_t field() const;
    // The number of positions before a chunk at which layers without a past must start, so that values of the chunk
    // equal the values of a run over the whole sequence.
    int64_t warm_up() const { return field() - options_.kernel; }
    // The arguments of kernels, with pointers into this object.
    const CausalNetwork& network() const { return network_; }

    // The number of words with pairs of weights in bf16, which follow the weights in a vector of `round`.
    uint32_t n_pairs() const { return n_pairs_; }
    // Writes n_weights + n_pairs values: the weights, with weights of products rounded to bf16, and then pairs of
    // rounded weights.
    void round(const float* weights, float* to) const;

    uint32_t n_weights() const override { return n_weights_; }
    std::vector<WeightRange> parts() const override;
    // The tensors of torch.nn.Conv1d: (units, inputs, taps), taps from old to new.
    std::vector<Tensor> tensors() const override;
    void pack(const std::vector<const float*>& tensors, float* to) const override { pack_as(tensors, to); }
    void pack(const std::vector<const double*>& tensors, double* to) const override { pack_as(tensors, to); }
    void unpack(const float* from, const std::vector<float*>& to) const override { unpack_as(from, to); }
    void unpack(const double* from, const std::vector<double*>& to) const override { unpack_as(from, to); }
    void clear_masked(float* weights) const override { clear_masked_in(weights); }
    void clear_masked(double* weights) const override { clear_masked_in(weights); }

  private:
    // The block of a tensor among the weights: lines (taps, inputs) of `stride` weights, with the first `split` units
    // at the line's beginning and the other units from `second` on.
    struct Block {
        std::string name;
        int units, inputs, taps;  // a bias has no inputs; a tensor without taps has no axis for taps
        uint32_t offset;
        int stride, split, second;
        int64_t pairs = -1;  // offset among the pairs; -1 for tensors that streams do not read in every step

        int64_t size() const { return int64_t(units) * (inputs > 0 ? inputs : 1) * (taps > 0 ? taps : 1); }
        int lines() const { return (inputs > 0 ? inputs : 1) * (taps > 0 ? taps : 1); }
    };

    void lay_out();
    uint32_t add(Block block);
    uint32_t add_pairs();
    template <class F>
    void for_weights(const Block& block, F&& visit) const;
    template <class T>
    void pack_as(const std::vector<const T*>& tensors, T* weights) const;
    template <class T>
    void unpack_as(const T* weights, const std::vector<T*>& tensors) const;
    template <class T>
    void clear_masked_in(T* weights) const;

    CausalOptions options_;
    std::vector<CausalLayer> layers_;
    CausalNetwork network_{};
    std::vector<Block> blocks_;
    uint32_t n_weights_ = 0, n_pairs_ = 0;
};

}  // namespace headrace
