// Gradients of a causal transform: from those by the results of a direction to those by its arguments.
#pragma once

#include "transform.hpp"

namespace headrace {

// Gradients of a scalar; missing arrays are null. Arrays of results are contiguous.
template <class T>
struct SequenceGradient {
    // Gradients by the results of the call: by values (rows, steps, values), by log-determinants (rows, steps), and
    // by the network's outputs (rows, steps, outputs).
    SequenceView value, log_det, raw;
    // Gradients by log-densities of steps (rows, steps) under a standard base, of the direction to latent values.
    SequenceView log_prob;
    Base base = Base::none;

    // True for the direction that computes one position after another. Then `given` are
    // the results of the call, which the network has read, and no others are computed.
    bool is_sequential = false;
    // Derivatives of its values by the outputs, where there is no map: (rows, steps, values * outputs). Then `raw` are
    // gradients by the outputs that do not go through the values, and `given` becomes the gradient by the values, which
    // later steps have read.
    SequenceView slopes;

    T* given = nullptr;       // (rows, steps, values)
    T* weights = nullptr;     // (weights)
    T* context = nullptr;     // (rows, context)
    T* covariates = nullptr;  // (rows, frames, covariates)
};

// Computes the call's values, log-determinants and outputs too where it has arrays for them; it has no state. All
// gradients are of one direction: that of all steps at once, unless is_sequential.
template <class T>
void sequence_vjp(const CausalTransform<T>& transform, const SequenceCall<T>& call,
                  const SequenceGradient<T>& gradient);

extern template void sequence_vjp(const CausalTransform<float>&, const SequenceCall<float>&,
                                  const SequenceGradient<float>&);
extern template void sequence_vjp(const CausalTransform<double>&, const SequenceCall<double>&,
                                  const SequenceGradient<double>&);

}  // namespace headrace
