// Transforms of sequences on a device: the counterpart of cpp/core/sequences/transform.hpp. The arrays of a call are on
// the device; work is queued on the caller's stream without a wait.
#pragma once

#include <mutex>
#include <vector>

#include "../../cpp/core/maps.hpp"
#include "../../cpp/core/sequences/convolution.hpp"
#include "../include/memory.cuh"
#include "../kernels/sequences.hpp"
#include "stream_order.hpp"

namespace headrace {

// The arguments of a call. Missing arrays are null; all arrays but `given` are contiguous.
template <class T>
struct SequencesOnDevice {
    const T* weights = nullptr;
    int64_t rows = 0, steps = 0;
    SequenceView given;              // input, (rows, steps, values)
    const T* context = nullptr;      // (rows, context), or (1, context)
    bool one_context_row = false;    // whether the context has one row
    const T* covariates = nullptr;   // (rows, frames, covariates), or (1, frames, covariates)
    bool one_covariate_row = false;  // whether the covariates have one row
    int64_t frames = 0;              // frame f belongs to steps [f hop, (f + 1) hop)
    T* value = nullptr;              // results, (rows, steps, values)
    T* log_det = nullptr;            // log-determinants of the call's direction, (rows, steps)
    T* raw = nullptr;                // outputs of the network, (rows, steps, outputs)
};

template <class T>
class DeviceCausalTransform {
  public:
    // A transform, whose constructor waits until the sizes of layers are copied to the device. Throws
    // std::invalid_argument for a map without a kernel on the device.
    DeviceCausalTransform(CausalOptions options, const MapSettings& map, bool reads_data, bool has_level, int device);
    ~DeviceCausalTransform();

    const CausalConvolution& network() const { return network_; }
    int device() const { return device_; }

    // `parallel` runs from the side that the network reads, `sequential` to that side. Bits of a row depend neither on
    // other rows nor on later steps, and outputs of a step are equal in both directions.
    void parallel(const SequencesOnDevice<T>& call, cudaStream_t stream);
    void sequential(const SequencesOnDevice<T>& call, cudaStream_t stream);

  private:
    struct Room;

    CausalMap<T> map_for(bool in_parallel) const;
    void part(const SequencesOnDevice<T>& call, Room& room, int64_t row, int64_t rows, int64_t begin, int64_t end,
              cudaStream_t stream) const;
    void layers(const SequencesOnDevice<T>& call, Room& room, int64_t row, int64_t rows, int64_t start, int64_t n,
                cudaStream_t stream) const;
    void steps(const SequencesOnDevice<T>& call, int64_t row, int64_t rows, cudaStream_t stream) const;
    void fold(const SequencesOnDevice<T>& call, int l, int64_t row, int64_t rows, T* to, int64_t to_row,
              cudaStream_t stream) const;
    void multiply_frames(const SequencesOnDevice<T>& call, int l, int64_t row, int64_t rows, int64_t first,
                         int64_t frames, T* to, int64_t to_row, int64_t to_step, cudaStream_t stream) const;

    CausalConvolution network_;
    TransformMap map_;
    bool reads_data_, has_level_;
    int device_;
    DeviceBuffer<CausalLayer> layers_;
    std::mutex mutex_;
    StreamOrder order_;  // order of uses of the layers' sizes
};

// Runs a linear prediction (PredictionCallOnDevice); log_gain (columns,) receives the logarithms of the gains.
template <class T>
void predict_on(PredictionCallOnDevice<T> call, int device, cudaStream_t stream);

extern template class DeviceCausalTransform<float>;
extern template class DeviceCausalTransform<double>;

}  // namespace headrace
