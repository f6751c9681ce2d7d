#include "optimizer.hpp"

#include <algorithm>
#include <limits>

namespace headrace {
namespace {

// The kind of each weight in Adam. Only matrices decay, because a bias, or the mean of a base, may have to be large.
std::vector<AdamKind> kinds(const Structure& structure) {
    const std::vector<uint8_t> is_weight = structure.is_weight();
    std::vector<AdamKind> kind(is_weight.size(), adam_no_weight);
    for (const auto& part : structure.parts())
        for (int64_t i = part.begin; i < part.end; ++i)
            if (is_weight[size_t(i)]) kind[size_t(i)] = part.is_bias ? adam_bias : adam_decays;
    return kind;
}

template <class T>
DeviceBuffer<T> zeros(size_t n) {
    DeviceBuffer<T> buffer(n, default_stream);
    if (n > 0) check_cuda(cudaMemsetAsync(buffer.get(), 0, n * sizeof(T), default_stream), "state of Adam");
    return buffer;
}

}  // namespace

template <class T>
DeviceAdam<T>::DeviceAdam(std::shared_ptr<DeviceProgram<T>> program, const AdamOptions& options)
    : program_(std::move(program)), options_(options) {
    const OnDevice on(program_->device());
    const size_t n = program_->n_weights();
    const StreamOrder::Writing writing(order_, default_stream);
    kind_ = DeviceBuffer<AdamKind>(kinds(program_->structure()), default_stream);
    mean_ = zeros<T>(n);
    square_ = zeros<T>(n);
    parts_ = DeviceBuffer<double>(size_t(adam_parts(int64_t(n))), default_stream);
    state_ = DeviceBuffer<AdamState<T>>(1, default_stream);
    adam_start(state_.get(), default_stream);
    if (options.average > 0) {
        average_ = DeviceBuffer<T>(n, default_stream);
        program_->weights(average_.get(), default_stream);
    }
}

template <class T>
DeviceAdam<T>::~DeviceAdam() {
    try {
        const OnDevice on(program_->device());
        order_.wait_for_all(default_stream);  // memory is freed in the order of this stream
    } catch (const CudaError&) {              // a lost device has no memory to free
    }
}

template <class T>
void DeviceAdam<T>::step(const T* gradient, double learning_rate, double* norm, cudaStream_t stream) {
    const std::lock_guard<std::mutex> lock(mutex_);
    program_->update(stream, [&](T* weights) {
        const StreamOrder::Writing writing(order_, stream);
        adam_step(options_, learning_rate, gradient, kind_.get(), weights, mean_.get(), square_.get(), average_.get(),
                  int64_t(program_->n_weights()), parts_.get(), state_.get(), norm, stream);
    });
}

template <class T>
void DeviceAdam<T>::average(T* out, cudaStream_t stream) {
    const OnDevice on(program_->device());
    const std::lock_guard<std::mutex> lock(mutex_);
    const StreamOrder::Reading reading(order_, stream);
    check_cuda(cudaMemcpyAsync(out, average_.get(), average_.size() * sizeof(T), cudaMemcpyDeviceToDevice, stream),
               "running mean of the weights");
}

template <class T>
AdamMemory<T> DeviceAdam<T>::memory() {
    const OnDevice on(program_->device());
    const std::lock_guard<std::mutex> lock(mutex_);
    const StreamOrder::Reading reading(order_, default_stream);
    AdamMemory<T> memory;
    const auto copy = [](const DeviceBuffer<T>& from, std::vector<T>& to) {
        to.resize(from.size());
        if (to.empty()) return;
        check_cuda(
            cudaMemcpyAsync(to.data(), from.get(), to.size() * sizeof(T), cudaMemcpyDeviceToHost, default_stream),
            "copy of the state of Adam");
    };
    copy(mean_, memory.mean);
    copy(square_, memory.square);
    copy(average_, memory.average);
    AdamState<T> state{};
    check_cuda(cudaMemcpyAsync(&state, state_.get(), sizeof state, cudaMemcpyDeviceToHost, default_stream),
               "copy of the clock of Adam");
    wait_for(default_stream);
    memory.clock = state.clock;
    return memory;
}

template <class T>
void DeviceAdam<T>::set_memory(const AdamMemory<T>& memory) {
    const OnDevice on(program_->device());
    const std::lock_guard<std::mutex> lock(mutex_);
    const StreamOrder::Writing writing(order_, default_stream);
    const auto copy = [](const std::vector<T>& from, DeviceBuffer<T>& to) {
        if (from.empty()) return;
        check_cuda(
            cudaMemcpyAsync(to.get(), from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice, default_stream),
            "state of Adam");
    };
    copy(memory.mean, mean_);
    copy(memory.square, square_);
    copy(memory.average, average_);
    const AdamState<T> state{memory.clock, {}, false};
    check_cuda(cudaMemcpyAsync(state_.get(), &state, sizeof state, cudaMemcpyHostToDevice, default_stream),
               "clock of Adam");
    wait_for(default_stream);
}

template class DeviceAdam<float>;
template class DeviceAdam<double>;

}  // namespace headrace
