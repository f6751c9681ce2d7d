#include "upload.hpp"

#include <algorithm>
#include <cstring>

#include "../include/launch.cuh"

namespace headrace {
namespace {

constexpr int piece_words = 960;  // the arguments of a kernel have 4096 bytes wherever it runs

struct Piece {
    uint32_t word[piece_words];
};

__global__ void put(Piece piece, uint32_t* to, int words) {
    for (int i = int(threadIdx.x); i < words; i += int(blockDim.x)) to[i] = piece.word[i];
}

}  // namespace

void upload_bytes(void* to, const void* from, size_t bytes, cudaStream_t stream) {
    if (bytes == 0) return;
    if (bytes > size_t(most_upload) || bytes % sizeof(uint32_t) != 0) {
        check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "copy to the device");
        check_cuda(cudaStreamSynchronize(stream), "copy to the device");  // whose source may now go
        return;
    }
    for (size_t done = 0; done < bytes; done += sizeof(Piece)) {
        Piece piece;
        const size_t size = std::min(sizeof(Piece), bytes - done);
        std::memcpy(&piece, static_cast<const char*>(from) + done, size);
        HR_LAUNCH(put, dim3(1), dim3(upload_threads), 0, stream, piece,
                  reinterpret_cast<uint32_t*>(static_cast<char*>(to) + done), int(size / sizeof(uint32_t)));
        check_launch("upload");
    }
}

}  // namespace headrace
