// The filter of a linear prediction from its reflection coefficients (the step-up recursion; Markel, Gray 1976), and
// the gradient back through it.
#pragma once

#include "links.hpp"

namespace headrace {

// Coefficients (columns, order) of reflection coefficients (columns, order), of the step before first.
std::vector<double> stepped_up(const std::vector<double>& reflections, int64_t columns);

// The gradient by values theta, where the reflection coefficients are tanh(theta), (columns, order), of a call with
// these cotangents by its results; by_log_det, the cotangents of log-derivatives of steps, is null for zero. Sums are
// those of NumPy.
template <class T>
std::vector<double> gradient_of(const PredictionFilter<T>& filter, const LinkCall<T>& call,
                                const PredictionTerms<T>& terms, const T* by_log_det);

extern template std::vector<double> gradient_of(const PredictionFilter<float>&, const LinkCall<float>&,
                                                const PredictionTerms<float>&, const float*);
extern template std::vector<double> gradient_of(const PredictionFilter<double>&, const LinkCall<double>&,
                                                const PredictionTerms<double>&, const double*);

}  // namespace headrace
