#include "upload.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>

#include "../include/launch.cuh"

namespace headrace {
namespace {

// Pinned memory, and the event after the last copy that was queued from it.
struct Piece {
    char* data;
    size_t size;
    cudaEvent_t copied;

    bool is_free() const {
        const cudaError_t error = cudaEventQuery(copied);
        if (error == cudaErrorNotReady) {
            cudaGetLastError();  // clears the status "not ready", which the next call would report as an error
            return false;
        }
        check_cuda(error, "copy to the device");
        return true;
    }
};

// The blocks of pinned memory of one device, and their events. A copy from memory that is not pinned may wait.
class Staging {
  public:
    void copy(void* to, const void* from, size_t bytes, cudaStream_t stream) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const Piece& piece = piece_of(bytes);
        std::memcpy(piece.data, from, bytes);
        check_cuda(cudaMemcpyAsync(to, piece.data, bytes, cudaMemcpyHostToDevice, stream), "copy to the device");
        check_cuda(cudaEventRecord(piece.copied, stream), "copy to the device");
    }

  private:
    const Piece& piece_of(size_t bytes) {
        const size_t size = std::max(least_piece, std::bit_ceil(bytes));
        for (const Piece& piece : pieces_)
            if (piece.size == size && piece.is_free()) return piece;
        if (bytes_ + size > most_staged_bytes) clear();
        void* data = nullptr;
        check_cuda(cudaMallocHost(&data, size), "pinned memory");
        cudaEvent_t event = nullptr;
        const cudaError_t error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
        if (error != cudaSuccess) cudaFreeHost(data);
        check_cuda(error, "event");
        bytes_ += size;
        return pieces_.emplace_back(Piece{static_cast<char*>(data), size, event});
    }
    // Waits for all copies, and frees the memory.
    void clear() {
        for (const Piece& piece : pieces_) check_cuda(cudaEventSynchronize(piece.copied), "copy to the device");
        for (const Piece& piece : pieces_) {
            cudaEventDestroy(piece.copied);
            cudaFreeHost(piece.data);
        }
        pieces_.clear();
        bytes_ = 0;
    }

    static constexpr size_t least_piece = 4096;
    std::mutex mutex_;
    std::vector<Piece> pieces_;
    size_t bytes_ = 0;
};

Staging& staging_of(int device) {
    static std::mutex mutex;
    static std::map<int, Staging> of_device;  // lives as long as the process
    const std::lock_guard<std::mutex> lock(mutex);
    return of_device[device];
}

}  // namespace

void upload_bytes(void* to, const void* from, size_t bytes, cudaStream_t stream) {
    if (bytes == 0) return;
    int device = 0;
    check_cuda(cudaGetDevice(&device), "current device");
    staging_of(device).copy(to, from, bytes, stream);
}

}  // namespace headrace
