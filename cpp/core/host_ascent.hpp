// An ascent by kinks on the host (cuda/host/ascent.hpp: on a device). Each kink reads and writes the rows once.
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
    // The parts of the points in this process. The checked blocks are a subset for some parts.
    struct Party {
        std::vector<std::shared_ptr<Points<T>>> parts;
        std::vector<bool> is_checked;
        double total = 0, checked_total = 0;      // of the weights
        double log_jacobian = 0, of_checked = 0;  // sums over all rows, and over the checked ones
    };
    // The total of these sums, `size` values each, over the parts here and over all processes.
    using Sum = std::function<std::vector<double>(const std::vector<std::vector<double>>&, size_t size)>;

    // Moves the points, and the held-out points, if there are any. At most `most` kinks of a coordinate can be chosen.
    HostAscent(Party points, std::shared_ptr<Points<double>> anchors, Party held_out, const KinkRule& rule,
               int64_t most, Sum sum);

    int features() const { return anchors_->features(); }
    int64_t count() const { return count_; }

    // Takes all points through the kinks chosen last and then to `matrix` z[order], with the blocks of the matrix as in
    // PointsStep, notes their log-likelihoods, and chooses the next kink of each coordinate: at coordinate k of
    // row rows[k] of the anchors, or at drawn[k] where rows[k] is below 0.
    void kink(const std::vector<double>& matrix, const std::vector<int>& blocks, const std::vector<int>& order,
              const std::vector<int64_t>& rows, const std::vector<double>& drawn);
    // Moves all points through the kinks that were chosen last, and records log-likelihoods again. No call follows.
    void finish();

    // (count, features).
    std::vector<Kink> kinks() const;
    // Means before each kink, and after the last of a finished ascent: over the points, those held out, and
    // the checked blocks of either, without the constants of base and units; NaN without any held out.
    static constexpr int likelihoods_each = 4;
    std::vector<double> log_likelihoods() const;
    // (kinks passed by the rows, features, 2): ⟨log φ'⟩ and ⟨φ²⟩ of eq. 23.
    std::vector<double> terms() const;

  private:
    void turn(const std::vector<double>& matrix, const std::vector<int>& blocks, const std::vector<int>& order,
              const std::vector<int64_t>& rows, const std::vector<double>& drawn, bool chooses);
    template <class Number>
    PointsStep step_of(const std::vector<double>& matrix, const std::vector<int>& blocks,
                       const std::vector<int>& order) const;
    void check(Party& party);
    // Moves a party; returns its sums, over all rows and then over the checked rows, and its mean log-likelihoods.
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
