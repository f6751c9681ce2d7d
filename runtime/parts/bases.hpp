// Base densities whose coordinates are standard values, shifted and scaled; and the interface of every base.
#pragma once

#include <memory>

#include "random.hpp"
#include "stored.hpp"

namespace headrace {
namespace detail {

constexpr double half_log_two_pi = 0.91893853320467274178, log_two = 0.69314718055994530942;

template <class T>
class Base {
  public:
    explicit Base(Stored& stored) : features_(stored.size("features", 1)) {}
    virtual ~Base() = default;

    int features() const { return features_; }

    virtual double log_prob(const double* z) const = 0;

    // A row of the endless sample of a seed.
    virtual void draw(std::uint64_t seed, std::uint64_t row, T* z) const = 0;

  protected:
    std::size_t columns() const { return static_cast<std::size_t>(features_); }

  private:
    int features_;
};

inline double logistic_log_density(double x) {
    return -std::abs(x) - 2.0 * std::log1p(std::exp(-std::abs(x)));
}
inline double normal_log_density(double x) {
    return -0.5 * x * x - half_log_two_pi;
}

// StandardNormal, Logistic and Normal.
template <class T>
class StandardBase : public Base<T> {
  public:
    StandardBase(Stored& stored, bool is_logistic, bool has_scale) : Base<T>(stored), is_logistic_(is_logistic) {
        const std::size_t n = this->columns();
        if (has_scale) {
            is_trained_ = stored.truth("trainable");
            if (is_trained_) {
                for (const T x : stored.template array<T>("loc", {n})) loc_.push_back(static_cast<double>(x));
                for (const T x : stored.template array<T>("log_scale", {n}))
                    log_scale_.push_back(static_cast<double>(x));
            } else {
                loc_ = stored.numbers("loc", n);
                for (const double x : stored.numbers("scale", n, true)) log_scale_.push_back(std::log(x));
            }
        }
    }

    double log_prob(const double* z) const override {
        double sum = 0.0;
        for (std::size_t c = 0; c < this->columns(); ++c) {
            double x = z[c];
            if (!loc_.empty()) {
                x = (x - loc_[c]) * std::exp(-log_scale_[c]);
                sum -= log_scale_[c];
                // A trained base is a step like others: values that overflow there are NaN.
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
    bool is_logistic_ = false, is_trained_ = false;
    std::vector<double> loc_, log_scale_;
};

}  // namespace detail
}  // namespace headrace
