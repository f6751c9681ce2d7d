// The filter of a linear prediction from its reflection coefficients (the step-up recursion; Markel, Gray 1976), and
// the backward pass of this recursion.
#pragma once

#include "links.hpp"

namespace headrace {

// Filter coefficients (columns, order) from reflection coefficients (columns, order), with the newest step first.
std::vector<double> stepped_up(const std::vector<double>& reflections, int64_t columns);

// The gradient by theta, (columns, order), where tanh(theta) are the reflection coefficients, from gradients by the
// results of a call; by_log_det, the gradients by log-derivatives of steps, is null for zero. Sums have the same bits
// as sums by NumPy.
template <class T>
std::vector<double> gradient_of(const PredictionFilter<T>& filter, const LinkCall<T>& call,
                                const PredictionTerms<T>& terms, const T* by_log_det);

extern template std::vector<double> gradient_of(const PredictionFilter<float>&, const LinkCall<float>&,
                                                const PredictionTerms<float>&, const float*);
extern template std::vector<double> gradient_of(const PredictionFilter<double>&, const LinkCall<double>&,
                                                const PredictionTerms<double>&, const double*);

}  // namespace headrace
