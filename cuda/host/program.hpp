// A program on a device: the counterpart of cpp/core/program.hpp. Weights, steps and all arrays of a request are in
// device memory; work is queued on the caller's stream without a wait, unless a comment names one.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "../../cpp/core/request.hpp"
#include "../../cpp/core/structure.hpp"
#include "../include/memory.cuh"
#include "../kernels/gradient.hpp"
#include "../kernels/run.hpp"
#include "../kernels/weights.hpp"
#include "device_chain.hpp"
#include "stream_order.hpp"

namespace headrace {

inline void wait_for(cudaStream_t stream) {
    check_cuda(cudaStreamSynchronize(stream), "wait for a stream");
}

template <class T>
class DeviceProgram {
  public:
    // A program, whose constructor waits until the arguments of kernels are copied to the device. `products` selects
    // the precision of networks' products; products in float64 are exact.
    DeviceProgram(int features, int context, Base base, std::vector<StepSpec> steps, size_t base_steps,
                  ContextScale context_scale, Products products, int device);
    ~DeviceProgram();

    int features() const { return structure_.features(); }
    int context() const { return structure_.context(); }
    Base base() const { return base_; }
    int device() const { return device_; }
    size_t n_weights() const { return structure_.n_weights(); }
    const Structure& structure() const { return structure_; }

    // Queues the run of a request. `parameters` is a vector in place of the weights for this call, or null.
    void run(const Request<T>& request, const T* parameters, cudaStream_t stream);
    // Queues a run and its backward pass. A row that is not finite makes its own gradient and the gradient of all
    // weights NaN.
    void run_gradient(const Request<T>& request, const GradientRequest<T>& gradient, const T* parameters,
                      cudaStream_t stream);

    // Copy weights within the device; entries that are no weights (padding, masked entries) become zero.
    void weights(T* out, cudaStream_t stream);
    void set_weights(const T* in, cudaStream_t stream);
    // Copy weights from and to the host, for which the calls wait.
    std::vector<T> host_weights();
    void set_host_weights(const T* in);

    // Calls update(weights), which queues changes of the weights in place; entries that are no weights must stay zero.
    void update(cudaStream_t stream, const std::function<void(T*)>& update);
    // An array on the device with 1 where an element of the weight vector is a weight.
    const uint8_t* is_weight() const { return is_weight_.get(); }

  private:
    // One direction of the program on the device.
    struct Side {
        DeviceBuffer<char> memory;
        DeviceChain<T> chain{};
        Place run_place{};
        SumTasks<T> sums{};  // sums over rows that make the gradient by weights
        DeviceBuffer<T> ready;
        bool is_ready = false;  // whether the ready parameters are those of the current weights
    };

    void place(Side& side, const Compiled<T>& compiled);
    Side& side_for(const Request<T>& request);
    template <class F>
    void with_weights(Side& side, const T* parameters, cudaStream_t stream, const F& body);

    int device_;
    Products products_;
    Base base_;
    Structure structure_;
    Chains<T> chains_;
    std::mutex mutex_;  // locked while work is queued
    Side sides_[2][2];  // indices: transforms alone or with the base; forward or inverse
    bool has_base_steps_;
    DeviceBuffer<uint8_t> is_weight_;
    DeviceBuffer<T> weights_;
    StreamOrder order_;  // order of uses of the weights and the ready parameters
};

extern template class DeviceProgram<float>;
extern template class DeviceProgram<double>;

}  // namespace headrace
