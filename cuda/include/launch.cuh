// Every constant of a launch, with the reason for its value. No constant has been measured on a card yet.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headrace {

constexpr int warp_rows = 32;  // rows of a tile: one for each lane of a warp

// Constants of chains (kernels/chain.cuh), not measured on a card. In a chain with networks, network_warps warps share
// a tile: enough to hide the latency of loads, and few enough that two tiles fit in a multiprocessor. Without networks
// each warp has coordinates_of_warp coordinates.
constexpr int network_warps = 8;
constexpr int coordinates_of_warp = 16;  // coordinates of a warp without a network
constexpr int least_resident_warps = 8;  // least number of warps on a multiprocessor for which lines are in shared
                                         // memory
constexpr int sums_at_once = 8;          // number of units that a warp sums for each load of an input
constexpr int most_blocks_at_once = 2;   // blocks of sums by tensor cores at once: four would not fit in 128 registers
constexpr int sum_line = warp_rows + 4;  // length of a stored sum: one value a row and four more, so that fragments do
                                         // not conflict in a bank
constexpr int least_terms = 16;          // least number of terms in a warp's share of a sum
constexpr int rows_ahead = 4;            // rows of a matrix whose loads are in flight together in the backward pass
constexpr int narrow_rows = 8;           // rows of a narrow tile: 32 bytes of a line of the tape, in one read
constexpr int narrow_warps = warp_rows / narrow_rows;
constexpr int panel_levels = 8;  // largest number of levels in a panel of a sequential network
constexpr int panel_units = 64;  // largest number of units of a panel in all layers, which one warp computes
// The number of values that a panel keeps in shared memory, in the memory of the warps' partial sums.
constexpr int panel_numbers = network_warps * sums_at_once * sum_line;
constexpr int window_units = 64;  // units of the last layer that a tile holds at a time: one round of all warps

// Constants of the gradient by weights (kernels/gradient.cuh, row_sums.cu), not measured on a card.
constexpr int sum_units = 64, sum_inputs = 64, sum_threads = 128;
constexpr int sum_blocks = 1024;  // approximate number of blocks of threads, from which the number of shares follows
constexpr int most_shares = 64;
constexpr int tiles_of_sum = 4;  // tiles that are summed in the program's type; the results are added in float64
#ifdef HR_EMULATE
constexpr long long tape_bytes = 1ll << 20;  // small, so that tests cover several groups
#else
constexpr long long tape_bytes = 1ll << 29;  // memory of the tape of a group of rows in the backward pass
#endif

// Dual ascent (kernels/dual_ascent.hpp). Not measured on a card. For up to 16 features, four blocks of 128 threads with
// 128 registers for each thread fit in a multiprocessor.
constexpr int ascent_threads = 128;
constexpr int ascent_lines = 64;         // lines of the affine map's input in shared memory at once; and largest number
                                         // of output lines
constexpr int ascent_joined = 32;        // small blocks of a matrix are joined up to this number of lines
constexpr int ascent_chunk_rows = 4096;  // largest number of rows of one partial sum
constexpr int ascent_chunks = 2048;      // approximate number of chunks, unless chunks would be longer than
                                         // ascent_chunk_rows
constexpr int ascent_sum_threads = 256;  // number of threads that add up the partial sums of one value

// Constants of causal networks (kernels/sequences.hpp), not measured on a card. A tile of positions has lines of 32
// inputs at a time in shared memory, 4.5 KiB in float32, and the gated values of all channels. A thread computes the
// sums of a unit at 8 positions, whose inputs it loads at once.
constexpr int causal_threads = 128;
constexpr int causal_positions = 32, causal_lanes = 8, causal_inputs = 32;
// Panels for steps of streams are small, because the layers of a step wait for each other, and many blocks hide these
// waits.
constexpr int panel_threads = 128, panel_streams = 8, panel_lanes = 4;
constexpr size_t causal_shared_bytes = 48 << 10;  // values of a block in shared memory; wider networks have them in
                                                  // device memory
// causal_bytes limits the memory for values of layers of a call, or for states of streams; rows beyond the limit are
// computed afterwards. least_warm_ups is the least length of a part of a long row, in warm-ups. steps_of_launch limits
// launches, because a card with a screen ends long launches.
#ifdef HR_EMULATE
constexpr int64_t causal_bytes = 1 << 15, least_warm_ups = 1, steps_of_launch = 16;
#else
constexpr int64_t causal_bytes = 1 << 28, least_warm_ups = 16, steps_of_launch = 4096;
#endif

// Adam (kernels/adam.hpp). Not measured on a card.
constexpr int adam_threads = 256;
constexpr int adam_stretch = 8192;  // number of values whose squares are added to one partial sum

// The size of pinned memory for small arrays from the host (host/upload.hpp); a call that needs more waits.
#ifdef HR_EMULATE
constexpr size_t most_staged_bytes = size_t(1) << 20;  // small, so that tests cover a call that waits
#else
constexpr size_t most_staged_bytes = size_t(256) << 20;
#endif

// Constants of couplings and vector maps on row-major arrays (kernels/coupling.cu, vector_rows.cu), not measured on a
// card. most_blocks is the largest number of blocks of a grid, each of which takes further work when it has finished:
// far more than are resident (16 on each of 132 multiprocessors), so that the last blocks cost little. The emulation
// has few blocks, so that each takes further work.
#ifdef HR_EMULATE
constexpr int64_t most_blocks = 3;
#else
constexpr int64_t most_blocks = 1 << 15;
#endif
// The number of loads of 16 bytes by a thread before its first store to a tile; four loads would need 30 more
// registers.
constexpr int loads_in_flight = 2;
constexpr int direct_threads = 256;  // threads of a block, each of which takes 16 bytes of values
// The number of threads of a block that stages parameters, and of elements that it stages at a time: a spline of 8 bins
// takes 11.5 KiB in float32, and registers suffice for 8 blocks. Blocks have fewer threads where elements would take
// more than staged_bytes.
constexpr int staged_threads = 128, fewest_staged_threads = 32;
constexpr int staged_bytes = 48 << 10;
// The number of blocks for which the registers of a multiprocessor must suffice, chosen so that registers are not
// spilled.
template <class T>
constexpr int staged_blocks = sizeof(T) == 4 ? 8 : 4;
// The number of resident blocks for vector maps, and for long rows.
constexpr int row_blocks = 5, long_row_blocks = 4;
// The number of elements whose log-derivatives a block keeps until it sums their rows, 8 KiB in float32; longer rows
// are summed piece by piece. Stretches are shorter where there would be fewer than two for each resident block.
constexpr int coupling_stretch = 2048;
constexpr int64_t enough_stretches = 2 * 8 * 132;
// For vector maps, a group of lanes of a block computes a row: as few lanes as keep the tile of rows within
// small_tile_bytes (14 blocks on a multiprocessor), but at most a warp. If the rows of whole warps do not fit in
// large_tile_bytes, they are read from global memory each time.
constexpr int vector_threads = 128;
constexpr int small_tile_bytes = 16 << 10, large_tile_bytes = 48 << 10;
// In the backward pass of shared parameters at most row_sum_blocks blocks sum rows, 8 on each multiprocessor, and all
// blocks together have at most most_row_sums sums. The order of additions depends on both constants.
#ifdef HR_EMULATE
constexpr int64_t row_sum_blocks = 3;
#else
constexpr int64_t row_sum_blocks = 1056;
#endif
constexpr int64_t most_row_sums = 1 << 22;
constexpr int row_sum_threads = 1024;  // threads that add up the sums of blocks: 32 warps, each for every 32nd block

}  // namespace headrace
