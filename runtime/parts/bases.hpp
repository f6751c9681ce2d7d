// The interface of every base density, and densities whose coordinates are standard values, shifted and scaled.
#pragma once

#include <memory>

#include "base_descriptions.hpp"
#include "random.hpp"

namespace headrace {
namespace detail {

constexpr double half_log_two_pi = 0.91893853320467274178, log_two = 0.69314718055994530942;

template <class T>
class Base {
  public:
    explicit Base(const BaseDescription& d) : features_(static_cast<std::size_t>(d.features)) {}
    virtual ~Base() = default;

    virtual double log_prob(const double* z) const = 0;

    // Draws a row of the endless sample of a seed.
    virtual void draw(std::uint64_t seed, std::uint64_t row, T* z) const = 0;

  protected:
    std::size_t columns() const { return features_; }

  private:
    std::size_t features_;
};

inline double logistic_log_density(double x) {
    return -std::abs(x) - 2.0 * std::log1p(std::exp(-std::abs(x)));
}
inline double normal_log_density(double x) {
    return -0.5 * x * x - half_log_two_pi;
}

// The bases StandardNormal, Logistic and Normal.
template <class T>
class StandardBase : public Base<T> {
  public:
    explicit StandardBase(const BaseDescription& d)
        : Base<T>(d),
          is_logistic_(d.kind == BaseKind::logistic),
          is_trained_(d.is_trained),
          loc_(d.loc),
          log_scale_(d.log_scale) {}

    double log_prob(const double* z) const override {
        double sum = 0.0;
        for (std::size_t c = 0; c < this->columns(); ++c) {
            double x = z[c];
            if (!loc_.empty()) {
                x = (x - loc_[c]) * std::exp(-log_scale_[c]);
                sum -= log_scale_[c];
                // A trained base is a step like others, in which values that overflow become NaN.
                if (is_trained_ && !std::isfinite(narrowed<T>(x))) return std::numeric_limits<double>::quiet_NaN();
            }
            sum += is_logistic_ ? logistic_log_density(x) : normal_log_density(x);
        }
        return sum;
    }

    void draw(std::uint64_t seed, std::uint64_t row, T* z) const override {
        for (std::size_t c = 0; c < this->columns(); c += 4) {
            const Drawn<T> numbers = drawn<T>(seed, row, static_cast<std::uint32_t>(c / 4));
            for (std::size_t k = 0; k < 4 && c + k < this->columns(); ++k) {
                T& x = z[c + k] = is_logistic_ ? numbers.logistic(k) : numbers.normal(k);
                if (!loc_.empty()) x = narrowed<T>(loc_[c + k] + std::exp(log_scale_[c + k]) * static_cast<double>(x));
            }
        }
    }

  private:
    bool is_logistic_, is_trained_;
    std::vector<double> loc_, log_scale_;
};

}  // namespace detail
}  // namespace headrace
