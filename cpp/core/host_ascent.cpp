#include "host_ascent.hpp"

#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "blocks.hpp"

namespace headrace {

template <class T>
HostAscent<T>::HostAscent(Party points, std::shared_ptr<Points<double>> anchors, Party held_out, const KinkRule& rule,
                          int64_t most, Sum sum)
    : own_(std::move(points)),
      others_(std::move(held_out)),
      anchors_(std::move(anchors)),
      rule_(rule),
      sum_(std::move(sum)),
      most_(most),
      last_(size_t(anchors_->features()), Kink{1.0, 0.0, 0.0, 0.0, 1.0}) {
    if (anchors_->count() == 0) throw std::invalid_argument("anchors: expected rows");
    if (most < 0) throw std::invalid_argument("most: expected at least 0");
    check(own_);
    check(others_);
    if (!(own_.total > 0)) throw std::invalid_argument("points: expected rows, and weights whose sum is above 0");
    rule_.total = own_.total;
}

template <class T>
void HostAscent<T>::check(Party& party) {
    std::vector<std::vector<double>> totals;
    for (size_t i = 0; i < party.parts.size(); ++i) {
        const Points<T>& points = *party.parts[i];
        if (points.features() != features())
            throw std::invalid_argument("points, held_out: expected the features of the anchors");
        if (points.keeps_log_jacobian())
            throw std::invalid_argument("points, held_out: expected points that keep no log-Jacobian, but its sums");
        totals.push_back({points.total(), party.is_checked[i] ? points.checked_total() : 0.0});
    }
    const std::vector<double> found = sum_(totals, 2);
    party.total = found[0];
    party.checked_total = found[1];
}

// The step that moves coordinates through the last kinks and then rotates them.
template <class T>
template <class Number>
PointsStep HostAscent<T>::step_of(const std::vector<double>& matrix, const std::vector<int>& blocks,
                                  const std::vector<int>& order) const {
    PointsStep step{};
    for (const Kink& kink : last_) {
        step.bend.push_back(kink.c / kink.a);
        step.center.push_back(kink.center);
        step.square.push_back(kink.square);
        step.log_scale += std::log(kink.a);
    }
    step.order = order;
    step.blocks = blocks;
    step.matrix = matrix;
    size_t number = 0, first = 0;
    for (const int size : blocks) {
        for (int line = 0; line < size; ++line) {
            double shift = 0;
            for (int k = 0; k < size; ++k, ++number) {
                const Kink& kink = last_[size_t(order[first + size_t(k)])];
                shift += matrix[number] * kink.b;
                step.matrix[number] *= kink.a;
            }
            step.shift.push_back(shift);
        }
        first += size_t(size);
    }
    return step;
}

template <class T>
std::vector<double> HostAscent<T>::move(Party& party, const PointsStep& step, double& mean, double& checked) const {
    const size_t n = size_t(features()), size = n * ascent_sum_count + n;
    std::vector<std::vector<double>> found;
    for (size_t i = 0; i < party.parts.size(); ++i) {
        auto sums = party.parts[i]->step(step);
        found.push_back(std::move(sums.all));
        if (party.is_checked[i])
            found.back().insert(found.back().end(), sums.checked.begin(), sums.checked.end());
        else
            found.back().resize(2 * size);
    }
    std::vector<double> sums = sum_(found, 2 * size);
    const auto likelihood = [&](const double* of, double total, double& log_jacobian) {
        double squares = 0;
        log_jacobian += total * step.log_scale;
        for (size_t k = 0; k < n; ++k) {
            squares += of[k * ascent_sum_count + 1];
            log_jacobian += of[n * ascent_sum_count + k];
        }
        return total > 0 ? (log_jacobian - 0.5 * rule_.precision * squares) / total
                         : std::numeric_limits<double>::quiet_NaN();
    };
    mean = likelihood(sums.data(), party.total, party.log_jacobian);
    checked = likelihood(sums.data() + size, party.checked_total, party.of_checked);
    return sums;
}

template <class T>
void HostAscent<T>::turn(const std::vector<double>& matrix, const std::vector<int>& blocks,
                         const std::vector<int>& order, const std::vector<int64_t>& rows,
                         const std::vector<double>& drawn, bool chooses) {
    const size_t n = size_t(features());
    PointsStep step = step_of<T>(matrix, blocks, order);
    std::vector<Kink> next = last_;
    if (chooses) {
        anchors_->step(step_of<double>(matrix, blocks, order), false);
        for (size_t k = 0; k < n; ++k) {
            next[k].center = rows[k] < 0 ? drawn[k] : anchors_->at(rows[k], int(k));
            next[k].square = kink_square(next[k].center, rule_);
            step.next_center.push_back(next[k].center);
            step.next_square.push_back(next[k].square);
        }
    }
    double found[likelihoods_each];
    const std::vector<double> sums = move(own_, step, found[0], found[2]);
    step.next_center.clear();
    step.next_square.clear();
    move(others_, step, found[1], found[3]);
    likelihoods_.insert(likelihoods_.end(), found, found + likelihoods_each);
    for (size_t k = 0; count_ > 0 && k < n; ++k) {
        terms_.push_back(sums[n * ascent_sum_count + k] / rule_.total + std::log(last_[k].a));
        terms_.push_back(squares_[k]);
    }
    if (!chooses) return;
    squares_.clear();
    for (size_t k = 0; k < n; ++k) {
        const double* const of = sums.data() + k * ascent_sum_count;
        double least;
        const Kink kink = last_[k] = chosen_kink(of, next[k].center, next[k].square, rule_, least);
        squares_.push_back(KinkMeans(of, rule_.total, kink.center, kink.square).square_of(kink.a, kink.b, kink.c));
        kinks_.push_back(kink);
    }
}

template <class T>
void HostAscent<T>::kink(const std::vector<double>& matrix, const std::vector<int>& blocks,
                         const std::vector<int>& order, const std::vector<int64_t>& rows,
                         const std::vector<double>& drawn) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const size_t n = size_t(features());
    check_turn(matrix, blocks, order, n);
    if (rows.size() != n || drawn.size() != n)
        throw std::invalid_argument("rows, drawn: expected one for each feature");
    for (const int64_t row : rows)
        if (row >= anchors_->count()) throw std::invalid_argument("rows: expected rows of the anchors");
    if (finished_ || count_ >= most_) throw std::invalid_argument("kink: expected no more");
    finished_ = true;  // set first, because after an exception the points are between two kinks
    turn(matrix, blocks, order, rows, drawn, true);
    finished_ = false;
    ++count_;
}

template <class T>
void HostAscent<T>::finish() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (finished_) throw std::invalid_argument("finish: expected once");
    const size_t n = size_t(features());
    std::vector<int> order(n);
    std::iota(order.begin(), order.end(), 0);
    finished_ = true;
    turn(std::vector<double>(n, 1.0), std::vector<int>(n, 1), order, {}, {}, false);
}

template <class T>
std::vector<Kink> HostAscent<T>::kinks() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return kinks_;
}

template <class T>
std::vector<double> HostAscent<T>::log_likelihoods() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return likelihoods_;
}

template <class T>
std::vector<double> HostAscent<T>::terms() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return terms_;
}

template class HostAscent<float>;
template class HostAscent<double>;

}  // namespace headrace
