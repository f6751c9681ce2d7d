// Dual ascent by kinks on the host (on a device: cuda/host/ascent.hpp). A call of `kink` reads and writes the rows
// once.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "../math/kink.hpp"
#include "points.hpp"

namespace headrace {

template <class T>
class HostAscent {
  public:
    // A set of points: its parts in this process, and totals over all processes. The checked rows are those in the
    // checked blocks of parts for which is_checked is true.
    struct Party {
        std::vector<std::shared_ptr<Points<T>>> parts;
        std::vector<bool> is_checked;
        double total = 0, checked_total = 0;      // sums of weights: of all rows, of checked rows
        double log_jacobian = 0, of_checked = 0;  // sums of log-Jacobians: over all rows, over checked rows
    };
    // A function that totals vectors of `size` sums over the parts of this process and over all processes.
    using Sum = std::function<std::vector<double>(const std::vector<std::vector<double>>&, size_t size)>;

    // An ascent of the points, which also moves the held-out points, if there are any. At most `most` kinks of a
    // coordinate can be chosen.
    HostAscent(Party points, std::shared_ptr<Points<double>> anchors, Party held_out, const KinkRule& rule,
               int64_t most, Sum sum);

    int features() const { return anchors_->features(); }
    int64_t count() const { return count_; }

    // Moves all points through the kinks chosen last and then to `matrix` z[order], with the blocks of the matrix as in
    // PointsStep, records log-likelihoods, and chooses the next kink of each coordinate. The kink of coordinate k is at
    // that coordinate of row rows[k] of the anchors, or at drawn[k] where rows[k] is below 0.
    void kink(const std::vector<double>& matrix, const std::vector<int>& blocks, const std::vector<int>& order,
              const std::vector<int64_t>& rows, const std::vector<double>& drawn);
    // Moves all points through the kinks that were chosen last, and records log-likelihoods once more. `finish` must be
    // the last call.
    void finish();

    // The chosen kinks, (count, features).
    std::vector<Kink> kinks() const;
    // Mean log-likelihoods before each kink, and after the last kink of a finished ascent: over the points, the
    // held-out points, and the checked blocks of both, without the constants that the base density and the units of the
    // data add. Means of held-out points are NaN where there are none.
    static constexpr int likelihoods_each = 4;
    std::vector<double> log_likelihoods() const;
    // The terms ⟨log φ'⟩ and ⟨φ²⟩ of eq. 23 (docs/dual_ascent.md), an array of shape (n, features, 2) after the rows
    // have moved through n kinks.
    std::vector<double> terms() const;

  private:
    void turn(const std::vector<double>& matrix, const std::vector<int>& blocks, const std::vector<int>& order,
              const std::vector<int64_t>& rows, const std::vector<double>& drawn, bool chooses);
    template <class Number>
    PointsStep step_of(const std::vector<double>& matrix, const std::vector<int>& blocks,
                       const std::vector<int>& order) const;
    void check(Party& party);
    // Moves the points of a party, and returns their sums over all rows and then over the checked rows; `mean` and
    // `checked` become their mean log-likelihoods.
    std::vector<double> move(Party& party, const PointsStep& step, double& mean, double& checked) const;

    Party own_, others_;
    std::shared_ptr<Points<double>> anchors_;
    KinkRule rule_;
    Sum sum_;
    int64_t most_, count_ = 0;
    bool finished_ = false;
    std::vector<Kink> last_, kinks_;
    std::vector<double> squares_;  // ⟨φ²⟩ of the last kinks
    std::vector<double> likelihoods_, terms_;
    mutable std::mutex mutex_;
};

extern template class HostAscent<float>;
extern template class HostAscent<double>;

}  // namespace headrace
