// A transform of sequences: a causal network reads one side, data or latent values, and outputs the parameters of a map
// of each position from one side to the other. From the side that the network reads, all positions are computed at
// once; from the other side, one after another.
#pragma once

#include <memory>
#include <vector>

#include "../maps.hpp"
#include "../program.hpp"
#include "../scratch.hpp"
#include "convolution.hpp"
#include "streams.hpp"
#include "view.hpp"

namespace headrace {

// The arguments of a call. Missing arrays are null; arrays of results are contiguous.
template <class T>
struct SequenceCall {
    const T* weights;
    const uint32_t* pairs = nullptr;  // the same weights in bf16, for a flow whose weights are rounded
    int64_t rows, steps;
    SequenceView given;                   // (rows, steps, values)
    const T* context = nullptr;           // (rows, context), or
    bool one_context_row = false;         // (1, context)
    const T* covariates = nullptr;        // (rows, frames, covariates), or
    bool one_covariate_row = false;       // (1, frames, covariates)
    int64_t first_frame = 0, frames = 0;  // frame f belongs to steps [f hop, (f + 1) hop) of a stream
    CausalStreams<T>* state = nullptr;    // state before the steps, advanced by them; null: the first step
    T* value = nullptr;                   // (rows, steps, values)
    T* log_det = nullptr;                 // (rows, steps): of the direction of the call
    T* raw = nullptr;                     // (rows, steps, outputs) of the network
    typename Program<T>::Weights inner;   // weights of the inner flow
};

template <class T>
class CausalTransform {
  public:
    // The network's outputs are parameters of a map of each input, or the context of an inner flow over all inputs,
    // with the same two sides; without either they are the only result.
    CausalTransform(std::shared_ptr<const CausalConvolution> network, std::shared_ptr<const TransformMap> map,
                    std::shared_ptr<const Program<T>> inner, bool reads_data, bool has_level = false);

    const CausalConvolution& network() const { return *network_; }
    std::shared_ptr<const CausalConvolution> network_of() const { return network_; }
    bool reads_data() const { return reads_data_; }
    const TransformMap* map() const { return map_.get(); }
    // Whether the last output for each value is its level (step_map.hpp).
    bool has_level() const { return has_level_; }
    const Program<T>* inner() const { return inner_.get(); }
    CausalStreams<T> streams(int64_t rows) const;

    // From the side that the network reads. Without a map or an inner flow, `raw` is the result. Bits of a position
    // depend only on the inputs of its field: not on the rows and steps of the call, states, or threads.
    void parallel(const SequenceCall<T>& call) const;
    // To the side that the network reads.
    void sequential(const SequenceCall<T>& call) const;

  private:
    class Work;
    void from_first_step(const SequenceCall<T>& call, bool in_parallel) const;
    SequenceCall<T> rows_of(const SequenceCall<T>& call, int64_t first, int64_t rows) const;

    std::shared_ptr<const CausalConvolution> network_;
    std::shared_ptr<const TransformMap> map_;
    std::shared_ptr<const Program<T>> inner_;
    bool reads_data_, has_level_;
};

extern template class CausalTransform<float>;
extern template class CausalTransform<double>;

}  // namespace headrace
