// The points of a dual ascent for a whole fit: rows in tiles, feature by feature, and their log-Jacobians.
#pragma once

#include <mutex>
#include <vector>

#include "request.hpp"
#include "scratch.hpp"

namespace headrace {

template <class T>
class Points {
  public:
    // Copies rows in; weights may be null. Unless each row's log-Jacobian is kept, only their sums are available.
    Points(const ArrayView& rows, int64_t count, int features, const T* weights, bool keeps_log_jacobian = true);

    int64_t count() const { return count_; }
    int features() const { return features_; }
    bool keeps_log_jacobian() const { return log_jacobian_ != nullptr; }
    double total() const { return total_; }  // of the weights

    // Some blocks of rows, evenly spread, have sums of their own.
    static constexpr int64_t most_checked = 8;
    int64_t blocks() const { return (count_ + ascent_block_rows - 1) / ascent_block_rows; }
    bool is_checked(int64_t block) const { return block % ((blocks() + most_checked - 1) / most_checked) == 0; }
    double checked_total() const { return checked_total_; }

    struct Sums {
        std::vector<double> all, checked;  // ascent_sums_of(features) each; without a next map 0 except for x²
    };
    // Moves all points, with the same bits for any number of threads. Calls from several threads wait for each other.
    Sums step(const PointsStep& step, bool wants_sums = true);

    T at(int64_t row, int feature) const;
    void values(T* out) const;
    void squares(double* out) const;  // of each row's distance from 0
    void log_jacobian(double* out) const;

  private:
    int64_t count_;
    int features_, tile_rows_;
    double total_ = 0, checked_total_ = 0;
    mutable std::mutex mutex_;
    Aligned<T> z_, weights_;
    Aligned<double> log_jacobian_;  // of each row, or null
};

extern template class Points<float>;
extern template class Points<double>;

}  // namespace headrace
