// Transforms of sequences on a device: the counterpart of cpp/core/sequences/transform.hpp. Arrays of a call are on the
// device; work is queued on the caller's stream without a wait.
#pragma once

#include <mutex>
#include <vector>

#include "../../cpp/core/maps.hpp"
#include "../../cpp/core/sequences/convolution.hpp"
#include "../include/memory.cuh"
#include "../kernels/sequences.hpp"
#include "stream_order.hpp"

namespace headrace {

// The arguments of a call. Missing arrays are null; all but `given` are contiguous.
template <class T>
struct SequencesOnDevice {
    const T* weights = nullptr;
    int64_t rows = 0, steps = 0;
    SequenceView given;              // (rows, steps, values)
    const T* context = nullptr;      // (rows, context), or
    bool one_context_row = false;    // (1, context)
    const T* covariates = nullptr;   // (rows, frames, covariates), or
    bool one_covariate_row = false;  // (1, frames, covariates)
    int64_t frames = 0;              // frame f belongs to steps [f hop, (f + 1) hop)
    T* value = nullptr;              // (rows, steps, values)
    T* log_det = nullptr;            // (rows, steps): of the direction of the call
    T* raw = nullptr;                // (rows, steps, outputs) of the network
};

template <class T>
class DeviceCausalTransform {
  public:
    // Waits: the layers' sizes are copied to the device. Throws std::invalid_argument for a map without a kernel on the
    // device.
    DeviceCausalTransform(CausalOptions options, const MapSettings& map, bool reads_data, bool has_level, int device);
    ~DeviceCausalTransform();

    const CausalConvolution& network() const { return network_; }
    int device() const { return device_; }

    // From the side that the network reads, and to it. Bits of a row depend on neither the other rows nor later steps,
    // and outputs of a step are those of the other direction.
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
    StreamOrder order_;  // order of the layers' sizes
};

// See PredictionCallOnDevice; log_gain (columns,) receives the gains' logarithms.
template <class T>
void predict_on(PredictionCallOnDevice<T> call, int device, cudaStream_t stream);

extern template class DeviceCausalTransform<float>;
extern template class DeviceCausalTransform<double>;

}  // namespace headrace
