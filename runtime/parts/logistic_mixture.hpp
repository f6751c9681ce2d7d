// The logit of the distribution function F of a mixture of logistic distributions, x to z, and its inverse. With u = (x
// - mean) / scale and weights w: z = log S - log T, where S is the sum of w sigmoid(u) and T the sum of w sigmoid(-u),
// and dz/dx = N (1 / S + 1 / T), where N is the sum of w sigmoid(u) sigmoid(-u) / scale. Sums are computed in double,
// and as logarithms, because terms underflow far outside of all components and between them.
#pragma once

#include <algorithm>

#include "numbers.hpp"

namespace headrace {
namespace detail {

class LogisticMixture {
  public:
    // A mixture with raw weights, means and scales p.
    template <class T>
    LogisticMixture(const T* p, int components, double slope) : n_(static_cast<std::size_t>(components)) {
        const double clamp = 1.0 / std::log(1.0 / slope);
        for (std::size_t k = 0; k < n_; ++k) {
            const double raw = static_cast<double>(p[2 * n_ + k]);
            weights_.push_back(static_cast<double>(p[k]));
            means_.push_back(static_cast<double>(p[n_ + k]));
            log_scales_.push_back(raw / (std::abs(raw) * clamp + 1.0));
            poison_ += (weights_[k] - weights_[k]) + (means_[k] - means_[k]) + (raw - raw);
        }
    }

    double apply(bool inverse, double value, double& log_det) const {
        const double poison = poison_ + (value - value);
        if (std::isnan(poison)) {
            log_det += poison;
            return poison;
        }
        const double x = inverse ? value : root(value);
        const Logit at = logit(x);
        log_det += inverse ? at.log_slope : -at.log_slope;
        return inverse ? at.value : x;
    }

  private:
    struct Logit {
        double value, log_slope;
    };

    static double log_sum(const std::vector<double>& terms) {
        const double top = *std::max_element(terms.begin(), terms.end());
        double sum = 0.0;
        for (const double term : terms) sum += std::exp(term - top);
        return top + std::log(sum);
    }

    Logit logit(double x) const {
        std::vector<double> below(n_), above(n_), here(n_);
        for (std::size_t k = 0; k < n_; ++k) {
            const double u = (x - means_[k]) * std::exp(-log_scales_[k]);
            const double left = -softplus(-u), right = -softplus(u);  // logarithms of sigmoid(u) and sigmoid(-u)
            below[k] = weights_[k] + left;
            above[k] = weights_[k] + right;
            here[k] = weights_[k] + left + right - log_scales_[k];
        }
        const double s = log_sum(below), t = log_sum(above);
        return {s - t, log_sum(here) + log_sum({-s, -t})};
    }

    // The root, by Newton's method between the quantiles of the components, with a bisection where a step leaves the
    // bracket or is more than half of the step before.
    double root(double z) const {
        double low = std::numeric_limits<double>::infinity(), high = -low;
        for (std::size_t k = 0; k < n_; ++k) {
            const double x = means_[k] + std::exp(log_scales_[k]) * z;
            low = std::min(low, x);
            high = std::max(high, x);
        }
        const double epsilon = 4.0 * std::numeric_limits<double>::epsilon();
        double x = 0.5 * low + 0.5 * high, last = high - low;
        for (int i = 0; i < 200 && last > 0.0; ++i) {
            const Logit at = logit(x);
            const double difference = at.value - z, step = difference * std::exp(-at.log_slope);
            (difference < 0.0 ? low : high) = x;
            const bool is_found =
                std::abs(difference) <= epsilon * (1.0 + std::abs(z)) || std::abs(step) <= epsilon * std::abs(x);
            double next = x - step;
            const bool is_newton = next >= low && next <= high && (is_found || 2.0 * std::abs(step) <= last);
            if (!is_newton) next = is_found ? x : 0.5 * low + 0.5 * high;
            last = std::abs(next - x);
            x = next;
            if (is_found) break;
        }
        return x;
    }

    std::size_t n_;
    std::vector<double> weights_, means_, log_scales_;
    double poison_ = 0.0;
};

}  // namespace detail
}  // namespace headrace
