// The CUDA device language, and the part of the CUDA runtime that headrace uses, emulated on the host for tests: the
// host compiler compiles the sources of the device, the threads of a block run as fibers, one at a time, and blocks one
// after another. tests/device/test_cuda_emulation.py checks the following properties with planted bugs (planted.cu):
//
// - Threads run in ascending, descending or a shuffled order (emu::schedule), which reveals missing barriers.
// - Shared memory and new and freed device memory hold NaNs, and have exactly the requested bytes, so that
//   AddressSanitizer detects accesses beyond their ends.
// - A barrier or an operation of a warp that not all its threads reach, and a shuffle from a thread that takes no part,
//   is an emu::Error that names block, thread and line.
// - Launches that a device would refuse (sizes of grids, blocks and shared memory) fail with the runtime's error.
// - Features that this project's kernels may not use do not compile: static shared memory, which could not be poisoned,
//   atomics on floating-point numbers, cooperative groups.
#pragma once

#include "device_language.hpp"
#include "runtime.hpp"

#define HR_DYNAMIC_SHARED(T, name) T* const name = reinterpret_cast<T*>(emu::block().shared)
#define HR_LAUNCH(kernel, grid, block, bytes, stream, ...) emu::launch(kernel, grid, block, bytes, stream, __VA_ARGS__)
