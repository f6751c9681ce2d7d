// Points of dual ascent on a device: the counterpart of cpp/core/points.hpp.
#pragma once

#include <mutex>
#include <vector>

#include "../../cpp/core/request.hpp"
#include "../kernels/dual_ascent.hpp"
#include "stream_order.hpp"

namespace headrace {

// The points on a device. Calls run on the device one after another, even if their streams differ. No call waits for
// the device, unless its comment names a wait.
template <class T>
class DevicePoints {
  public:
    // Points copied from rows on the given device; weights may be null.
    DevicePoints(const ArrayView& rows, int64_t count, int features, const T* weights, int device, cudaStream_t stream);
    ~DevicePoints();

    int64_t count() const { return layout_.rows; }
    int features() const { return layout_.features; }
    int device() const { return device_; }

    // Moves all points. The sums (features, ascent_sum_count) for the next map are copied to the host, for which the
    // call waits; an empty next_center gives no sums. The error of a sum is at most that of adding 256 rows in T, some
    // 256 eps of the magnitudes; further additions are in float64, in an order that depends only on the shape.
    std::vector<double> step(const PointsStep& step, cudaStream_t stream);

    // A step whose parameters are on the device, where its sums stay. `sums` has the sums of the last step that
    // requested any, and then the sum of the log-Jacobians.
    void step(const AscentStructure& structure, const AscentNumbers<T>& numbers, bool wants_sums, cudaStream_t stream);
    const double* sums() const { return sums_.get(); }

    // The points in their memory layout.
    const AscentLayout& layout() const { return layout_; }
    const T* tiles() const { return z_.get(); }

    void values(T* out, cudaStream_t stream);        // writes the values (count, features)
    void squares(double* out, cudaStream_t stream);  // writes the squared distance of each row from 0
    void log_jacobian(double* out, cudaStream_t stream);

  private:
    template <class Number>
    void take(DeviceBuffer<Number>& buffer, size_t n);
    void reserve(const AscentStructure& structure, bool wants_sums);
    void queue(const AscentStructure& structure, const AscentNumbers<T>& numbers, bool wants_sums, cudaStream_t stream);

    int device_;
    AscentLayout layout_;
    std::mutex mutex_;                     // locked while work is queued
    DeviceBuffer<T> z_, moved_, weights_;  // moved_ is for steps that cannot be in place
    DeviceBuffer<double> log_jacobian_, partial_, sums_;
    DeviceBuffer<char> numbers_;  // parameters of a step
    StreamOrder order_;
};

extern template class DevicePoints<float>;
extern template class DevicePoints<double>;

}  // namespace headrace
