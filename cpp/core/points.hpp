// The points of dual ascent during a fit: rows in tiles, feature by feature, and their log-Jacobians.
#pragma once

#include <mutex>
#include <vector>

#include "request.hpp"
#include "scratch.hpp"

namespace headrace {

template <class T>
class Points {
  public:
    // Copies points from rows; `weights` may be null. Unless the log-Jacobian of each row is kept, only sums of
    // log-Jacobians are available.
    Points(const ArrayView& rows, int64_t count, int features, const T* weights, bool keeps_log_jacobian = true);

    int64_t count() const { return count_; }
    int features() const { return features_; }
    bool keeps_log_jacobian() const { return log_jacobian_ != nullptr; }
    double total() const { return total_; }  // the sum of the weights

    // The largest number of checked blocks of rows, which are evenly spread and have separate sums.
    static constexpr int64_t most_checked = 8;
    int64_t blocks() const { return (count_ + ascent_block_rows - 1) / ascent_block_rows; }
    bool is_checked(int64_t block) const { return block % ((blocks() + most_checked - 1) / most_checked) == 0; }
    double checked_total() const { return checked_total_; }

    struct Sums {
        // `all` and `checked` have ascent_sums_of(features) values each; without a next map, all values except the sums
        // of x² are 0.
        std::vector<double> all, checked;
    };
    // Moves all points, with the same bits for any number of threads. Calls from several threads wait for each other.
    Sums step(const PointsStep& step, bool wants_sums = true);

    T at(int64_t row, int feature) const;
    void values(T* out) const;
    void squares(double* out) const;  // the squared distance of each row from 0
    void log_jacobian(double* out) const;

  private:
    int64_t count_;
    int features_, tile_rows_;
    double total_ = 0, checked_total_ = 0;
    mutable std::mutex mutex_;
    Aligned<T> z_, weights_;
    Aligned<double> log_jacobian_;  // log-Jacobian of each row, or null
};

extern template class Points<float>;
extern template class Points<double>;

}  // namespace headrace
