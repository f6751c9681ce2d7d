// Device memory that belongs to a stream: it is allocated and freed in the order of the stream, so that no call waits.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
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

// Whether every later call of the process on this device fails, because a kernel has destroyed the context.
inline bool is_context_lost(cudaError_t error) {
    switch (error) {
        case cudaErrorIllegalAddress:
        case cudaErrorLaunchTimeout:
        case cudaErrorAssert:
        case cudaErrorHardwareStackError:
        case cudaErrorIllegalInstruction:
        case cudaErrorMisalignedAddress:
        case cudaErrorInvalidAddressSpace:
        case cudaErrorInvalidPc:
        case cudaErrorLaunchFailure: return true;
        default: return false;
    }
}

// Throws the error of a call of the CUDA runtime; `what` names the attempted operation.
inline void check_cuda(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // clears the error of a failed launch, which the next call would report
    std::string message = std::string(what) + ": " + cudaGetErrorString(error);
    if (is_context_lost(error))
        message += " (error " + std::to_string(int(error)) +
                   ", of a kernel that may be of this or an earlier call, or of another library: CUDA does not work in "
                   "this process any more, start it again)";
    if (error == cudaErrorMemoryAllocation) throw CudaOutOfMemory(message);
    throw CudaError(message);
}

// Throws an error after HR_LAUNCH if the launch could not start.
inline void check_launch(const char* kernel) {
    check_cuda(cudaGetLastError(), kernel);
}

// Makes a device current during its lifetime.
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

// Lets a kernel use all dynamic shared memory that a block of the device may have; called before HR_LAUNCH. The limit
// belongs to the kernel and not to a launch: a smaller limit could fail a launch of the same kernel by another thread.
template <class Kernel>
void allow_shared(Kernel* kernel) {
    int device = 0, most = 0;
    check_cuda(cudaGetDevice(&device), "current device");
    check_cuda(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "shared memory");
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
               "shared memory of a kernel");
}

// The stream in whose order memory that outlives a call is allocated and freed.
constexpr cudaStream_t default_stream = nullptr;

// The size of unused memory that this library's pool of each device keeps. The runtime's default pool would free unused
// memory at every synchronisation, and every call would map it again.
constexpr uint64_t kept_bytes = uint64_t(1) << 30;

inline cudaMemPool_t pool_of(int device) {
    static std::mutex mutex;
    static std::map<int, cudaMemPool_t> pools;  // lives as long as the process
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = pools.find(device);
    if (found != pools.end()) return found->second;
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    cudaMemPool_t pool;
    check_cuda(cudaMemPoolCreate(&pool, &properties), "pool of device memory");
    uint64_t kept = kept_bytes;
    check_cuda(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept), "pool of device memory");
    return pools.emplace(device, pool).first->second;
}

// Frees the unused memory of the current device's pool, after a wait for the device, which may still free memory.
inline void trim_pool() {
    int device = 0;
    check_cuda(cudaGetDevice(&device), "current device");
    check_cuda(cudaDeviceSynchronize(), "wait for the device");
    check_cuda(cudaMemPoolTrimTo(pool_of(device), 0), "pool of device memory");
}

template <class T>
class DeviceBuffer {
  public:
    DeviceBuffer() = default;
    DeviceBuffer(size_t n, cudaStream_t stream) : n_(n), stream_(stream) {
        if (n == 0) return;
        if (n > SIZE_MAX / sizeof(T)) throw CudaOutOfMemory("device memory: the size overflows");
        check_cuda(cudaGetDevice(&device_), "current device");
        void* p = nullptr;
        const std::string what = "device memory of " + std::to_string(n * sizeof(T)) + " bytes";
        check_cuda(cudaMallocFromPoolAsync(&p, n * sizeof(T), pool_of(device_), stream), what.c_str());
        data_ = static_cast<T*>(p);
    }
    // A buffer with values of the host; the constructor waits for the copy.
    DeviceBuffer(const std::vector<T>& host, cudaStream_t stream) : DeviceBuffer(host.size(), stream) {
        if (host.empty()) return;
        check_cuda(cudaMemcpyAsync(data_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice, stream),
                   "copy to the device");
        check_cuda(cudaStreamSynchronize(stream), "copy to the device");  // the source of the copy may be freed
                                                                          // afterwards
    }
    DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
    DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
        DeviceBuffer(std::move(other)).swap(*this);
        return *this;
    }
    ~DeviceBuffer() {
        if (!data_) return;
        int current = device_;  // a stream's address may be valid on every device
        cudaGetDevice(&current);
        if (current != device_) cudaSetDevice(device_);
        cudaFreeAsync(data_, stream_);
        if (current != device_) cudaSetDevice(current);
    }
    void swap(DeviceBuffer& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(n_, other.n_);
        std::swap(stream_, other.stream_);
        std::swap(device_, other.device_);
    }

    T* get() const { return data_; }
    size_t size() const { return n_; }

  private:
    T* data_ = nullptr;
    size_t n_ = 0;
    cudaStream_t stream_ = nullptr;
    int device_ = 0;
};

}  // namespace headrace
