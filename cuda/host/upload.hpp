// Copies of small host arrays to a device without waiting for the device.
#pragma once

#include <vector>

#include "../include/memory.cuh"

namespace headrace {

// Copies bytes in the order of the stream; the host's memory may change as soon as the call returns. Data pass through
// pinned memory that is reused. No call waits while at most most_staged_bytes are being copied to the device.
void upload_bytes(void* to, const void* from, size_t bytes, cudaStream_t stream);

template <class T>
void upload(T* to, const std::vector<T>& from, cudaStream_t stream) {
    upload_bytes(to, from.data(), from.size() * sizeof(T), stream);
}

}  // namespace headrace
