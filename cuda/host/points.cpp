#include "points.hpp"

#include <stdexcept>

#include "../../cpp/core/blocks.hpp"
#include "arena.hpp"
#include "upload.hpp"

namespace headrace {
namespace {

template <class T>
void check(const PointsStep& step, size_t n) {
    if (step.bend.size() != n || step.center.size() != n || step.square.size() != n || step.shift.size() != n ||
        step.next_square.size() != step.next_center.size() ||
        (!step.next_center.empty() && step.next_center.size() != n))
        throw std::invalid_argument("step: expected numbers for each feature");
    check_turn(step.matrix, step.blocks, step.order, n);
}

template <class T>
AscentNumbers<T> put(Arena& arena, const PointsStep& step, const AscentStructure& structure) {
    const auto narrowed = [&](const std::vector<double>& v) { return arena.put(std::vector<T>(v.begin(), v.end())); };
    AscentNumbers<T> s{};
    s.bend = narrowed(step.bend);
    s.center = narrowed(step.center);
    s.square = narrowed(step.square);
    s.log_scale = arena.put(&step.log_scale, 1);
    s.order = arena.put(step.order);
    s.tiles = arena.put(structure.tiles);
    s.matrix = arena.put(ascent_matrix<T>(structure, step.blocks, step.matrix));
    s.shift = narrowed(step.shift);
    s.next_center = narrowed(step.next_center);
    s.next_square = narrowed(step.next_square);
    return s;
}

}  // namespace

template <class T>
DevicePoints<T>::DevicePoints(const ArrayView& rows, int64_t count, int features, const T* weights, int device,
                              cudaStream_t stream)
    : device_(device) {
    if (count < 0 || features < 1 || features > 8192) throw std::invalid_argument("x: expected (rows, features)");
    const OnDevice on(device_);
    layout_ = ascent_layout<T>(count, features);
    if (count == 0) return;
    const size_t padded = size_t(layout_.tiles()) * size_t(layout_.tile_rows);
    if (padded > SIZE_MAX / sizeof(double) / size_t(features))
        throw CudaOutOfMemory("device memory: the size overflows");
    take(z_, padded * size_t(features));
    take(log_jacobian_, padded);
    if (weights) take(weights_, padded);
    const StreamOrder::Writing writing(order_, stream);
    check_cuda(cudaMemsetAsync(log_jacobian_.get(), 0, padded * sizeof(double), stream), "log-Jacobians");
    if (weights) {
        check_cuda(cudaMemsetAsync(weights_.get(), 0, padded * sizeof(T), stream), "weights");
        check_cuda(
            cudaMemcpyAsync(weights_.get(), weights, size_t(count) * sizeof(T), cudaMemcpyDeviceToDevice, stream),
            "weights");
    }
    ascent_load(layout_, rows, z_.get(), stream);
}

template <class T>
DevicePoints<T>::~DevicePoints() {
    try {
        const OnDevice on(device_);
        order_.wait_for_all(default_stream);  // memory is freed in the order of this stream
    } catch (const CudaError&) {              // a lost device has no memory to free
    }
}

// Makes a buffer hold at least n values. A buffer that is too small is replaced by a new one, in the order of the
// default stream.
template <class T>
template <class Number>
void DevicePoints<T>::take(DeviceBuffer<Number>& buffer, size_t n) {
    if (buffer.size() >= n) return;
    const StreamOrder::Writing writing(order_, default_stream);
    buffer = DeviceBuffer<Number>(n, default_stream);
}

template <class T>
std::vector<double> DevicePoints<T>::step(const PointsStep& step, cudaStream_t stream) {
    const size_t n = size_t(features());
    check<T>(step, n);
    std::vector<double> sums(step.next_center.size() * ascent_sum_count);
    if (layout_.rows == 0) return sums;
    const AscentStructure structure = ascent_structure(step.blocks);
    const OnDevice on(device_);
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        Arena size(nullptr);
        put<T>(size, step, structure);
        take(numbers_, size.bytes().size());
        Arena arena(numbers_.get());
        AscentNumbers<T> numbers = put<T>(arena, step, structure);
        reserve(structure, !sums.empty());
        const StreamOrder::Writing writing(order_, stream);
        upload(numbers_.get(), arena.bytes(), stream);
        queue(structure, numbers, !sums.empty(), stream);
        if (!sums.empty())
            check_cuda(
                cudaMemcpyAsync(sums.data(), sums_.get(), sums.size() * sizeof(double), cudaMemcpyDeviceToHost, stream),
                "sums to the host");
    }
    if (!sums.empty()) check_cuda(cudaStreamSynchronize(stream), "sums to the host");
    return sums;
}

template <class T>
void DevicePoints<T>::step(const AscentStructure& structure, const AscentNumbers<T>& numbers, bool wants_sums,
                           cudaStream_t stream) {
    const OnDevice on(device_);
    const std::lock_guard<std::mutex> lock(mutex_);
    reserve(structure, wants_sums);
    const StreamOrder::Writing writing(order_, stream);
    queue(structure, numbers, wants_sums, stream);
}

template <class T>
void DevicePoints<T>::reserve(const AscentStructure& structure, bool wants_sums) {
    if (!structure.in_place) take(moved_, z_.size());
    if (!wants_sums) return;
    take(partial_, size_t(layout_.sums()) * size_t(layout_.chunks));
    take(sums_, size_t(layout_.sums()));
}

template <class T>
void DevicePoints<T>::queue(const AscentStructure& structure, const AscentNumbers<T>& numbers, bool wants_sums,
                            cudaStream_t stream) {
    ascent_step(layout_, structure, numbers, z_.get(), structure.in_place ? z_.get() : moved_.get(),
                log_jacobian_.get(), weights_.get(), wants_sums ? partial_.get() : nullptr, stream);
    if (!structure.in_place) z_.swap(moved_);
    if (wants_sums) ascent_sums(partial_.get(), layout_.chunks, layout_.sums(), sums_.get(), stream);
}

template <class T>
void DevicePoints<T>::values(T* out, cudaStream_t stream) {
    const OnDevice on(device_);
    const std::lock_guard<std::mutex> lock(mutex_);
    const StreamOrder::Reading reading(order_, stream);
    ascent_store(layout_, z_.get(), out, stream);
}

template <class T>
void DevicePoints<T>::squares(double* out, cudaStream_t stream) {
    const OnDevice on(device_);
    const std::lock_guard<std::mutex> lock(mutex_);
    const StreamOrder::Reading reading(order_, stream);
    ascent_squares(layout_, z_.get(), out, stream);
}

template <class T>
void DevicePoints<T>::log_jacobian(double* out, cudaStream_t stream) {
    if (layout_.rows == 0) return;
    const OnDevice on(device_);
    const std::lock_guard<std::mutex> lock(mutex_);
    const StreamOrder::Reading reading(order_, stream);
    check_cuda(cudaMemcpyAsync(out, log_jacobian_.get(), size_t(layout_.rows) * sizeof(double),
                               cudaMemcpyDeviceToDevice, stream),
               "log-Jacobians");
}

template class DevicePoints<float>;
template class DevicePoints<double>;

}  // namespace headrace
