// Base densities whose columns have different kinds, or are of Student's t, and mixtures of normal densities.
#pragma once

#include "bases.hpp"

namespace headrace {
namespace detail {

// log Gamma((df + 1) / 2) - log Gamma(df / 2) - log(df pi) / 2. With x = df / 2, this is r(x) - log(2 pi) / 2, where r
// has an asymptotic series in 1 / x; smaller x are shifted by Gamma(x + 1) = x Gamma(x), so that no terms cancel.
inline double student_constant(double df) {
    const double x = 0.5 * df;
    double shifted = x, product = 1.0;
    while (shifted < 16.0) {
        product *= shifted / (shifted + 0.5);
        shifted += 1.0;
    }
    const double t = 1.0 / shifted, square = t * t;
    double series = 0.0;
    for (const double a :
         {-5461.0 / 425984, 691.0 / 180224, -31.0 / 18432, 17.0 / 14336, -1.0 / 640, 1.0 / 192, -1.0 / 8})
        series = series * square + a;
    return series * t + std::log(product) + 0.5 * std::log(shifted / x) - half_log_two_pi;
}

// log(1 + a^2) without overflow.
inline double log_of_one_and_square(double a) {
    return a > 1e100 ? 2.0 * std::log(a) : std::log1p(a * a);
}

// The bases Uniform, Independent and StudentT, with independent columns that are neither shifted nor scaled.
template <class T>
class ColumnsBase : public Base<T> {
  public:
    explicit ColumnsBase(const BaseDescription& d) : Base<T>(d), kinds_(d.columns), df_(d.df) {
        for (const double df : df_) {
            constant_.push_back(student_constant(df));
            inverse_root_.push_back(1.0 / std::sqrt(df));
        }
    }

    double log_prob(const double* z) const override {
        double sum = 0.0;
        for (std::size_t c = 0; c < this->columns(); ++c) {
            switch (kinds_[c]) {
                case ColumnKind::normal: sum += normal_log_density(z[c]); break;
                case ColumnKind::logistic: sum += logistic_log_density(z[c]); break;
                case ColumnKind::uniform:  // the bound of the support is compared in T
                    sum += std::abs(narrowed<T>(z[c])) > T(1) ? -std::numeric_limits<double>::infinity()
                                                              : z[c] * 0.0 - log_two;
                    break;
                case ColumnKind::student: {  // values that overflow T have log density -infinity
                    const T a = narrowed<T>(std::abs(z[c]) * inverse_root_[c]);
                    sum += constant_[c] - log_of_one_and_square(static_cast<double>(a)) * 0.5 * (df_[c] + 1.0);
                }
            }
        }
        return sum;
    }

    void draw(std::uint64_t seed, std::uint64_t row, T* z) const override {
        for (std::size_t c = 0; c < this->columns(); c += 4) {
            const std::uint32_t block = static_cast<std::uint32_t>(c / 4);
            const Drawn<T> first = drawn<T>(seed, row, block), own = drawn_beside<T>(seed, row, block),
                           more = drawn_beside<T>(seed, row, block, true);
            for (std::size_t k = 0; k < 4 && c + k < this->columns(); ++k) {
                switch (kinds_[c + k]) {
                    case ColumnKind::normal: z[c + k] = first.normal(k); break;
                    case ColumnKind::logistic: z[c + k] = own.logistic(k); break;
                    case ColumnKind::uniform: z[c + k] = own.number(k) * T(2) - T(1); break;
                    case ColumnKind::student: z[c + k] = student(own.number(k), more.number(k), c + k);
                }
            }
        }
    }

  private:
    // A value of Student's t, by the analogue of Box and Muller's method (Bailey 1994): sqrt(df (u^(-2 / df) - 1)) cos
    // 2 pi v.
    T student(T u, T v, std::size_t c) const {
        const T root = narrowed<T>(inverse_root_[c]), e = std::log(u) * (T(-2) * root * root);
        T cosine, sine;
        cos_sin_of_turns(v, cosine, sine);
        return std::exp(e * T(0.5)) * std::sqrt(-std::expm1(-e)) * cosine / root;
    }

    std::vector<ColumnKind> kinds_;
    std::vector<double> df_, constant_, inverse_root_;  // parameters of Student's t
};

// The base NormalMixture: each row is from one component, whose coordinates are independent.
template <class T>
class MixtureBase : public Base<T> {
  public:
    explicit MixtureBase(const BaseDescription& d) : Base<T>(d), loc_(d.loc) { prepare(d.logits, d.log_scale); }

    double log_prob(const double* z) const override {
        const std::size_t d = this->columns();
        double top = -std::numeric_limits<double>::infinity(), sum = 0.0;
        for (std::size_t k = 0; k < weight_.size(); ++k) {
            if (!(weight_[k] > T(0))) continue;
            double squares = 0.0;
            for (std::size_t c = 0; c < d; ++c) {
                const double u = (z[c] - loc_[k * d + c]) * inverse_scale_[k * d + c];
                squares += u * u;
            }
            const double term = constant_[k] - 0.5 * squares;
            if (term > top) {
                sum = sum * std::exp(top - term) + 1.0;
                top = term;
            } else if (std::isfinite(top)) {  // otherwise this component is as unlikely as all before
                sum += std::exp(term - top);
            }
        }
        return std::isfinite(top) ? top + std::log(sum) : top;
    }

    void draw(std::uint64_t seed, std::uint64_t row, T* z) const override {
        const std::size_t d = this->columns();
        const T u = drawn_beside<T>(seed, row, 0).number(0);
        std::size_t own = 0;  // the last component for which the weights before it have a sum below u
        T before = T(0);
        for (std::size_t k = 0; k < weight_.size(); ++k) {
            if (!(weight_[k] > T(0))) continue;
            if (u > before) own = k;
            before += weight_[k];
        }
        for (std::size_t c = 0; c < d; c += 4) {
            const Drawn<T> numbers = drawn<T>(seed, row, static_cast<std::uint32_t>(c / 4));
            for (std::size_t i = 0; i < 4 && c + i < d; ++i) {
                const std::size_t at = own * d + c + i;
                z[c + i] = narrowed<T>(static_cast<double>(numbers.normal(i)) / inverse_scale_[at] + loc_[at]);
            }
        }
    }

  private:
    void prepare(const std::vector<double>& logits, const std::vector<double>& log_scale) {
        const std::size_t d = this->columns();
        const double most = *std::max_element(logits.begin(), logits.end());
        double sum = 0.0;
        for (const double logit : logits) sum += std::exp(logit - most);
        for (std::size_t k = 0; k < logits.size(); ++k) {
            const double log_weight = logits[k] - most - std::log(sum);
            double constant = log_weight - half_log_two_pi * static_cast<double>(d);
            for (std::size_t c = 0; c < d; ++c) constant -= log_scale[k * d + c];
            constant_.push_back(constant);
            weight_.push_back(narrowed<T>(std::exp(log_weight)));
        }
        for (const double x : log_scale) inverse_scale_.push_back(std::exp(-x));
    }

    std::vector<T> weight_;
    std::vector<double> constant_, loc_, inverse_scale_;
};

template <class T>
std::unique_ptr<Base<T>> base_of(const BaseDescription& d) {
    switch (d.kind) {
        case BaseKind::standard_normal:
        case BaseKind::logistic:
        case BaseKind::normal: return std::make_unique<StandardBase<T>>(d);
        case BaseKind::mixture: return std::make_unique<MixtureBase<T>>(d);
        default: return std::make_unique<ColumnsBase<T>>(d);
    }
}

}  // namespace detail
}  // namespace headrace
