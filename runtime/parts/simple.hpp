// Transforms without a network: permutations, scales, products with a matrix, and independent maps of each coordinate.
#pragma once

#include "maps.hpp"
#include "transform.hpp"

namespace headrace {
namespace detail {

template <class T>
class Permutation : public Transform<T> {
  public:
    Permutation(const TransformDescription<T>& d, PermutationDescription own)
        : Transform<T>(d), order_(std::move(own.order)) {}
    void run(bool to_data, T* row, const T*, Scratch<T>& s, double&) const override {
        s.row.assign(row, row + order_.size());
        reorder(to_data, s.row.data(), row);
    }
    bool is_exact() const override { return true; }
    void run_exact(bool to_data, std::vector<double>& row, double&) const override {
        const std::vector<double> given = row;
        reorder(to_data, given.data(), row.data());
    }

  private:
    template <class U>
    void reorder(bool to_data, const U* from, U* to) const {
        for (std::size_t i = 0; i < order_.size(); ++i) {
            if (to_data) {
                to[i] = from[order_[i]];
            } else {
                to[order_[i]] = from[i];
            }
        }
    }
    std::vector<int> order_;
};

// Shifts and scales columns; the subtraction is in float64 for any T.
template <class T>
class Standardize : public Transform<T> {
  public:
    Standardize(const TransformDescription<T>& d, StandardizeDescription own)
        : Transform<T>(d), is_identity_(own.is_identity()), mean_(std::move(own.mean)), std_(std::move(own.std)) {
        for (const double scale : std_) log_det_ += std::log(scale);
    }
    bool is_identity() const { return is_identity_; }
    void run(bool to_data, T* row, const T*, Scratch<T>&, double& log_det) const override {
        for (std::size_t c = 0; c < mean_.size(); ++c)
            row[c] = narrowed<T>(scaled(to_data, static_cast<double>(row[c]), c));
        log_det += to_data ? log_det_ : -log_det_;
    }
    bool is_exact() const override { return true; }
    void run_exact(bool to_data, std::vector<double>& row, double& log_det) const override {
        for (std::size_t c = 0; c < mean_.size(); ++c) row[c] = scaled(to_data, row[c], c);
        log_det += to_data ? log_det_ : -log_det_;
    }

  private:
    double scaled(bool to_data, double value, std::size_t c) const {
        return to_data ? mean_[c] + std_[c] * value : (value - mean_[c]) / std_[c];
    }
    bool is_identity_;
    std::vector<double> mean_, std_;
    double log_det_ = 0.0;
};

// The rotation x = Q z, where Q is orthogonal and block diagonal.
template <class T>
class Rotation : public Transform<T> {
  public:
    Rotation(const TransformDescription<T>& d, RotationDescription own)
        : Transform<T>(d), sizes_(std::move(own.sizes)) {
        for (const double x : own.numbers) numbers_.push_back(narrowed<T>(x));
    }
    void run(bool to_data, T* row, const T*, Scratch<T>& s, double&) const override {
        s.row.assign(row, row + this->features_);
        multiply(to_data, s.row.data(), row);
    }

  private:
    // Multiplies by Q, or by its transpose.
    void multiply(bool to_data, const T* from, T* to) const {
        const T* block = numbers_.data();
        for (const int size : sizes_) {
            const std::size_t n = static_cast<std::size_t>(size);
            std::fill(to, to + n, T(0));
            for (std::size_t i = 0; i < n; ++i)
                for (std::size_t j = 0; j < n; ++j) {
                    if (to_data) {
                        to[i] += block[i * n + j] * from[j];
                    } else {
                        to[j] += block[i * n + j] * from[i];
                    }
                }
            from += n;
            to += n;
            block += n * n;
        }
    }

    std::vector<int> sizes_;
    std::vector<T> numbers_;
};

// The linear transform x[i] = signs[i] y[order[i]] + shift[i] with y = L E U z.
template <class T>
class Linear : public Transform<T> {
  public:
    Linear(const TransformDescription<T>& d, LinearDescription<T> own)
        : Transform<T>(d),
          order_(std::move(own.order)),
          signs_(std::move(own.signs)),
          upper_(std::move(own.upper)),
          lower_(std::move(own.lower)),
          log_diagonal_(std::move(own.log_diagonal)),
          shift_(std::move(own.shift)) {
        for (const T x : log_diagonal_) log_det_ += static_cast<double>(x);
    }
    void run(bool to_data, T* row, const T*, Scratch<T>& s, double& log_det) const override {
        const std::size_t n = order_.size();
        s.row.resize(n);
        T* const y = s.row.data();
        log_det += to_data ? log_det_ : -log_det_;
        if (to_data) {
            std::copy(row, row + n, y);
            for (std::size_t i = 0; i < n; ++i) {  // each value depends on later ones
                for (std::size_t j = i + 1; j < n; ++j) y[i] += upper_[i * n + j] * y[j];
                y[i] *= std::exp(log_diagonal_[i]);
            }
            for (std::size_t i = n; i-- > 0;)  // each value depends on earlier ones
                for (std::size_t j = 0; j < i; ++j) y[i] += lower_[i * n + j] * y[j];
            for (std::size_t i = 0; i < n; ++i) row[i] = T(signs_[i]) * y[order_[i]] + shift_[i];
            return;
        }
        for (std::size_t i = 0; i < n; ++i) y[order_[i]] = T(signs_[i]) * (row[i] - shift_[i]);
        for (std::size_t i = 0; i < n; ++i)
            for (std::size_t j = 0; j < i; ++j) y[i] -= lower_[i * n + j] * y[j];
        for (std::size_t i = n; i-- > 0;) {
            y[i] *= std::exp(-log_diagonal_[i]);
            for (std::size_t j = i + 1; j < n; ++j) y[i] -= upper_[i * n + j] * y[j];
        }
        std::copy(y, y + n, row);
    }

  private:
    std::vector<int> order_, signs_;
    std::vector<T> upper_, lower_, log_diagonal_, shift_;
    double log_det_ = 0.0;
};

template <class T>
class ActNorm : public Transform<T> {
  public:
    ActNorm(const TransformDescription<T>& d, ActNormDescription<T> own)
        : Transform<T>(d), shift_(std::move(own.shift)), log_scale_(std::move(own.log_scale)) {}
    void run(bool to_data, T* row, const T*, Scratch<T>&, double& log_det) const override {
        for (std::size_t c = 0; c < shift_.size(); ++c) {
            row[c] = to_data ? std::exp(log_scale_[c]) * row[c] + shift_[c]
                             : (row[c] - shift_[c]) * std::exp(-log_scale_[c]);
            log_det += static_cast<double>(to_data ? log_scale_[c] : -log_scale_[c]);
        }
    }

  private:
    std::vector<T> shift_, log_scale_;
};

template <class T>
class Elementwise : public Transform<T> {
  public:
    Elementwise(const TransformDescription<T>& d, ElementwiseDescription<T> own)
        : Transform<T>(d), map_(own.map), params_(std::move(own.params)) {}
    void run(bool to_data, T* row, const T*, Scratch<T>&, double& log_det) const override {
        const std::size_t n = static_cast<std::size_t>(this->features_);
        for (std::size_t c = 0; c < n; ++c)
            row[c] = map_.template move<T>(params_.data() + c * map_.n_params(), to_data, row[c], log_det);
    }

  private:
    Map map_;
    std::vector<T> params_;
};

// A fixed spline of each coordinate; data are first shifted and scaled to the spline's interval.
template <class T>
class Gaussianize : public Transform<T> {
  public:
    Gaussianize(const TransformDescription<T>& d, GaussianizeDescription own)
        : Transform<T>(d), map_(own.map), mean_(std::move(own.mean)), std_(std::move(own.std)) {
        for (const double x : own.params) params_.push_back(narrowed<T>(x));
        for (const double scale : std_) log_det_ += std::log(scale);
    }
    void run(bool to_data, T* row, const T*, Scratch<T>&, double& log_det) const override {
        for (std::size_t c = 0; c < mean_.size(); ++c) {
            const T* const p = params_.data() + c * map_.n_params();
            if (to_data) {
                const double inner = static_cast<double>(map_.template move<T>(p, true, row[c], log_det));
                row[c] = narrowed<T>(mean_[c] + std_[c] * inner);
            } else {
                const T inner = narrowed<T>((static_cast<double>(row[c]) - mean_[c]) / std_[c]);
                row[c] = map_.template move<T>(p, false, inner, log_det);
            }
        }
        log_det += to_data ? log_det_ : -log_det_;
    }

  private:
    Map map_;
    std::vector<T> params_;
    std::vector<double> mean_, std_;
    double log_det_ = 0.0;
};

// A transform of some columns, which leaves other columns unchanged.
template <class T>
class OnColumns : public Transform<T> {
  public:
    OnColumns(const TransformDescription<T>& d, std::vector<int> columns, TransformPtr<T> inner)
        : Transform<T>(d), columns_(std::move(columns)), inner_(std::move(inner)) {}
    void run(bool to_data, T* row, const T* context, Scratch<T>& s, double& log_det) const override {
        std::vector<T> own;
        own.swap(s.columns);  // the inner transform may need the buffer again
        own.resize(columns_.size());
        for (std::size_t i = 0; i < columns_.size(); ++i) own[i] = row[columns_[i]];
        inner_->run(to_data, own.data(), context, s, log_det);
        for (std::size_t i = 0; i < columns_.size(); ++i) row[columns_[i]] = own[i];
        own.swap(s.columns);
    }

  private:
    std::vector<int> columns_;
    TransformPtr<T> inner_;
};

// A transform whose directions are exchanged.
template <class T>
class Inverse : public Transform<T> {
  public:
    Inverse(const TransformDescription<T>& d, TransformPtr<T> inner) : Transform<T>(d), inner_(std::move(inner)) {}
    void run(bool to_data, T* row, const T* context, Scratch<T>& s, double& log_det) const override {
        inner_->run(!to_data, row, context, s, log_det);
    }
    const Transform<T>* inner() const { return inner_.get(); }
    bool is_exact() const override { return inner_->is_exact(); }
    void run_exact(bool to_data, std::vector<double>& row, double& log_det) const override {
        inner_->run_exact(!to_data, row, log_det);
    }

  private:
    TransformPtr<T> inner_;
};

}  // namespace detail
}  // namespace headrace
