// The part of the CUDA runtime that headrace uses. Every call does its work at once. A log records calls and their
// streams, so that tests can check the order of calls, and whether the host waits.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>

#include "fibers.hpp"
#include "ptx/host.hpp"

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchTimeout = 702,
    cudaErrorAssert = 710,
    cudaErrorHardwareStackError = 714,
    cudaErrorIllegalInstruction = 715,
    cudaErrorMisalignedAddress = 716,
    cudaErrorInvalidAddressSpace = 717,
    cudaErrorInvalidPc = 718,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureImplicit = 906,
};
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
    cudaDevAttrMaxSharedMemoryPerBlock = 8,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrL2CacheSize = 38,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
    cudaDevAttrMemoryPoolsSupported = 115
};
enum { cudaEventDisableTiming = 2 };
struct cudaDeviceProp {
    char name[256];
};
using cudaStream_t = struct emu_stream*;
using cudaEvent_t = struct emu_event*;
struct emu_event {};

namespace emu {

struct Call {
    const char* name;
    cudaStream_t stream;
};

struct Runtime {
    std::mutex mutex, launches;
    std::map<void*, size_t> memory;
    std::deque<std::pair<void*, size_t>> freed;  // oldest first; empty under AddressSanitizer, which keeps freed memory
                                                 // itself
    size_t freed_bytes = 0;
    std::map<void*, size_t> pinned;            // pinned memory of the host
    std::map<const void*, int> shared_limits;  // limits of shared memory by kernel
    std::deque<Call> log;
    cudaError_t last_error = cudaSuccess;
    int devices = 1, device = 0, architecture = 90, multiprocessors = 4, driver = 13000, allocations_until_failure = 0,
        failures = 1;
    cudaError_t lost = cudaSuccess;  // result of every later call of the process
    std::string built_for = "host";  // architectures for which the module has code
    bool has_pools = true;
    bool is_busy = false;    // if true, copies finish only at a synchronisation
    uintptr_t captured = 0;  // stream from which a graph is captured; 0: none
    size_t trims = 0;        // number of times that the pool freed its unused memory
};

inline Runtime& runtime() {
    static Runtime only;
    return only;
}

using Lock = std::lock_guard<std::mutex>;

constexpr size_t most_calls = 1 << 16, most_freed_bytes = size_t(64) << 20;
constexpr int shared_bytes_unasked = 48 * 1024;

inline int most_shared_bytes() {
    return runtime().architecture >= 90 ? 227 * 1024 : 163 * 1024;
}

inline void record(const char* name, cudaStream_t stream) {
    runtime().log.push_back({name, stream});
    if (runtime().log.size() > most_calls) runtime().log.pop_front();
}

inline cudaError_t result(cudaError_t error) {
    if (error != cudaSuccess) runtime().last_error = error;
    return error;
}

// Allocates exactly `bytes` bytes, whose bits are all ones: NaNs.
inline void* allocate(size_t bytes, size_t alignment) {
    void* p = nullptr;
    if (posix_memalign(&p, alignment, bytes) != 0) return nullptr;
    std::memset(p, 0xff, bytes);
    return p;
}

// Keeps freed memory for a while, filled with NaNs, so that kernels that still read the memory get NaNs.
inline void retire(void* p, size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
    std::free(p);
    (void)bytes;
#else
    Runtime& r = runtime();
    std::memset(p, 0xff, bytes);
    r.freed.emplace_back(p, bytes);
    r.freed_bytes += bytes;
    while (r.freed_bytes > most_freed_bytes) {
        std::free(r.freed.front().first);
        r.freed_bytes -= r.freed.front().second;
        r.freed.pop_front();
    }
#endif
}

inline cudaError_t check_sizes(const void* kernel, dim3 grid, dim3 block, size_t bytes) {
    const uint64_t threads = uint64_t(block.x) * block.y * block.z;
    if (threads == 0 || threads > most_threads || block.z > 64) return cudaErrorInvalidConfiguration;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535)
        return cudaErrorInvalidConfiguration;
    const auto limit = runtime().shared_limits.find(kernel);
    const int most = limit == runtime().shared_limits.end() ? shared_bytes_unasked : limit->second;
    return bytes > size_t(most) ? cudaErrorInvalidValue : cudaSuccess;
}

// Launches a kernel. The arguments, of at most 4096 bytes, become the kernel's parameters by value.
template <class... P>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t bytes, cudaStream_t stream,
            std::type_identity_t<P>... arguments) {
    static_assert((std::is_trivially_copyable_v<P> && ...) && (sizeof(P) + ... + 0) <= 4096);
    {
        const Lock lock(runtime().mutex);
        record("launch", stream);
        if (result(check_sizes(reinterpret_cast<const void*>(kernel), grid, block, bytes)) != cudaSuccess) return;
    }
    const Lock lock(runtime().launches);  // the emulation runs one launch at a time
    const void* const address = reinterpret_cast<const void*>(kernel);
    try {
        if (ptx::interprets(address)) {
            ptx::launch(address, {{grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, bytes, emu::block().schedule},
                        {{static_cast<const void*>(&arguments), sizeof(P)}...});
            return;
        }
    } catch (const ptx::Error& error) {
        throw Error(error.what());
    }
    const std::unique_ptr<void, decltype(&std::free)> shared(bytes ? allocate(bytes, 16) : nullptr, &std::free);
    run(grid, block, shared.get(), bytes, [&] { kernel(arguments...); });
}

}  // namespace emu

// ---- errors ------------------------------------------------------------------------------------------------------

inline cudaError_t cudaGetLastError() {
    const emu::Lock lock(emu::runtime().mutex);
    if (emu::runtime().lost != cudaSuccess) return emu::runtime().lost;
    return std::exchange(emu::runtime().last_error, cudaSuccess);
}
inline const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "no error";
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorMemoryAllocation: return "out of memory";
        case cudaErrorInvalidConfiguration: return "invalid configuration argument";
        case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
        case cudaErrorNotReady: return "device not ready";
        case cudaErrorStreamCaptureImplicit: return "operation would make the legacy stream depend on a capturing one";
        case cudaErrorNoDevice: return "no CUDA-capable device is detected";
        case cudaErrorInvalidDevice: return "invalid device ordinal";
        case cudaErrorInvalidResourceHandle: return "invalid resource handle";
        case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
        case cudaErrorAssert: return "device-side assert triggered";
        case cudaErrorLaunchFailure: return "unspecified launch failure";
        default: break;
    }
    return "unrecognized error code";
}

// ---- devices -----------------------------------------------------------------------------------------------------

inline cudaError_t cudaGetDeviceCount(int* n) {
    *n = emu::runtime().devices;
    if (emu::runtime().driver < 13000) return emu::result(cudaErrorInsufficientDriver);
    return emu::result(*n > 0 ? cudaSuccess : cudaErrorNoDevice);
}
inline cudaError_t cudaGetDevice(int* device) {
    *device = emu::runtime().device;
    return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= emu::runtime().devices) return emu::result(cudaErrorInvalidDevice);
    emu::runtime().device = device;
    return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    if (device < 0 || device >= emu::runtime().devices) return emu::result(cudaErrorInvalidDevice);
    std::strcpy(properties->name, "emulation");
    return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    const int architecture = emu::runtime().architecture;
    switch (attribute) {
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = emu::shared_bytes_unasked; break;
        case cudaDevAttrMultiProcessorCount: *value = emu::runtime().multiprocessors; break;
        case cudaDevAttrL2CacheSize: *value = (architecture >= 90 ? 50 : 40) << 20; break;
        case cudaDevAttrComputeCapabilityMajor: *value = architecture / 10; break;
        case cudaDevAttrComputeCapabilityMinor: *value = architecture % 10; break;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = emu::most_shared_bytes() + 1024; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = emu::most_shared_bytes(); break;
        case cudaDevAttrMemoryPoolsSupported: *value = emu::runtime().has_pools; break;
    }
    return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
    *version = emu::runtime().driver;
    return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}
template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute, int value) {
    const emu::Lock lock(emu::runtime().mutex);
    if (value < 0 || value > emu::most_shared_bytes()) return emu::result(cudaErrorInvalidValue);
    emu::runtime().shared_limits[reinterpret_cast<const void*>(kernel)] = value;
    return cudaSuccess;
}

// The number of resident blocks, which shared memory and threads limit, but not registers.
template <class... P>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*kernel)(P...), int threads,
                                                          size_t bytes) {
    const emu::Lock lock(emu::runtime().mutex);
    const cudaError_t error =
        emu::check_sizes(reinterpret_cast<const void*>(kernel), dim3(), dim3(unsigned(threads)), bytes);
    if (error != cudaSuccess) return emu::result(error);
    *blocks = int(std::min(size_t(2048 / threads), (emu::most_shared_bytes() + 1024) / (bytes + 1024)));
    return cudaSuccess;
}

// ---- memory ------------------------------------------------------------------------------------------------------

template <class T>
cudaError_t cudaMallocAsync(T** p, size_t bytes, cudaStream_t stream) {
    emu::Runtime& r = emu::runtime();
    const emu::Lock lock(r.mutex);
    emu::record("cudaMallocAsync", stream);
    if (r.lost != cudaSuccess) return r.lost;
    if (r.allocations_until_failure > 0 && --r.allocations_until_failure == 0) {
        r.allocations_until_failure = --r.failures > 0 ? 1 : 0;
        return emu::result(cudaErrorMemoryAllocation);
    }
    void* const got = emu::allocate(bytes, 256);
    if (!got) return emu::result(cudaErrorMemoryAllocation);
    r.memory[got] = bytes;
    ptx::memory_taken(got, bytes);
    *p = static_cast<T*>(got);
    return cudaSuccess;
}
// The emulation has one pool for all devices, and no model of the unused memory that a pool keeps.
using cudaMemPool_t = int*;
enum { cudaMemAllocationTypePinned = 1, cudaMemLocationTypeDevice = 1, cudaMemPoolAttrReleaseThreshold = 4 };
struct cudaMemPoolProps {
    int allocType;
    struct {
        int type, id;
    } location;
};
inline cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
    *pool = nullptr;
    return cudaSuccess;
}
inline cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, int, void*) {
    return cudaSuccess;
}
inline cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) {
    const emu::Lock lock(emu::runtime().mutex);
    ++emu::runtime().trims;
    return cudaSuccess;
}
template <class T>
cudaError_t cudaMallocFromPoolAsync(T** p, size_t bytes, cudaMemPool_t, cudaStream_t stream) {
    return cudaMallocAsync(p, bytes, stream);
}
inline cudaError_t cudaFreeAsync(void* p, cudaStream_t stream) {
    emu::Runtime& r = emu::runtime();
    const emu::Lock lock(r.mutex);
    emu::record("cudaFreeAsync", stream);
    const auto found = r.memory.find(p);
    if (found == r.memory.end()) return emu::result(cudaErrorInvalidValue);
    ptx::memory_freed(p);
    emu::retire(p, found->second);
    r.memory.erase(found);
    return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    const emu::Lock lock(emu::runtime().mutex);
    const char* name = kind == cudaMemcpyDeviceToHost ? "copy to host" : "copy";
    if (kind == cudaMemcpyHostToDevice) {  // copies from memory that is not pinned may make the host wait
        const auto after = emu::runtime().pinned.upper_bound(const_cast<void*>(from));
        const auto* const piece = after == emu::runtime().pinned.begin() ? nullptr : &*std::prev(after);
        const bool is_pinned =
            piece && static_cast<const char*>(from) + bytes <= static_cast<const char*>(piece->first) + piece->second;
        name = is_pinned ? "copy to device" : "pageable copy to device";
    }
    emu::record(name, stream);
    if (bytes == 0) return cudaSuccess;
    if (to == nullptr || from == nullptr) return cudaErrorInvalidValue;
    std::memcpy(to, from, bytes);
    ptx::memory_written(to, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
    const emu::Lock lock(emu::runtime().mutex);
    emu::record("cudaMemsetAsync", stream);
    if (bytes > 0) std::memset(p, value, bytes);
    ptx::memory_written(p, bytes);
    return cudaSuccess;
}

inline cudaError_t cudaMallocHost(void** p, size_t bytes) {
    const emu::Lock lock(emu::runtime().mutex);
    void* const got = emu::allocate(bytes, 256);
    if (!got) return emu::result(cudaErrorMemoryAllocation);
    emu::runtime().pinned[got] = bytes;
    *p = got;
    return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* p) {
    const emu::Lock lock(emu::runtime().mutex);
    if (emu::runtime().pinned.erase(p) == 0) return emu::result(cudaErrorInvalidValue);
    std::free(p);
    return cudaSuccess;
}

// ---- streams and events ------------------------------------------------------------------------------------------

constexpr uintptr_t emu_per_thread = 2;
#define cudaStreamPerThread reinterpret_cast<cudaStream_t>(emu_per_thread)
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    const emu::Lock lock(emu::runtime().mutex);
    emu::record("cudaStreamSynchronize", stream);
    return emu::runtime().lost;
}
inline cudaError_t cudaDeviceSynchronize() {
    const emu::Lock lock(emu::runtime().mutex);
    emu::record("cudaDeviceSynchronize", nullptr);
    return emu::runtime().lost;
}
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };
inline cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    const emu::Lock lock(emu::runtime().mutex);
    const uintptr_t captured = emu::runtime().captured;
    if (captured != 0 && stream == nullptr) return emu::result(cudaErrorStreamCaptureImplicit);
    *status = captured != 0 && captured == reinterpret_cast<uintptr_t>(stream) ? cudaStreamCaptureStatusActive
                                                                               : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = new emu_event;
    return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t stream) {
    const emu::Lock lock(emu::runtime().mutex);
    emu::record("cudaEventRecord", stream);
    return cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t, unsigned = 0) {
    const emu::Lock lock(emu::runtime().mutex);
    emu::record("cudaStreamWaitEvent", stream);
    return cudaSuccess;
}
inline cudaError_t cudaEventQuery(cudaEvent_t) {
    const emu::Lock lock(emu::runtime().mutex);
    return emu::runtime().is_busy ? emu::result(cudaErrorNotReady) : cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) {
    const emu::Lock lock(emu::runtime().mutex);
    emu::record("cudaEventSynchronize", nullptr);
    return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
