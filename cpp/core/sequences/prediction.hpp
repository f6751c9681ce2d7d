// Linear prediction of the values of a step from earlier steps, independently for each column:
//   residual e[t] = x[t] - sum over lags i of a[i] x[t - i], or x from residuals.
#pragma once

#include <cstdint>

namespace headrace {

// Arguments of a call, with contiguous arrays (rows, steps, columns). Terms of a sum are added one after another, from
// the oldest step on, so that bits do not depend on other rows or on the division of a sequence into calls.
template <class T>
struct PredictionCall {
    const T* coefficients;  // (columns, order), from the oldest step on
    int64_t rows, steps, columns, order;
    const T* past;  // x before the steps (rows, order, columns); null: zeros
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
