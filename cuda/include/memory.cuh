// Device memory that belongs to a stream: taken and given back in its order, so that nothing waits.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "device.cuh"

namespace headrace {

struct CudaError : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct CudaOutOfMemory : CudaError {
    using CudaError::CudaError;
};

// Throws what a call of the CUDA runtime says; `what` names what was tried.
inline void check_cuda(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // a launch that failed is not the next call's fault
    const std::string message = std::string(what) + ": " + cudaGetErrorString(error);
    if (error == cudaErrorMemoryAllocation) throw CudaOutOfMemory(message);
    throw CudaError(message);
}

// After HR_LAUNCH: a launch that could not start.
inline void check_launch(const char* kernel) {
    check_cuda(cudaGetLastError(), kernel);
}

// Makes a device current as long as it lives.
class OnDevice {
  public:
    explicit OnDevice(int device) {
        check_cuda(cudaGetDevice(&before_), "current device");
        if (before_ != device) check_cuda(cudaSetDevice(device), "device");
    }
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;
    ~OnDevice() { cudaSetDevice(before_); }

  private:
    int before_ = 0;
};

// Before HR_LAUNCH: lets a kernel have that much dynamic shared memory, more than the 48 KiB that all have.
template <class Kernel>
void allow_shared(Kernel* kernel, size_t bytes) {
    if (bytes <= size_t(48) << 10) return;
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
               "shared memory of a kernel");
}

template <class T>
class DeviceBuffer {
  public:
    DeviceBuffer() = default;
    DeviceBuffer(size_t n, cudaStream_t stream) : n_(n), stream_(stream) {
        if (n == 0) return;
        if (n > SIZE_MAX / sizeof(T)) throw CudaOutOfMemory("device memory: the size overflows");
        void* p = nullptr;
        const std::string what = "device memory of " + std::to_string(n * sizeof(T)) + " bytes";
        check_cuda(cudaMallocAsync(&p, n * sizeof(T), stream), what.c_str());
        data_ = static_cast<T*>(p);
    }
    DeviceBuffer(const std::vector<T>& host, cudaStream_t stream) : DeviceBuffer(host.size(), stream) {
        if (host.empty()) return;
        // From pageable memory: the call returns once the numbers have been read.
        check_cuda(cudaMemcpyAsync(data_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice, stream),
                   "copy to the device");
    }
    DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
    DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
        DeviceBuffer(std::move(other)).swap(*this);
        return *this;
    }
    ~DeviceBuffer() {
        if (data_) cudaFreeAsync(data_, stream_);
    }
    void swap(DeviceBuffer& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(n_, other.n_);
        std::swap(stream_, other.stream_);
    }

    T* get() const { return data_; }
    size_t size() const { return n_; }

  private:
    T* data_ = nullptr;
    size_t n_ = 0;
    cudaStream_t stream_ = nullptr;
};

}  // namespace headrace
