#include "program.hpp"

#include <algorithm>

#include "../../cpp/core/compiled.hpp"
#include "arena.hpp"
#include "placing.hpp"

namespace headrace {

template <class T>
DeviceProgram<T>::DeviceProgram(int features, int context, Base base, std::vector<StepSpec> steps, size_t base_steps,
                                ContextScale context_scale, Products products, int device)
    : device_(device),
      products_(products),
      base_(base),
      structure_(features, context, std::move(steps), std::move(context_scale)),
      chains_(structure_, base_steps),
      has_base_steps_(base_steps > 0) {
    const OnDevice on(device_);
    for (const bool with_base : {false, true})
        for (const bool inverse : {false, true})
            if (with_base || has_base_steps_) place(sides_[with_base][inverse], chains_.of(with_base, inverse));
    is_weight_ = DeviceBuffer<uint8_t>(structure_.is_weight(), default_stream);
    weights_ = DeviceBuffer<T>(std::vector<T>(structure_.n_weights()), default_stream);
    wait_for(default_stream);
}

template <class T>
DeviceProgram<T>::~DeviceProgram() {
    try {
        const OnDevice on(device_);
        order_.wait_for_all(default_stream);  // memory is freed in the order of this stream
    } catch (const CudaError&) {              // a lost device has no memory to free
    }
}

template <class T>
void DeviceProgram<T>::place(Side& side, const Compiled<T>& compiled) {
    Arena size(nullptr);
    place_chain(size, structure_, compiled);
    side.memory = DeviceBuffer<char>(size.bytes().size(), default_stream);
    Arena arena(side.memory.get());
    const Placed<T> placed = place_chain(arena, structure_, compiled);
    side.chain = placed.chain;
    side.chain.products = products_;
    side.sums = placed.sums;
    check_cuda(cudaMemcpyAsync(side.memory.get(), arena.bytes().data(), arena.bytes().size(), cudaMemcpyHostToDevice,
                               default_stream),
               "copy to the device");
    wait_for(default_stream);  // the arena is freed when this function returns
    side.run_place = run_place(side.chain, device_limits().shared_bytes);
    side.ready = DeviceBuffer<T>(size_t(side.chain.chain.ready), default_stream);
}

template <class T>
typename DeviceProgram<T>::Side& DeviceProgram<T>::side_for(const Request<T>& request) {
    return sides_[request.with_base || !has_base_steps_][request.inverse];
}

// Calls body(weights, ready parameters) between the waits that the order of streams requires.
template <class T>
template <class F>
void DeviceProgram<T>::with_weights(Side& side, const T* parameters, cudaStream_t stream, const F& body) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (parameters) {
        const StreamOrder::Reading reading(order_, stream);  // kernels read the steps and the mask of weights
        DeviceBuffer<T> own(n_weights(), stream), ready(size_t(side.chain.chain.ready), stream);
        launch_masked_copy(parameters, is_weight_.get(), own.get(), int64_t(n_weights()), stream);
        launch_prepare(side.chain, own.get(), ready.get(), stream);
        body(own.get(), ready.get());
        return;
    }
    if (!side.is_ready) {
        const StreamOrder::Writing writing(order_, stream);
        launch_prepare(side.chain, weights_.get(), side.ready.get(), stream);
        side.is_ready = true;
    }
    const StreamOrder::Reading reading(order_, stream);
    body(weights_.get(), side.ready.get());
}

template <class T>
void DeviceProgram<T>::run(const Request<T>& request, const T* parameters, cudaStream_t stream) {
    if (request.rows == 0) return;
    const OnDevice on(device_);
    Side& side = side_for(request);
    with_weights(side, parameters, stream, [&](const T* weights, const T* ready) {
        Call<T> call = call_of(request, base_);
        call.weights = weights;
        call.ready = ready;
        launch_chain(side.chain, call, side.run_place, stream);
    });
}

template <class T>
void DeviceProgram<T>::run_gradient(const Request<T>& request, const GradientRequest<T>& gradient, const T* parameters,
                                    cudaStream_t stream) {
    const OnDevice on(device_);
    Side& side = side_for(request);
    if (request.rows == 0) {
        if (gradient.weights)
            check_cuda(cudaMemsetAsync(gradient.weights, 0, n_weights() * sizeof(T), stream), "gradient");
        return;
    }
    with_weights(side, parameters, stream, [&](const T* weights, const T* ready) {
        Call<T> call = call_of(request, base_);
        call.weights = weights;
        call.ready = ready;
        launch_gradient(side.chain, side.sums, call, gradient.back(), is_weight_.get(), n_weights(), stream);
    });
}

template <class T>
void DeviceProgram<T>::weights(T* out, cudaStream_t stream) {
    const OnDevice on(device_);
    const std::lock_guard<std::mutex> lock(mutex_);
    const StreamOrder::Reading reading(order_, stream);
    check_cuda(cudaMemcpyAsync(out, weights_.get(), n_weights() * sizeof(T), cudaMemcpyDeviceToDevice, stream),
               "copy of the weights");
}

template <class T>
void DeviceProgram<T>::set_weights(const T* in, cudaStream_t stream) {
    update(stream,
           [&](T* weights) { launch_masked_copy(in, is_weight_.get(), weights, int64_t(n_weights()), stream); });
}

template <class T>
std::vector<T> DeviceProgram<T>::host_weights() {
    const OnDevice on(device_);
    std::vector<T> host(n_weights());
    const std::lock_guard<std::mutex> lock(mutex_);
    const StreamOrder::Reading reading(order_, default_stream);
    check_cuda(
        cudaMemcpyAsync(host.data(), weights_.get(), n_weights() * sizeof(T), cudaMemcpyDeviceToHost, default_stream),
        "copy of the weights");
    wait_for(default_stream);
    return host;
}

template <class T>
void DeviceProgram<T>::set_host_weights(const T* in) {
    const OnDevice on(device_);
    const DeviceBuffer<T> given(std::vector<T>(in, in + n_weights()), default_stream);
    set_weights(given.get(), default_stream);
    wait_for(default_stream);
}

template <class T>
void DeviceProgram<T>::update(cudaStream_t stream, const std::function<void(T*)>& update) {
    const OnDevice on(device_);
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& sides : sides_)
        for (Side& side : sides) side.is_ready = false;
    const StreamOrder::Writing writing(order_, stream);
    update(weights_.get());
}

template class DeviceProgram<float>;
template class DeviceProgram<double>;

}  // namespace headrace
