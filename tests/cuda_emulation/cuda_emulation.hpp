// The CUDA device language and the part of its runtime that headrace uses, on the host: the same sources are compiled
// by the host compiler, a block's threads run as fibers, one at a time, and blocks one after another. For tests;
// tests/device/test_cuda_emulation.py checks these properties with bugs planted on purpose (planted.cu):
//
// - Threads run in ascending, descending or a shuffled order (emu::schedule), so that a missing barrier shows.
// - Shared memory and fresh and freed device memory hold NaNs, and have no byte more than was asked for, so that
//   AddressSanitizer detects accesses beyond.
// - A barrier or a warp's operation that not all of its threads reach, and a shuffle from a thread that takes no part,
//   is an emu::Error that names block, thread and line.
// - Launches that a device would refuse (sizes of grids, blocks and shared memory) fail with the runtime's error.
// - Features that this project's kernels may not use do not compile: static shared memory, which could not be poisoned,
//   atomics on floating-point numbers, cooperative groups.
#pragma once

#include "device_language.hpp"
#include "runtime.hpp"

#define HR_DYNAMIC_SHARED(T, name) T* const name = reinterpret_cast<T*>(emu::block().shared)
#define HR_LAUNCH(kernel, grid, block, bytes, stream, ...) emu::launch(kernel, grid, block, bytes, stream, __VA_ARGS__)
