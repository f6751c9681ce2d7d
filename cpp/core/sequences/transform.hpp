// A transform of sequences: a causal network reads one side, data or latent values, and outputs, for each position, the
// parameters of a map from one side to the other. From the side that the network reads, all positions are computed at
// once; from the other side, one position after another.
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

// The arguments of a call. Missing arrays are null, and arrays of results are contiguous.
template <class T>
struct SequenceCall {
    const T* weights;
    const uint32_t* pairs = nullptr;  // the weights as bf16 pairs, for a flow whose weights are rounded
    int64_t rows, steps;
    SequenceView given;                   // input, (rows, steps, values)
    const T* context = nullptr;           // (rows, context), or (1, context)
    bool one_context_row = false;         // whether the context has one row
    const T* covariates = nullptr;        // (rows, frames, covariates), or (1, frames, covariates)
    bool one_covariate_row = false;       // whether the covariates have one row
    int64_t first_frame = 0, frames = 0;  // frame f belongs to steps [f hop, (f + 1) hop) of a stream
    CausalStreams<T>* state = nullptr;    // state before the steps, which the call advances, or null
    T* value = nullptr;                   // results, (rows, steps, values)
    T* log_det = nullptr;                 // log-determinants of the call's direction, (rows, steps)
    T* raw = nullptr;                     // outputs of the network, (rows, steps, outputs)
    typename Program<T>::Weights inner;   // weights of the inner flow
};

template <class T>
class CausalTransform {
  public:
    // A transform whose network outputs the parameters of a map of each value, or the context of an inner flow over all
    // values of a step. Without a map or an inner flow, the outputs are the only result.
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

    // Runs the transform from the side that the network reads. Without a map or an inner flow, `raw` is the result.
    // Bits of a position depend only on the inputs in its field, not on other rows, on the steps of the call, on
    // states, or on threads.
    void parallel(const SequenceCall<T>& call) const;
    // Runs the transform to the side that the network reads.
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
