// The kernel of runs without a backward pass, and its launch. One source for each floating type includes this file.
#pragma once

#include "chain.cuh"
#include "run.hpp"

namespace headrace {
namespace {

// The number of tiles for which the registers of a multiprocessor must suffice. With lines in shared memory, the number
// of tiles is two (of eight warps) for kernels with products, which need most registers, and three (or as many warps in
// smaller tiles) for others. With lines in global memory, the number of tiles is one, because warps that wait for the
// L2 cache should not also wait for spilled registers.
template <bool in_shared, bool products>
constexpr int tiles_of_multiprocessor = in_shared ? (products ? 2 : 3) : 1;

// Runs tiles of rows, block after block. Lines are in shared memory, behind the scratch, or in the block's part of a
// workspace in global memory. With lines in shared memory, products are either exact or on `tensor_cores`, because a
// kernel with both would spill registers. With `all_kinds` the kernel includes conditioners that need a separate
// kernel.
template <class T, bool in_shared, bool products, bool tensor_cores, bool all_kinds = false>
__global__ void __launch_bounds__(network_warps* warp_rows, tiles_of_multiprocessor<in_shared, products>)
    run_chain(const __grid_constant__ DeviceChain<T> d, const __grid_constant__ Call<T> call, int tiles, T* workspace) {
    HR_DYNAMIC_SHARED(T, scratch);
    const Team team = Team::of_block();
    const WarpSums<T> sums{scratch + team.warps * sums_at_once * sum_line}, bases{sums.p + team.warps * warp_rows};
    TileState<T, in_shared, false> t;
    t.partial = scratch;
    t.slopes = {nullptr};
    const Products split = d.products == Products::three_tf32 ? Products::three_tf32 : Products::tf32;
    const Products kind = !in_shared ? d.products : tensor_cores ? split : Products::exact;
    for (int tile = int(blockIdx.x); tile < tiles; tile += int(gridDim.x)) {  // 32 bits, because registers are scarce
        const Lines<T, in_shared> lines{in_shared ? scratch + scratch_numbers(forgotten(team.warps))
                                                  : workspace + blockIdx.x * d.run_lines() * warp_rows};
        // A separate variable, because with a direct assignment the compiler could not identify the memory of later
        // loads.
        const Lines<T, in_shared> other = d.in_place ? lines : lines.from(d.slots());
        t.given = lines;
        t.built = other;
        t.units = other.from(d.slots());
        const auto rows_of = [&](int64_t row) { return int(smaller(int64_t(warp_rows), call.rows - row)); };
        {
            const int64_t row = int64_t(tile) * warp_rows;
            load_tile(Team::of_block_anew(), d, call, row, rows_of(row), t);
        }
        bases.put(team, call.log_prob && !call.inverse ? base_density(team, d, call, t.given) : T(0));
        for (int s = 0; s < d.chain.n_steps; ++s)
            if (!run_any<products>(team, Run<T>{d, call, kind, all_kinds}, d.steps[s], t)) {
                const Lines<T, in_shared> given = t.given;
                t.given = t.built;
                t.built = given;
            }
        const Team again = Team::of_block_anew();
        add_store_support(again, d.chain, t.given, t.log_det);
        mark_overflows(again, d, sums, t.given, t.log_det);
        if (call.log_prob && call.inverse) bases.put(again, base_density(again, d, call, t.given));
        sums.put(again, t.log_det);
        team.sync();
        const int64_t row = int64_t(forgotten(tile)) * warp_rows;
        const int rows = rows_of(row);
        store_value(again, d.chain, t.given, call, row, rows);
        team.sync();
        store_sums(again, d, call, row, rows, sums.total(again), bases.total(again));
        team.sync();
    }
}

// The kernel for a chain. All maps share one kernel, because splines take no more registers, and each kernel adds to
// the module's size.
template <class T, bool all_kinds>
auto* kernel_of(const DeviceChain<T>& d, const Place& place) {
    auto* kernel = run_chain<T, false, true, true, all_kinds>;
    if constexpr (has_shared_tiles<T>)
        if (place.in_shared) {
            kernel = d.has_products ? run_chain<T, true, true, false, all_kinds> : run_chain<T, true, false, false>;
            if (d.has_products && d.products != Products::exact) kernel = run_chain<T, true, true, true, all_kinds>;
        }
    return kernel;
}

}  // namespace

template <class T>
void launch_chain(const DeviceChain<T>& d, const Call<T>& call, const Place& place, cudaStream_t stream) {
    const int64_t tiles = (call.rows + warp_rows - 1) / warp_rows;
    if (tiles > INT32_MAX / 2) throw CudaOutOfMemory("rows: more than a call can have on a device");
    auto* kernel = kernel_of<T, false>(d, place);
    if constexpr (has_own_kernels<T>)
        if (d.has_own_kernel) kernel = kernel_of<T, true>(d, place);
    const int blocks = resident_blocks(kernel, place, tiles);
    DeviceBuffer<T> workspace(place.in_shared ? 0 : size_t(blocks) * size_t(d.run_lines()) * warp_rows, stream);
    HR_LAUNCH(kernel, blocks, place.warps * warp_rows, place.shared_bytes, stream, d, call, int(tiles),
              workspace.get());
    check_launch("run_chain");
}

}  // namespace headrace
