// Dual ascent by kinks that stays on the device: kernels choose the kinks of each step, and the host queues steps
// without a wait. cpp/core/host_ascent.hpp is the ascent on the host.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "../kernels/ascent_choice.hpp"
#include "points.hpp"

namespace headrace {

template <class T>
class DeviceAscent {
  public:
    // An ascent of points on one device, which also moves held-out points, if there are any. At most `most` kinks of
    // each coordinate can be queued.
    DeviceAscent(std::shared_ptr<DevicePoints<T>> points, std::shared_ptr<DevicePoints<double>> anchors,
                 std::shared_ptr<DevicePoints<T>> held_out, double held_out_total, const KinkRule& rule, int64_t most,
                 cudaStream_t stream);
    ~DeviceAscent();

    int features() const { return points_->features(); }
    int64_t count() const { return count_; }

    // Moves all points through the kinks chosen last and then to `matrix` z[order], with the blocks of the matrix as in
    // PointsStep, records log-likelihoods, and chooses the next kink of each coordinate. The kink of coordinate k is at
    // that coordinate of row rows[k] of the anchors, or at drawn[k] where rows[k] is below 0.
    void kink(const std::vector<double>& matrix, const std::vector<int>& blocks, const std::vector<int>& order,
              const std::vector<int64_t>& rows, const std::vector<double>& drawn, cudaStream_t stream);
    // Moves all points through the kinks that were chosen last, and records the last of count + 1 log-likelihoods. No
    // step can be queued after finish().
    void finish(cudaStream_t stream);

    // Results, copied to the host, which waits for the copy: the kinks (count, features), and the log-likelihoods
    // before each kink of the points and of the held-out points, without the constants that the base density and the
    // units of the data add. If no points are held out, the log-likelihoods of held-out points are NaN.
    std::vector<Kink> kinks(cudaStream_t stream);
    static constexpr int likelihoods_each = 2;
    std::vector<double> log_likelihoods(cudaStream_t stream);

  private:
    template <class Number>
    struct Places {
        DeviceBuffer<Number> numbers;
        AscentPlaces<Number> at{};
    };

    template <class Number>
    void place(Places<Number>& places, int64_t matrix);
    void turn(const std::vector<double>& matrix, const std::vector<int>& blocks, const std::vector<int>& order,
              const std::vector<int64_t>& rows, const std::vector<double>& drawn, bool chooses, cudaStream_t stream);
    Kink* kinks_at(int64_t step) { return kinks_.get() + step * features(); }

    std::shared_ptr<DevicePoints<T>> points_, held_out_;
    std::shared_ptr<DevicePoints<double>> anchors_;
    double held_out_total_;
    KinkRule rule_;
    int device_;
    int64_t most_, count_ = 0;
    bool finished_ = false;
    DeviceBuffer<Kink> kinks_;          // (most + 1, features); the first row is the identity
    DeviceBuffer<double> likelihoods_;  // (most + 1, 2) log-likelihoods
    DeviceBuffer<double> log_scale_;
    DeviceBuffer<char> turn_;
    Places<T> places_;
    Places<double> anchor_places_;
    std::mutex mutex_;  // locked while work is queued
    StreamOrder order_;
};

extern template class DeviceAscent<float>;
extern template class DeviceAscent<double>;

}  // namespace headrace
