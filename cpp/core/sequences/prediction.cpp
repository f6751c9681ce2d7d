#include "prediction.hpp"

#include <algorithm>
#include <vector>

#include "../../math/lane.hpp"
#include "../threads.hpp"

namespace headrace {
namespace {

constexpr int64_t block = 256;  // number of steps whose sums are computed together

// One column of a row: x of the past, then x or residuals of the steps.
template <class T>
std::vector<T> line_of(const PredictionCall<T>& call, int64_t row, int64_t column) {
    std::vector<T> line(size_t(call.order + call.steps));
    for (int64_t i = 0; call.past && i < call.order; ++i)
        line[size_t(i)] = call.past[(row * call.order + i) * call.columns + column];
    for (int64_t t = 0; t < call.steps; ++t)
        line[size_t(call.order + t)] = call.given[(row * call.steps + t) * call.columns + column];
    return line;
}

template <class T, class F>
void for_columns(const PredictionCall<T>& call, F&& f) {
    parallel_for(call.rows * call.columns, [&](int64_t task) {
        const int64_t row = task / call.columns, column = task % call.columns;
        std::vector<T> line = line_of(call, row, column);
        f(line.data(), call.coefficients + column * call.order, call.result + row * call.steps * call.columns + column);
    });
}

}  // namespace

template <class T>
void residuals_of(const PredictionCall<T>& call) {
    for_columns(call, [&](const T* line, const T* a, T* result) {
        T sums[block];
        for (int64_t begin = 0; begin < call.steps; begin += block) {
            const int64_t n = std::min(block, call.steps - begin);
            std::fill_n(sums, n, T(0));
            for (int64_t i = 0; i < call.order; ++i)
                for (int64_t t = 0; t < n; ++t) sums[t] = fma(a[i], line[begin + t + i], sums[t]);
            for (int64_t t = 0; t < n; ++t) result[(begin + t) * call.columns] = line[call.order + begin + t] - sums[t];
        }
    });
}

template <class T>
void signals_of(const PredictionCall<T>& call) {
    for_columns(call, [&](T* line, const T* a, T* result) {
        for (int64_t t = 0; t < call.steps; ++t) {
            T sum = 0;
            for (int64_t i = 0; i < call.order; ++i) sum = fma(a[i], line[t + i], sum);
            result[t * call.columns] = line[call.order + t] += sum;
        }
    });
}

template void residuals_of(const PredictionCall<float>&);
template void residuals_of(const PredictionCall<double>&);
template void signals_of(const PredictionCall<float>&);
template void signals_of(const PredictionCall<double>&);

}  // namespace headrace
