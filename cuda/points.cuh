// Points that a dual ascent moves, on the device: the counterpart of cpp/points.hpp.
#pragma once

#include <vector>

#include "../cpp/points.hpp"
#include "kernels/dual_ascent.cuh"

namespace headrace {

// All calls of one object belong to one stream, or the caller orders them. Nothing waits for the device unless said.
template <class T>
class DevicePoints {
  public:
    using Step = typename Points<T>::Step;

    // Copies rows in; weights may be null.
    DevicePoints(const ArrayView& rows, int64_t count, int features, const T* weights, cudaStream_t stream);

    int64_t count() const { return layout_.rows; }
    int features() const { return layout_.features; }

    // Moves all points. The sums (features, ascent_sum_count) for the next map come back to the host, for which the
    // call waits; none are asked for with an empty next_center. Sums are added in T over at most 256 rows, then in
    // float64 in an order that the shape alone decides: the error is at most some 256 eps of the sum of magnitudes.
    std::vector<double> step(const Step& step, cudaStream_t stream);

    void values(T* out, cudaStream_t stream) const;  // rows of adjacent features
    void log_jacobian(double* out, cudaStream_t stream) const;

  private:
    void move(const AscentStructure& structure, const AscentNumbers<T>& numbers, bool wants_sums, cudaStream_t stream);

    AscentLayout layout_;
    DeviceBuffer<T> z_, moved_, weights_;  // moved_: where a step cannot be in place
    DeviceBuffer<double> log_jacobian_, partial_, sums_;
    DeviceBuffer<unsigned char> numbers_;
};

extern template class DevicePoints<float>;
extern template class DevicePoints<double>;

}  // namespace headrace
