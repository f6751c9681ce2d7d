// Every constant of a launch, with the card on which it was measured to be best. None has been measured yet: each has
// the reason for its choice.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headrace {

constexpr int warp_rows = 32;  // rows of a tile: one for each lane of a warp

// Chains (kernels/chain.cuh). Not measured on a card. Warps that share a tile: with a network, enough to hide the
// latency of its loads and few enough that two tiles fit a multiprocessor; without, as few as have enough to do.
constexpr int network_warps = 8;
constexpr int coordinates_of_warp = 16;  // without a network
constexpr int least_resident_warps = 8;  // warps of a multiprocessor for lines in shared memory
constexpr int sums_at_once = 8;          // sums of a warp: units for each load of an input
constexpr int most_blocks_at_once = 2;   // number of sums, on tensor cores: four would not fit into 128 registers
constexpr int sum_line = warp_rows + 4;  // of a kept sum: 16 bytes more, so that fragments do not conflict in a bank
constexpr int least_terms = 16;          // terms of a sum that is worth a warp of its own
constexpr int rows_ahead = 4;            // rows of a matrix whose loads are in flight together in the backward pass
constexpr int narrow_rows = 8;           // of a narrow tile: 32 bytes of a line of the tape, in one read
constexpr int narrow_warps = warp_rows / narrow_rows;
constexpr int panel_levels = 8;  // the most levels in a panel of a sequential network
constexpr int panel_units = 64;  // of one of them, of all layers: one warp computes them
// Values that a panel keeps in shared memory: where the warps' parts of sums are at other times.
constexpr int panel_numbers = network_warps * sums_at_once * sum_line;
constexpr int window_units = 64;  // units of the last layer that a tile holds at a time: one round of all warps

// The weights' gradient (kernels/gradient.cuh, row_sums.cu). Not measured on a card.
constexpr int sum_units = 64, sum_inputs = 64, sum_threads = 128;
constexpr int sum_blocks = 1024;  // blocks aimed at, by cutting the rows into shares
constexpr int most_shares = 64;
constexpr int tiles_of_sum = 4;  // in the program's own type; these sums are added in float64
#ifdef HR_EMULATE
constexpr long long tape_bytes = 1ll << 20;  // so that tests cover several groups
#else
constexpr long long tape_bytes = 1ll << 29;  // tape of a group of rows in the backward pass
#endif

// Dual ascent (kernels/dual_ascent.hpp). Not measured on a card. Four blocks of 128 threads with 128 registers each fit
// a multiprocessor for up to 16 features.
constexpr int ascent_threads = 128;
constexpr int ascent_lines = 64;         // lines of the affine map's input in shared memory at once; of output, at most
constexpr int ascent_joined = 32;        // small blocks of a matrix are joined up to this number of lines
constexpr int ascent_chunk_rows = 4096;  // the most rows of one partial sum
constexpr int ascent_chunks = 2048;      // target, if chunks do not become longer than that
constexpr int ascent_sum_threads = 256;  // threads that add up the partial sums of one value

// Causal networks over time (kernels/sequences.hpp). Not measured on a card. A tile of positions has lines of 32 inputs
// at a time in shared memory, 4.5 KiB in float32, and the gated values of all channels; a thread has the sums of a unit
// at 8 positions, whose inputs it loads at once.
constexpr int causal_threads = 128;
constexpr int causal_positions = 32, causal_lanes = 8, causal_inputs = 32;
// Steps of streams: a panel is small, because the layers of a step wait for each other, and many blocks hide that.
constexpr int panel_threads = 128, panel_streams = 8, panel_lanes = 4;
constexpr size_t causal_shared_bytes = 48 << 10;  // of values of a block; wider networks have them in device memory
// Bytes of a call's values of layers, or of the streams' states: rows beyond take their turn. A long row is cut into
// parts, each of at least as many warm-ups as this. Steps of a launch, because a card with a screen ends long launches.
#ifdef HR_EMULATE
constexpr int64_t causal_bytes = 1 << 15, least_warm_ups = 1, steps_of_launch = 16;
#else
constexpr int64_t causal_bytes = 1 << 28, least_warm_ups = 16, steps_of_launch = 4096;
#endif

// Adam (kernels/adam.hpp). Not measured on a card.
constexpr int adam_threads = 256;
constexpr int adam_stretch = 8192;  // values whose squares are one partial sum

// Pinned memory for small arrays in transit from the host (host/upload.hpp), before a call waits for them.
#ifdef HR_EMULATE
constexpr size_t most_staged_bytes = size_t(1) << 20;  // so that tests cover a call that waits
#else
constexpr size_t most_staged_bytes = size_t(256) << 20;
#endif

// Couplings and vector maps on row-major arrays (kernels/coupling.cu, vector_rows.cu). Not measured on a card.
// Blocks of a grid, which take more work when they are done: far more than are resident (132 multiprocessors of 16), so
// that the last ones cost little. The emulation has few, so that its blocks do take more.
#ifdef HR_EMULATE
constexpr int64_t most_blocks = 3;
#else
constexpr int64_t most_blocks = 1 << 15;
#endif
// Number of loads of 16 bytes by a thread before its first store to a tile: four would cost 30 registers more.
constexpr int loads_in_flight = 2;
constexpr int direct_threads = 256;  // of a block whose threads take 16 bytes of values each
// Threads of a block that stages parameters, and elements that it stages at a time: a spline of 8 bins takes 11.5 KiB
// in float32, and registers leave room for 8 blocks. Elements are fewer where they would take more than staged_bytes.
constexpr int staged_threads = 128, fewest_staged_threads = 32;
constexpr int staged_bytes = 48 << 10;
// Blocks that the registers of a multiprocessor must suffice for: as many as run without spills.
template <class T>
constexpr int staged_blocks = sizeof(T) == 4 ? 8 : 4;
// For vector maps, and for long rows.
constexpr int row_blocks = 5, long_row_blocks = 4;
// Elements whose log-derivatives a block keeps until it sums their rows, 8 KiB in float32; longer rows are summed piece
// by piece. A smaller number where there would be fewer stretches than two for each resident block.
constexpr int coupling_stretch = 2048;
constexpr int64_t enough_stretches = 2 * 8 * 132;
// Vector maps: a group of a block's lanes takes a row, as few of them as keep the tile of rows within small_tile_bytes
// (14 blocks a multiprocessor), but at most a warp. Rows that do not fit into large_tile_bytes then are read from
// global memory each time.
constexpr int vector_threads = 128;
constexpr int small_tile_bytes = 16 << 10, large_tile_bytes = 48 << 10;
// Blocks that sum rows in the backward pass of shared parameters, 8 on each multiprocessor, and their sums in all: the
// order of sums depends on both.
#ifdef HR_EMULATE
constexpr int64_t row_sum_blocks = 3;
#else
constexpr int64_t row_sum_blocks = 1056;
#endif
constexpr int64_t most_row_sums = 1 << 22;
constexpr int row_sum_threads = 1024;  // threads that add up the blocks' sums, a warp for every 32nd block

}  // namespace headrace
