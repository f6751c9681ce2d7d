// Transforms without a network: permutations, scales, products with a matrix, maps of each coordinate for itself.
#pragma once

#include "maps.hpp"
#include "transform.hpp"

namespace headrace {
namespace detail {

template <class T>
class Permutation : public Transform<T> {
  public:
    explicit Permutation(Stored& stored) {
        this->features_ = stored.size("features", 1);
        order_ = stored.permutation("order", this->features_);
        this->is_fixed_ = true;
    }
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

// Whatever T is, it subtracts in float64.
template <class T>
class Standardize : public Transform<T> {
  public:
    explicit Standardize(Stored& stored) {
        this->features_ = stored.size("features", 1);
        const std::size_t n = static_cast<std::size_t>(this->features_);
        mean_ = stored.numbers("mean", n);
        std_ = stored.numbers("std", n, true);
        for (const double scale : std_) log_det_ += std::log(scale);
        for (std::size_t c = 0; c < n; ++c) is_identity_ = is_identity_ && mean_[c] == 0.0 && std_[c] == 1.0;
        this->is_fixed_ = true;
    }
    bool is_identity() const { return is_identity_; }
    bool is_of_data() const override { return true; }
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
    std::vector<double> mean_, std_;
    double log_det_ = 0.0;
    bool is_identity_ = true;
};

// x = Q z, where Q is orthogonal and block diagonal.
template <class T>
class Rotation : public Transform<T> {
  public:
    explicit Rotation(Stored& stored) {
        constexpr std::int64_t most = 8192;
        this->features_ = stored.size("features", 1);
        const int n = this->features_;
        if (stored.has("matrix")) {  // files of 0.3.0 had it in their header
            if (n > most) stored.fail("features: expected at most " + std::to_string(most));
            sizes_.push_back(n);
            for (const double x : stored.numbers("matrix", static_cast<std::size_t>(n) * static_cast<std::size_t>(n)))
                numbers_.push_back(narrowed<T>(x));
        } else {
            sizes_ = stored.integers("blocks", 1, most);
            std::int64_t sum = 0, count = 0;
            for (const int size : sizes_) {
                sum += size;
                count += std::int64_t(size) * size;
            }
            if (sum != n || n > most) stored.fail("blocks: expected sizes that add up to features, at most 8192");
            numbers_ = stored.template array_of_doubles<T>("blocks", {static_cast<std::uint64_t>(count)});
        }
        check_orthogonal(stored);
        this->is_fixed_ = true;
    }
    void run(bool to_data, T* row, const T*, Scratch<T>& s, double&) const override {
        s.row.assign(row, row + this->features_);
        multiply(to_data, s.row.data(), row);
    }

  private:
    // By Q, or by its transpose.
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

    // Small blocks are checked like in Python: every entry of the transpose times the block is that of the identity to
    // 1e-6. Large ones, where that would take minutes: some vectors of 1 and -1 come back, each coordinate to the
    // largest effect of a matrix of 1e-6 on a sum of n of them.
    void check_orthogonal(const Stored& stored) const {
        constexpr int small = 256;
        const T* block = numbers_.data();
        for (const int size : sizes_) {
            const std::size_t m = static_cast<std::size_t>(size);
            for (std::size_t i = 0; size <= small && i < m; ++i)
                for (std::size_t j = 0; j <= i; ++j) {
                    double product = i == j ? -1.0 : 0.0;
                    for (std::size_t k = 0; k < m; ++k)
                        product += static_cast<double>(block[k * m + i]) * static_cast<double>(block[k * m + j]);
                    if (!(std::abs(product) <= 1e-6)) stored.fail("blocks: expected orthogonal matrices");
                }
            block += m * m;
        }
        const std::size_t n = static_cast<std::size_t>(this->features_);
        std::vector<T> given(n), turned(n), back(n);
        std::uint32_t state = 1;
        const double most = 1e-6 * (1.0 + std::sqrt(static_cast<double>(n)));
        for (int round = 0; round < 4; ++round) {
            for (T& x : given) {
                state = state * 1664525u + 1013904223u;
                x = state >> 31 ? T(1) : T(-1);
            }
            multiply(true, given.data(), turned.data());
            multiply(false, turned.data(), back.data());
            for (std::size_t c = 0; c < n; ++c)
                if (!(std::abs(static_cast<double>(back[c] - given[c])) <= most))
                    stored.fail("blocks: expected orthogonal matrices");
        }
    }

    std::vector<int> sizes_;
    std::vector<T> numbers_;
};

// x[i] = signs[i] y[order[i]] + shift[i] with y = L E U z.
template <class T>
class Linear : public Transform<T> {
  public:
    explicit Linear(Stored& stored) {
        this->features_ = stored.size("features", 1, 8192);
        const std::uint64_t n = static_cast<std::uint64_t>(this->features_);
        order_ = stored.permutation("order", this->features_);
        signs_ = stored.integers("signs", -1, 1);
        if (signs_.size() != n) stored.fail("signs: expected " + std::to_string(n) + " values");
        for (const int sign : signs_)
            if (sign == 0) stored.fail("signs: expected 1 or -1");
        upper_ = stored.template array<T>("upper", {n, n});
        lower_ = stored.template array<T>("lower", {n, n});
        log_diagonal_ = stored.template array<T>("log_diagonal", {n});
        shift_ = stored.template array<T>("shift", {n});
        for (const T x : log_diagonal_) log_det_ += static_cast<double>(x);
    }
    void run(bool to_data, T* row, const T*, Scratch<T>& s, double& log_det) const override {
        const std::size_t n = order_.size();
        s.row.resize(n);
        T* const y = s.row.data();
        log_det += to_data ? log_det_ : -log_det_;
        if (to_data) {
            std::copy(row, row + n, y);
            for (std::size_t i = 0; i < n; ++i) {  // each reads those after it
                for (std::size_t j = i + 1; j < n; ++j) y[i] += upper_[i * n + j] * y[j];
                y[i] *= std::exp(log_diagonal_[i]);
            }
            for (std::size_t i = n; i-- > 0;)  // each reads those before it
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
    explicit ActNorm(Stored& stored) {
        this->features_ = stored.size("features", 1);
        const std::uint64_t n = static_cast<std::uint64_t>(this->features_);
        stored.truth("started");  // which matters only to a fit
        shift_ = stored.template array<T>("shift", {n});
        log_scale_ = stored.template array<T>("log_scale", {n});
    }
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

// Raw parameters, coordinate by coordinate: read(name, count of values of a coordinate) gives those of a name.
template <class T, class Read>
std::vector<T> params_by_coordinate(const MapSettings& map, std::size_t n, const Read& read) {
    const std::size_t n_params = static_cast<std::size_t>(map.n_params());
    std::vector<T> params;
    std::size_t start = 0;
    for (const auto& [name, group] : map.groups()) {
        const std::size_t size = static_cast<std::size_t>(group);
        const std::vector<T> part = read(name, size);
        params.resize(n * n_params);  // which the first tensor has confirmed, but for a factor
        for (std::size_t c = 0; c < n; ++c)
            for (std::size_t k = 0; k < size; ++k) params[c * n_params + start + k] = part[c * size + k];
        start += size;
    }
    return params;
}

template <class T>
class Elementwise : public Transform<T> {
  public:
    explicit Elementwise(Stored& stored) {
        this->features_ = stored.size("features", 1);
        map_ = std::make_unique<MapSettings>(stored);
        formula_to_data_ = stored.choice("formula", {"to_data", "to_latent"}) == 0;
        const std::size_t n = static_cast<std::size_t>(this->features_);
        params_ = params_by_coordinate<T>(*map_, n, [&](const std::string& name, std::uint64_t size) {
            return stored.template array<T>(name, {n, size});
        });
    }
    void run(bool to_data, T* row, const T*, Scratch<T>&, double& log_det) const override {
        const std::size_t n = static_cast<std::size_t>(this->features_), n_params = params_.size() / n;
        for (std::size_t c = 0; c < n; ++c)
            row[c] =
                map_->template apply<T>(params_.data() + c * n_params, to_data != formula_to_data_, row[c], log_det);
    }

  private:
    std::unique_ptr<MapSettings> map_;
    std::vector<T> params_;
    bool formula_to_data_ = true;
};

// A fixed spline of each coordinate, before which data are shifted and scaled to its interval.
template <class T>
class Gaussianize : public Transform<T> {
  public:
    explicit Gaussianize(Stored& stored) {
        this->features_ = stored.size("features", 1);
        const std::size_t n = static_cast<std::size_t>(this->features_);
        mean_ = stored.numbers("mean", n);
        std_ = stored.numbers("std", n, true);
        map_ = std::make_unique<MapSettings>(stored);
        stored.choice("formula", {"to_latent"});
        params_ = params_by_coordinate<T>(*map_, n, [&](const std::string& name, std::uint64_t size) {
            return stored.template array_of_doubles<T>(name, {n, size});
        });
        for (const double scale : std_) log_det_ += std::log(scale);
        this->is_fixed_ = true;
    }
    bool is_of_data() const override { return true; }
    void run(bool to_data, T* row, const T*, Scratch<T>&, double& log_det) const override {
        const std::size_t n_params = params_.size() / mean_.size();
        for (std::size_t c = 0; c < mean_.size(); ++c) {
            const T* const p = params_.data() + c * n_params;
            if (to_data) {
                const double inner = static_cast<double>(map_->template apply<T>(p, true, row[c], log_det));
                row[c] = narrowed<T>(mean_[c] + std_[c] * inner);
            } else {
                const T inner = narrowed<T>((static_cast<double>(row[c]) - mean_[c]) / std_[c]);
                row[c] = map_->template apply<T>(p, false, inner, log_det);
            }
        }
        log_det += to_data ? log_det_ : -log_det_;
    }

  private:
    std::unique_ptr<MapSettings> map_;
    std::vector<T> params_;
    std::vector<double> mean_, std_;
    double log_det_ = 0.0;
};

// A transform of some columns; the others stay as they are.
template <class T>
class OnColumns : public Transform<T> {
  public:
    OnColumns(Stored& stored, int features, std::vector<int> columns, TransformPtr<T> inner)
        : columns_(std::move(columns)), inner_(std::move(inner)) {
        this->features_ = features;
        this->context_ = inner_->context();
        this->is_fixed_ = inner_->is_fixed();
        std::vector<bool> is_moved(static_cast<std::size_t>(features), false);
        for (const int c : columns_) {
            if (is_moved[static_cast<std::size_t>(c)]) stored.fail("columns: expected each column once");
            is_moved[static_cast<std::size_t>(c)] = true;
        }
        if (columns_.size() != static_cast<std::size_t>(inner_->features()))
            stored.fail("columns: expected as many as the transform has features");
        if (inner_->is_of_data()) stored.fail("transform: expected no Standardize, Support or Gaussianize");
    }
    void run(bool to_data, T* row, const T* context, Scratch<T>& s, double& log_det) const override {
        std::vector<T> own;
        own.swap(s.columns);  // a transform within may need the buffer again
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

// Another transform with its directions exchanged.
template <class T>
class Inverse : public Transform<T> {
  public:
    explicit Inverse(TransformPtr<T> inner) : inner_(std::move(inner)) {
        this->features_ = inner_->features();
        this->context_ = inner_->context();
        this->is_fixed_ = inner_->is_fixed();
    }
    void run(bool to_data, T* row, const T* context, Scratch<T>& s, double& log_det) const override {
        inner_->run(!to_data, row, context, s, log_det);
    }
    const Transform<T>* inner() const { return inner_.get(); }
    bool is_of_data() const override { return inner_->is_of_data(); }
    bool is_exact() const override { return inner_->is_exact(); }
    void run_exact(bool to_data, std::vector<double>& row, double& log_det) const override {
        inner_->run_exact(!to_data, row, log_det);
    }

  private:
    TransformPtr<T> inner_;
};

}  // namespace detail
}  // namespace headrace
