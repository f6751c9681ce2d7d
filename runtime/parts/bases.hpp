// Base densities: independent coordinates, a standard density under each of them.
#pragma once

#include "random.hpp"
#include "stored.hpp"

namespace headrace {
namespace detail {

template <class T>
class Base {
  public:
    explicit Base(Stored& stored) {
        const int kind = stored.choice("kind", {"StandardNormal", "Logistic", "Normal"});
        is_logistic_ = kind == 1;
        features_ = stored.size("features", 1);
        const std::size_t n = static_cast<std::size_t>(features_);
        if (kind == 2) {
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
        stored.close();
    }

    int features() const { return features_; }

    double log_prob(const double* z) const {
        double sum = 0.0;
        for (std::size_t c = 0; c < static_cast<std::size_t>(features_); ++c) {
            double x = z[c];
            if (!loc_.empty()) {
                x = (x - loc_[c]) * std::exp(-log_scale_[c]);
                sum -= log_scale_[c];
                // A trained base is a step as others: what overflows there is NaN.
                if (is_trained_ && !std::isfinite(narrowed<T>(x))) return std::numeric_limits<double>::quiet_NaN();
            }
            if (is_logistic_) {
                sum += -std::abs(x) - 2.0 * std::log1p(std::exp(-std::abs(x)));
            } else {
                sum += -0.5 * x * x - 0.91893853320467274178;
            }
        }
        return sum;
    }

    // A row of the base: standard numbers, shifted and scaled.
    void draw(std::uint64_t seed, std::uint64_t row, T* z) const {
        for (std::size_t c = 0; c < static_cast<std::size_t>(features_); c += 4) {
            const auto columns = drawn<T>(is_logistic_, seed, row, static_cast<std::uint32_t>(c / 4));
            for (std::size_t k = 0; k < 4 && c + k < static_cast<std::size_t>(features_); ++k) {
                T& x = z[c + k] = columns[k];
                if (!loc_.empty()) x = narrowed<T>(loc_[c + k] + std::exp(log_scale_[c + k]) * static_cast<double>(x));
            }
        }
    }

  private:
    bool is_logistic_ = false, is_trained_ = false;
    int features_ = 0;
    std::vector<double> loc_, log_scale_;
};

}  // namespace detail
}  // namespace headrace
