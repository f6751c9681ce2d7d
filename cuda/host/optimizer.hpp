// Adam on the weights of a program on a device: the counterpart of cpp/core/optimizer.hpp.
#pragma once

#include <memory>

#include "../../cpp/core/request.hpp"
#include "../kernels/adam.hpp"
#include "program.hpp"

namespace headrace {

template <class T>
class DeviceAdam {
  public:
    using Number = T;

    DeviceAdam(std::shared_ptr<DeviceProgram<T>> program, const AdamOptions& options);
    ~DeviceAdam();

    // Queues the update of the weights. norm, on the device, receives the gradient's norm before clipping, or is null.
    // If the norm is not finite, the weights stay unchanged, which the device decides without a wait.
    void step(const T* gradient, double learning_rate, double* norm, cudaStream_t stream);

    // average() copies the running mean of the weights, if there is one; cpp/core/optimizer.hpp describes the mean.
    bool has_average() const { return average_.size() > 0; }
    void average(T* out, cudaStream_t stream);

    // The state of Adam, as in cpp/core/optimizer.hpp; memory() and set_memory() wait for all queued work.
    AdamMemory<T> memory();
    void set_memory(const AdamMemory<T>& memory);

    const DeviceProgram<T>& program() const { return *program_; }

  private:
    std::shared_ptr<DeviceProgram<T>> program_;
    AdamOptions options_;
    DeviceBuffer<AdamKind> kind_;
    DeviceBuffer<T> mean_, square_, average_;
    DeviceBuffer<double> parts_;
    DeviceBuffer<AdamState<T>> state_;
    StreamOrder order_;  // order of uses of Adam's arrays, which change only in calls that change the weights
    std::mutex mutex_;
};

extern template class DeviceAdam<float>;
extern template class DeviceAdam<double>;

}  // namespace headrace
