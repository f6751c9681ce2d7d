// Linear prediction of the values of a step from those before it, each column by itself:
//   residual e[t] = x[t] - sum over lags i of  a[i] x[t - i],  and back from residuals.
#pragma once

#include <cstdint>

namespace headrace {

// Arrays are contiguous: (rows, steps, columns). The sum is one chain, from the oldest step on, so that bits do not
// depend on the rows or the parts of a sequence.
template <class T>
struct PredictionCall {
    const T* coefficients;  // (columns, order), of the oldest step first
    int64_t rows, steps, columns, order;
    const T* past;  // x before the steps (rows, order, columns), or null: zero
    const T* given;
    T* result;
};

template <class T>
void residuals_of(const PredictionCall<T>& call);
template <class T>
void signals_of(const PredictionCall<T>& call);

extern template void residuals_of(const PredictionCall<float>&);
extern template void residuals_of(const PredictionCall<double>&);
extern template void signals_of(const PredictionCall<float>&);
extern template void signals_of(const PredictionCall<double>&);

}  // namespace headrace
