// Gradients of the direction of a causal transform in which all positions are made at once: from those by what it
// gives to those by what it is given.
#pragma once

#include "transform.hpp"

namespace headrace {

// Gradients of one number; missing arrays are null. Those of results are contiguous.
template <class T>
struct SequenceGradient {
    // By the results of the call: by values (rows, steps, inputs), by log-determinants of steps (rows, steps), and by
    // the network's outputs (rows, steps, outputs).
    SequenceView value, log_det, raw;
    // By log-densities of steps (rows, steps) under a standard base, of the direction to latent values.
    SequenceView log_prob;
    Base base = Base::none;

    T* given = nullptr;       // (rows, steps, inputs)
    T* weights = nullptr;     // (weights)
    T* context = nullptr;     // (rows, context)
    T* covariates = nullptr;  // (rows, frames, covariates)
};

// The call's values, log-determinants and outputs come with the gradients where it asks for them; it has no state.
template <class T>
void sequence_vjp(const CausalTransform<T>& transform, const SequenceCall<T>& call,
                  const SequenceGradient<T>& gradient);

extern template void sequence_vjp(const CausalTransform<float>&, const SequenceCall<float>&,
                                  const SequenceGradient<float>&);
extern template void sequence_vjp(const CausalTransform<double>&, const SequenceCall<double>&,
                                  const SequenceGradient<double>&);

}  // namespace headrace
