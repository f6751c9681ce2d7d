// The CUDA device language, or in tests its emulation by the host compiler (tests/cuda_emulation). Kernels use two
// macros:
//
// - HR_LAUNCH(kernel, grid, block, bytes of dynamic shared memory, stream, arguments...) launches a kernel.
// - HR_DYNAMIC_SHARED(T, name) declares T* name, the dynamic shared memory of the block, aligned to 16 bytes.
//
// Kernels may use only features that the emulation can check: no static shared memory, no grid barriers, no atomics on
// floating-point numbers, no cooperative groups.
#pragma once

// HR_APART marks a function that is not inlined, so that it has separate registers.
#ifdef HR_EMULATE
#include "cuda_emulation.hpp"
#define HR_APART
#else
#include <cuda_runtime.h>
#define HR_APART __noinline__
#define HR_DYNAMIC_SHARED(T, name)                                     \
    extern __shared__ __align__(16) unsigned char hr_dynamic_shared[]; \
    T* const name = reinterpret_cast<T*>(hr_dynamic_shared)
#define HR_LAUNCH(kernel, grid, block, bytes, stream, ...) kernel<<<(grid), (block), (bytes), (stream)>>>(__VA_ARGS__)
#endif
