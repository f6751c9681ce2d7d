#include "reflections.hpp"

#include <algorithm>

#include "ragged.hpp"

namespace headrace {
namespace {

constexpr int64_t cast_at_once = 8192;  // number of values that NumPy converts and sums at a time

// The filter coefficients of a column after 0, 1, ..., order reflections.
std::vector<std::vector<double>> steps_of(const double* reflections, int64_t order) {
    std::vector<std::vector<double>> all(1);
    for (int64_t m = 0; m < order; ++m) {
        const std::vector<double>& before = all.back();
        std::vector<double> next(size_t(m + 1), reflections[m]);
        for (int64_t j = 0; j < m; ++j)
            next[size_t(j)] = before[size_t(j)] - reflections[m] * before[size_t(m - 1 - j)];
        all.push_back(std::move(next));
    }
    return all;
}

// Sums over n rows of products (n, columns): pairwise for a single column, otherwise row after row.
std::vector<double> sums_of(const std::vector<double>& products, int64_t columns) {
    const auto n = int64_t(products.size());
    if (columns == 1) return {pairwise_sum(products.data(), n)};
    std::vector<double> sums(size_t(columns), 0.0);
    for (int64_t i = 0; i < n; ++i) sums[size_t(i % columns)] += products[size_t(i)];
    return sums;
}

template <class T>
double wide_sum(const T* values, int64_t n) {
    if constexpr (std::is_same_v<T, double>) return pairwise_sum(values, n);
    double sum = 0.0;
    for (int64_t begin = 0; begin < n; begin += cast_at_once) {
        const std::vector<double> some(values + begin, values + std::min(n, begin + cast_at_once));
        sum += pairwise_sum(some.data(), int64_t(some.size()));
    }
    return sum;
}

}  // namespace

std::vector<double> stepped_up(const std::vector<double>& reflections, int64_t columns) {
    const int64_t order = int64_t(reflections.size()) / columns;
    std::vector<double> all;
    for (int64_t c = 0; c < columns; ++c) {
        const std::vector<double> last = steps_of(reflections.data() + c * order, order).back();
        all.insert(all.end(), last.begin(), last.end());
    }
    return all;
}

template <class T>
std::vector<double> gradient_of(const PredictionFilter<T>& filter, const LinkCall<T>& call,
                                const PredictionTerms<T>& terms, const T* by_log_det) {
    const int64_t columns = call.features, n = call.values(), line = call.steps * columns;
    const int64_t order = int64_t(filter.reflections.size()) / columns;
    std::vector<double> seen, z, products;
    const double* const x = values_in(terms.x, n, seen);
    const double* const results = values_in(terms.z, n, z);
    const double sign = call.inverse ? 1.0 : -1.0;
    const double of_log_det = by_log_det ? sign * wide_sum(by_log_det, call.rows * call.steps) : 0.0;
    std::vector<double> by_coefficients(filter.reflections.size(), 0.0);
    for (int64_t lag = 1; lag <= std::min(order, call.steps - 1); ++lag) {
        products.clear();
        for (int64_t r = 0; r < call.rows; ++r)
            for (int64_t i = lag * columns; i < line; ++i)
                products.push_back(double(terms.by_residual[size_t(r * line + i)]) * x[r * line + i - lag * columns]);
        const std::vector<double> sums = sums_of(products, columns);
        for (int64_t c = 0; c < columns; ++c) by_coefficients[size_t(c * order + lag - 1)] = -sign * sums[size_t(c)];
    }
    products.clear();
    for (int64_t i = 0; i < n; ++i) {
        const double by = call.inverse
                              ? double(terms.by_value[size_t(i)])
                              : double(terms.by_residual[size_t(i)]) / double(filter.gain[size_t(i % columns)]);
        products.push_back(by * results[i]);
    }
    const std::vector<double> by_gain = sums_of(products, columns);
    std::vector<double> found(filter.reflections.size());
    for (int64_t c = 0; c < columns; ++c) {
        const double* const k = filter.reflections.data() + c * order;
        const auto steps = steps_of(k, order);
        std::vector<double> by(by_coefficients.begin() + c * order, by_coefficients.begin() + (c + 1) * order);
        const double by_log_gain = sign * by_gain[size_t(c)] + of_log_det;
        for (int64_t m = order - 1; m >= 0; --m) {
            std::vector<double> rest(by.begin(), by.begin() + m), along(size_t(m), 0.0);
            for (int64_t j = 0; j < m; ++j) along[size_t(j)] = rest[size_t(j)] * steps[size_t(m)][size_t(m - 1 - j)];
            const double by_k = by[size_t(m)] - pairwise_sum(along.data(), m);
            found[size_t(c * order + m)] = by_k * (1.0 - k[m] * k[m]) + by_log_gain * k[m];
            for (int64_t j = 0; j < m; ++j) by[size_t(j)] = rest[size_t(j)] - k[m] * rest[size_t(m - 1 - j)];
        }
    }
    return found;
}

template std::vector<double> gradient_of(const PredictionFilter<float>&, const LinkCall<float>&,
                                         const PredictionTerms<float>&, const float*);
template std::vector<double> gradient_of(const PredictionFilter<double>&, const LinkCall<double>&,
                                         const PredictionTerms<double>&, const double*);

}  // namespace headrace
