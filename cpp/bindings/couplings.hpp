// Calls of one-dimensional maps on the CPU whose parameters come from a network of the caller, for arrays of Python
// (ops.cpp) and for compiled JAX code (xla_couplings.hpp).
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "../core/isa.hpp"
#include "../core/scratch.hpp"
#include "../core/threads.hpp"
#include "ops_checks.hpp"

namespace headrace {

// The number of rows that a thread computes at a time (a stretch), from the numbers of values and parameters of a row.
inline int64_t rows_of_stretch(const Elements& e) {
    constexpr int64_t numbers = 3 << 15;
    return std::max<int64_t>(1, numbers / std::max<int64_t>(1, e.active * (e.n_params + 1)));
}

// Calls body(first row, rows) for stretches of the rows from `begin` to `end`.
template <class F>
void for_stretches(const Elements& e, int64_t begin, int64_t end, F&& body) {
    const int64_t most = rows_of_stretch(e);
    parallel_for((end - begin + most - 1) / most, [&](int64_t task) {
        const int64_t r = begin + task * most;
        body(r, std::min(most, end - r));
    });
}

// Applies a map with separate parameters for each row.
template <class T>
void run_coupling(const Elements& e, bool inverse, const T* x, const T* params, T* value, T* log_det) {
    const auto options = e.options<T>();
    const auto& kernels = kernels_of<T>(*active_isa().table);
    for_stretches(e, 0, e.rows, [&](int64_t r, int64_t n) {
        const int64_t first = r * e.active;
        kernels.coupling(e.index, inverse, options, x + first, params + first * e.n_params, value + first, log_det + r,
                         n, e.active);
    });
}

// Gradients by the results of a direction, and destinations of gradients by values and parameters.
template <class T>
struct CouplingGradients {
    const T *value, *log_det;
    T *x, *params;
};

template <class T>
void pull_coupling(const Elements& e, bool inverse, const T* x, const T* params, const CouplingGradients<T>& by) {
    const auto options = e.options<T>();
    const auto& kernels = kernels_of<T>(*active_isa().table);
    for_stretches(e, 0, e.rows, [&](int64_t r, int64_t n) {
        const int64_t first = r * e.active;
        kernels.coupling_backward(e.index, inverse, options, x + first, params + first * e.n_params, by.value + first,
                                  by.log_det + r, by.x + first, by.params + first * e.n_params, n, e.active);
    });
}

// ---- parameters that several rows share -----------------------------------------------------------------------------

// The index of each row's set of parameters. Leading dimensions of the parameters equal those of the values, or are 1.
class SharedRows {
  public:
    SharedRows(const Shape& rows, const Shape& sets) : lengths_(rows), strides_(rows.size()) {
        require(rows.size() == sets.size(), "params: expected as many dimensions as the values have, and one more");
        for (size_t i = rows.size(); i-- > 0;) {
            require(sets[i] == rows[i] || sets[i] == 1, "params: expected leading dimensions of the values, or 1");
            is_shared_ = is_shared_ || sets[i] != rows[i];
            strides_[i] = sets[i] == 1 ? 0 : count_;
            count_ *= sets[i];
        }
    }

    bool is_shared() const { return is_shared_; }
    int64_t count() const { return count_; }  // number of sets
    int64_t of(int64_t row) const {
        int64_t set = 0;
        for (size_t i = lengths_.size(); i-- > 0; row /= lengths_[i]) set += row % lengths_[i] * strides_[i];
        return set;
    }

  private:
    Shape lengths_, strides_;
    int64_t count_ = 1;
    bool is_shared_ = false;
};

// Divides rows into pieces of some thousand rows, with memory for parameters of each row of a piece.
template <class T>
class Pieces {
  public:
    explicit Pieces(const Elements& e)
        : e_(e), width_(e.active * e.n_params), most_(std::min(e.rows, stretches_of_piece * rows_of_stretch(e))) {}

    Aligned<T> memory() const { return aligned_memory<T>(size_t(std::max<int64_t>(1, most_ * width_))); }
    int64_t width() const { return width_; }

    // For each piece, calls body(first row, rows, offset in memory()) for its stretches, then after(first row, rows).
    template <class F, class G>
    void for_each(F&& body, G&& after) const {
        for (int64_t first = 0; first < e_.rows; first += most_) {
            const int64_t end = std::min(e_.rows, first + most_);
            for_stretches(e_, first, end, [&](int64_t r, int64_t n) { body(r, n, (r - first) * width_); });
            after(first, end - first);
        }
    }

  private:
    static constexpr int64_t stretches_of_piece = 16;
    const Elements& e_;
    int64_t width_, most_;
};

template <class T>
void repeat(const SharedRows& shared, const T* params, int64_t width, int64_t first, int64_t rows, T* out) {
    for (int64_t i = 0; i < rows; ++i) std::copy_n(params + shared.of(first + i) * width, width, out + i * width);
}

template <class T>
void run_coupling(const Elements& e, const SharedRows& shared, bool inverse, const T* x, const T* params, T* value,
                  T* log_det) {
    if (!shared.is_shared()) return run_coupling(e, inverse, x, params, value, log_det);
    const auto options = e.options<T>();
    const auto& kernels = kernels_of<T>(*active_isa().table);
    const Pieces<T> pieces(e);
    const Aligned<T> own = pieces.memory();
    pieces.for_each(
        [&](int64_t r, int64_t n, int64_t offset) {
            repeat(shared, params, pieces.width(), r, n, own.get() + offset);
            kernels.coupling(e.index, inverse, options, x + r * e.active, own.get() + offset, value + r * e.active,
                             log_det + r, n, e.active);
        },
        [](int64_t, int64_t) {});
}

// Computes gradients. Gradients by shared parameters are sums over rows, added one row after another in float64, so
// that no bit depends on the threads.
template <class T>
void pull_coupling(const Elements& e, const SharedRows& shared, bool inverse, const T* x, const T* params,
                   const CouplingGradients<T>& by) {
    if (!shared.is_shared()) return pull_coupling(e, inverse, x, params, by);
    const auto options = e.options<T>();
    const auto& kernels = kernels_of<T>(*active_isa().table);
    const Pieces<T> pieces(e);
    const Aligned<T> own = pieces.memory(), each = pieces.memory();
    const int64_t width = pieces.width();
    // A sum that begins with -0 keeps the sign of a first value that is zero.
    std::vector<double> sums(size_t(shared.count() * width), e.rows > 0 ? -0.0 : 0.0);
    pieces.for_each(
        [&](int64_t r, int64_t n, int64_t offset) {
            const int64_t i = r * e.active;
            repeat(shared, params, width, r, n, own.get() + offset);
            kernels.coupling_backward(e.index, inverse, options, x + i, own.get() + offset, by.value + i,
                                      by.log_det + r, by.x + i, each.get() + offset, n, e.active);
        },
        [&](int64_t first, int64_t rows) {
            constexpr int64_t block = 256;
            parallel_for((width + block - 1) / block, [&](int64_t task) {
                const int64_t begin = task * block, end = std::min(width, begin + block);
                for (int64_t i = 0; i < rows; ++i) {
                    double* const sum = sums.data() + shared.of(first + i) * width;
                    const T* const term = each.get() + i * width;
                    for (int64_t k = begin; k < end; ++k) sum[k] += double(term[k]);
                }
            });
        });
    std::transform(sums.begin(), sums.end(), by.params, [](double sum) { return T(sum); });
}

}  // namespace headrace
