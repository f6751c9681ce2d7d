// Functions that the emulation of CUDA calls: launches of kernels by their address on the host, and changes of memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "error.hpp"

namespace ptx {

struct Geometry {
    uint32_t grid[3], threads[3];
    size_t shared_bytes;
    int order;  // order of threads, as for emu::schedule
};
using Arguments = std::vector<std::pair<const void*, size_t>>;

// Whether a kernel is interpreted, which requires that HEADRACE_EMU_PTX names a folder with PTX of the sources of this
// build. A kernel of the project without PTX is an error; a kernel of the tests without PTX runs on the host.
bool interprets(const void* kernel);
// Interprets a launch. Throws Error with all findings, except known ones.
void launch(const void* kernel, const Geometry& geometry, const Arguments& arguments);

void memory_taken(const void* p, size_t bytes);
void memory_freed(const void* p);
void memory_written(const void* p, size_t bytes);
void array_seen(const void* p, size_t bytes);  // notes an array of the caller

}  // namespace ptx
