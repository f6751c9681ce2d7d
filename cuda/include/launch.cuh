// Every constant of a launch, with the card on which it was measured to be best. None was yet: each says what it was
// chosen by.
#pragma once

namespace headrace {

constexpr int warp_rows = 32;  // rows of a tile: one for each lane of a warp

// Chains (kernels/chain.cuh). Not measured on a card. Warps that share a tile: with a network, enough to hide the
// latency of its loads and few enough that two tiles fit a multiprocessor; without, a tile is a warp's own.
constexpr int network_warps = 8, row_warps = 1;
constexpr int sums_at_once = 8;   // of a warp: units for each load of an input
constexpr int least_terms = 16;   // of a sum that is worth a warp of its own
constexpr int window_units = 64;  // units of the last layer that a tile holds at a time: one round of all warps

// The weights' gradient (kernels/gradient.cuh). Not measured on a card.
constexpr int sum_units = 64, sum_inputs = 64, sum_threads = 128;
constexpr int sum_blocks = 1024;  // blocks aimed at, by cutting the rows into shares
constexpr int most_shares = 64;
#ifdef HR_EMULATE
constexpr long long tape_bytes = 1ll << 20;  // so that tests see several groups
#else
constexpr long long tape_bytes = 1ll << 29;  // of a group of rows on the way back
#endif

}  // namespace headrace
