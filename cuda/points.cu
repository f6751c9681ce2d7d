#include "points.cuh"

#include <cstring>
#include <stdexcept>

#include "../cpp/blocks.hpp"
#include "kernels/upload.cuh"

namespace headrace {
namespace {

constexpr size_t alignment = 16;

// Arrays of several types one after another, to go to the device at once.
class Parcel {
  public:
    template <class T>
    size_t add(const std::vector<T>& numbers) {
        const size_t at = bytes.size();
        bytes.resize(at + (numbers.size() * sizeof(T) + alignment - 1) / alignment * alignment);
        if (!numbers.empty()) std::memcpy(bytes.data() + at, numbers.data(), numbers.size() * sizeof(T));
        return at;
    }
    template <class T>
    size_t add_narrowed(const std::vector<double>& numbers) {
        return add(std::vector<T>(numbers.begin(), numbers.end()));
    }

    std::vector<unsigned char> bytes;
};

}  // namespace

template <class T>
DevicePoints<T>::DevicePoints(const ArrayView& rows, int64_t count, int features, const T* weights,
                              cudaStream_t stream) {
    if (count < 0 || features < 1 || features > 8192) throw std::invalid_argument("x: expected (rows, features)");
    layout_ = ascent_layout<T>(count, features);
    const size_t padded = size_t(layout_.tiles()) * size_t(layout_.tile_rows);
    if (padded > SIZE_MAX / sizeof(T) / size_t(features)) throw CudaOutOfMemory("device memory: the size overflows");
    z_ = DeviceBuffer<T>(padded * size_t(features), stream);
    log_jacobian_ = DeviceBuffer<double>(padded, stream);
    if (padded == 0) return;
    check_cuda(cudaMemsetAsync(log_jacobian_.get(), 0, padded * sizeof(double), stream), "log-Jacobians");
    if (weights) {
        weights_ = DeviceBuffer<T>(padded, stream);
        check_cuda(cudaMemsetAsync(weights_.get(), 0, padded * sizeof(T), stream), "weights");
        check_cuda(
            cudaMemcpyAsync(weights_.get(), weights, size_t(count) * sizeof(T), cudaMemcpyDeviceToDevice, stream),
            "weights");
    }
    ascent_load(layout_, rows, z_.get(), stream);
}

template <class T>
std::vector<double> DevicePoints<T>::step(const Step& step, cudaStream_t stream) {
    const size_t n = size_t(features());
    const bool wants_sums = !step.next_center.empty();
    if (step.bend.size() != n || step.center.size() != n || step.square.size() != n || step.shift.size() != n ||
        step.order.size() != n || step.next_square.size() != step.next_center.size() ||
        (wants_sums && step.next_center.size() != n))
        throw std::invalid_argument("step: expected numbers for each feature");
    if (!blocks_fit(step.blocks, n, step.matrix.size()))
        throw std::invalid_argument("matrix: expected the numbers of its blocks");
    std::vector<bool> seen(n);
    for (int from : step.order) {
        if (from < 0 || size_t(from) >= n || seen[size_t(from)])
            throw std::invalid_argument("order: expected each feature once");
        seen[size_t(from)] = true;
    }
    if (layout_.rows == 0) return std::vector<double>(wants_sums ? n * ascent_sum_count : 0, 0.0);

    const AscentStructure structure = ascent_structure(step.blocks);
    Parcel parcel;
    const size_t log_scale = parcel.add(std::vector<double>{step.log_scale});
    const size_t bend = parcel.add_narrowed<T>(step.bend), center = parcel.add_narrowed<T>(step.center);
    const size_t square = parcel.add_narrowed<T>(step.square), shift = parcel.add_narrowed<T>(step.shift);
    const size_t next_center = parcel.add_narrowed<T>(step.next_center);
    const size_t next_square = parcel.add_narrowed<T>(step.next_square);
    const size_t order = parcel.add(step.order), tiles = parcel.add(structure.tiles);
    const size_t matrix = parcel.add(ascent_matrix<T>(structure, step.blocks, step.matrix));
    if (numbers_.size() < parcel.bytes.size()) numbers_ = DeviceBuffer<unsigned char>(parcel.bytes.size(), stream);
    upload(numbers_.get(), parcel.bytes, stream);

    const auto at = [this](size_t place) { return reinterpret_cast<const T*>(numbers_.get() + place); };
    AscentNumbers<T> s{};
    s.bend = at(bend);
    s.center = at(center);
    s.square = at(square);
    s.log_scale = reinterpret_cast<const double*>(numbers_.get() + log_scale);
    s.order = reinterpret_cast<const int*>(numbers_.get() + order);
    s.tiles = reinterpret_cast<const AscentTile*>(numbers_.get() + tiles);
    s.matrix = at(matrix);
    s.shift = at(shift);
    s.next_center = at(next_center);
    s.next_square = at(next_square);
    move(structure, s, wants_sums, stream);
    if (!wants_sums) return {};
    std::vector<double> sums(n * ascent_sum_count);
    check_cuda(cudaMemcpyAsync(sums.data(), sums_.get(), sums.size() * sizeof(double), cudaMemcpyDeviceToHost, stream),
               "sums to the host");
    check_cuda(cudaStreamSynchronize(stream), "sums to the host");
    return sums;
}

template <class T>
void DevicePoints<T>::move(const AscentStructure& structure, const AscentNumbers<T>& numbers, bool wants_sums,
                           cudaStream_t stream) {
    if (!structure.in_place && moved_.size() == 0) moved_ = DeviceBuffer<T>(z_.size(), stream);
    const size_t sums = size_t(layout_.sums());
    if (wants_sums && sums_.size() == 0) {
        partial_ = DeviceBuffer<double>(sums * size_t(layout_.chunks), stream);
        sums_ = DeviceBuffer<double>(sums, stream);
    }
    ascent_step(layout_, structure, numbers, z_.get(), structure.in_place ? z_.get() : moved_.get(),
                log_jacobian_.get(), weights_.get(), wants_sums ? partial_.get() : nullptr, stream);
    if (!structure.in_place) z_.swap(moved_);
    if (wants_sums) ascent_sums(partial_.get(), layout_.chunks, int(sums), sums_.get(), stream);
}

template <class T>
void DevicePoints<T>::values(T* out, cudaStream_t stream) const {
    ascent_store(layout_, z_.get(), out, stream);
}

template <class T>
void DevicePoints<T>::log_jacobian(double* out, cudaStream_t stream) const {
    if (layout_.rows == 0) return;
    check_cuda(cudaMemcpyAsync(out, log_jacobian_.get(), size_t(layout_.rows) * sizeof(double),
                               cudaMemcpyDeviceToDevice, stream),
               "log-Jacobians");
}

template class DevicePoints<float>;
template class DevicePoints<double>;

}  // namespace headrace
