// The filter of linear prediction from its parameters (docs/conventions.md, Sequences).
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace headrace {
namespace detail {

// A linear prediction x[t] = sum over i of a[i] x[t - i] + z[t] / gain, independently for each column, in double.
struct Predictor {
    std::vector<double> coefficients;  // (columns, order), from the oldest step on
    std::vector<double> log_gain;      // logarithm of the gain of each column

    // A prediction from parameters (columns, order), whose hyperbolic tangents are reflection coefficients; the step-up
    // recursion converts these to a (Markel, Gray 1976).
    template <class T>
    Predictor(const std::vector<T>& parameters, std::size_t columns, std::size_t order) {
        for (std::size_t c = 0; c < columns; ++c) {
            std::vector<double> a, before;
            double sum = 0.0;
            for (std::size_t m = 0; m < order; ++m) {
                const double theta = static_cast<double>(parameters[c * order + m]), k = std::tanh(theta);
                before = a;
                for (std::size_t i = 0; i < m; ++i) {
                    const double part = k * before[m - 1 - i];
                    a[i] = before[i] - part;
                }
                a.push_back(k);
                sum += log_cosh(theta);
            }
            coefficients.insert(coefficients.end(), a.rbegin(), a.rend());
            log_gain.push_back(sum);
        }
    }

  private:
    static double log_cosh(double x) {
        return (std::abs(x) + std::log1p(std::exp(-2.0 * std::abs(x)))) - 0.69314718055994530942;
    }
};

}  // namespace detail
}  // namespace headrace
