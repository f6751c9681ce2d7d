// Points that a dual ascent moves: rows in tiles, feature by feature, for a whole fit, and their log-Jacobians.
#pragma once

#include <mutex>
#include <vector>

#include "scratch.hpp"
#include "views.hpp"

namespace headrace {

template <class T>
class Points {
  public:
    // Copies rows in; weights may be null.
    Points(const ArrayView& rows, int64_t count, int features, const T* weights);

    int64_t count() const { return count_; }
    int features() const { return features_; }

    struct Step {
        std::vector<double> bend, center, square;      // of each coordinate's map z + bend sqrt(square + (z - center)²)
        double log_scale;                              // log-determinant of the affine map after it
        std::vector<int> order;                        // line k of the affine map's input is coordinate order[k]
        std::vector<double> matrix, shift;             // z becomes matrix z + shift; block diagonal: its blocks
        std::vector<int> blocks;                       // of these sizes, row by row, one after another
        std::vector<double> next_center, next_square;  // of the next map; empty: no sums
    };
    // Moves all points; the sums (features, ascent_sum_count) for the next map, in the order of AscentStep. The same
    // bits for any number of threads. Calls from several threads wait for each other.
    std::vector<double> step(const Step& step);

    void values(T* out) const;
    void squares(double* out) const;  // of each row's distance from 0
    void log_jacobian(double* out) const;

  private:
    int64_t count_;
    int features_, tile_rows_;
    mutable std::mutex mutex_;
    Aligned<T> z_, weights_;
    Aligned<double> log_jacobian_;
};

extern template class Points<float>;
extern template class Points<double>;

}  // namespace headrace
