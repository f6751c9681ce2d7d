// The backward pass of a causal transform, from gradients by the results of a direction to gradients by its arguments.
#pragma once

#include "transform.hpp"

namespace headrace {

// Gradients of a scalar, where null stands for a missing array. Arrays of results are contiguous.
template <class T>
struct SequenceGradient {
    // Gradients by the results of the call: by values (rows, steps, values), by log-determinants (rows, steps), and
    // by the network's outputs (rows, steps, outputs).
    SequenceView value, log_det, raw;
    // Gradients by log-densities of steps (rows, steps) under a standard base, for the direction to latent values.
    SequenceView log_prob;
    Base base = Base::none;

    // Whether the direction computes one position after another. With is_sequential, the call's `given` are the
    // results, which the network has read, and the call computes no further results.
    bool is_sequential = false;
    // Derivatives of values by outputs, where there is no map: (rows, steps, values * outputs). With slopes, `raw` are
    // gradients by outputs without the dependence through values, and `given` becomes the gradient by values, which
    // later steps have read.
    SequenceView slopes;

    T* given = nullptr;       // gradient by given values, (rows, steps, values)
    T* weights = nullptr;     // gradient by all weights
    T* context = nullptr;     // gradient by the context, (rows, context)
    T* covariates = nullptr;  // gradient by covariates, (rows, frames, covariates)
};

// Computes the gradients of a call, and also values, log-determinants and outputs where the call has arrays for these.
// The call must not have a state. Gradients are of the direction that computes all steps at once, or with is_sequential
// of the sequential direction.
template <class T>
void sequence_vjp(const CausalTransform<T>& transform, const SequenceCall<T>& call,
                  const SequenceGradient<T>& gradient);

extern template void sequence_vjp(const CausalTransform<float>&, const SequenceCall<float>&,
                                  const SequenceGradient<float>&);
extern template void sequence_vjp(const CausalTransform<double>&, const SequenceCall<double>&,
                                  const SequenceGradient<double>&);

}  // namespace headrace
