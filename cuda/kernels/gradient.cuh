// The run of rows through a program and its backward pass on the device. The run records the inputs of the backward
// pass on a tape in global memory, and gradients of units are stored beside their values; then sums over rows, which
// are products of the tape's lines, give the gradient of the weights (row_sums.cu). One source for each floating type
// includes this file.
#pragma once

#ifndef HR_NARROW_TILES
#error "HR_NARROW_TILES is to be defined before anything is included"
#endif
#include "gradient.hpp"

#include <algorithm>

#include "../../cpp/steps/ready.hpp"
#include "../include/threads.cuh"
#include "chain.cuh"

namespace headrace {
namespace {

// ---- start of a backward pass ---------------------------------------------------------------------------------------

// The gradient of a scalar by the log-determinant of a lane's row, in the direction of the chain.
template <class T>
__device__ T grad_log_det_of_row(const Team& team, const Call<T>& call, const Cotangent& from, int64_t row, int rows) {
    if (team.lane >= rows) return 0;
    // A row's log-density is that of the base minus the log-determinant of the direction to data.
    const double scale = from.row_scale * (from.of_log_prob && !call.inverse ? -1 : 1);
    return T(scale * (from.row.data ? number_at(from.row, row_of(from.row, row + team.lane)) : 1.0));
}

template <class T>
__device__ void start_gradients(const Team& team, const Tape<T>& t, const Cotangent& from, int64_t row, int rows,
                                T grad_log_det) {
    const Chain<T>& chain = t.d.chain;
    const TapeLines<T> gradient = t.gradient(chain.n_steps), z = t.state(chain.n_steps);
    for (int s = team.warp; s < t.d.slots(); s += team.warps) gradient.at(s, team.lane) = 0;
    team.sync();
    if (from.value.data)
        for_tile(team, rows, chain.features, is_by_rows(from.value), [&](int r, int c) {
            double g = number_at(from.value, row_of(from.value, row + r) + c * from.value.column_stride);
            if (chain.store_scale) g *= chain.store_scale[c];
            gradient.at(chain.store_slot[c], r) = T(g);
        });
    team.sync();
    back_from_store_support(team, chain, z, gradient, grad_log_det);
}

// ---- masked networks ------------------------------------------------------------------------------------------------

// Loads the activation's slopes at the values of the first n of N units; the value of unit m is at line(m).
template <int N, class T, class LineOf>
__device__ void load_slopes(const TapeLines<T>& values, const MaskedNetwork<T>& c, const Layer& layer, int n,
                            const LineOf& line, int lane, T (&slope)[N]) {
    if (keeps_slopes(layer)) {
        for_first<N>(n, [&](int m) { slope[m] = values.at(c.slopes + line(m), lane); });
        return;
    }
    T value[N] = {};
    for_first<N>(n, [&](int m) { value[m] = values.at(line(m), lane); });
    with_activation(layer.activation, [&]<class A>() {
#pragma unroll
        for (int m = 0; m < N; ++m) slope[m] = A::slope(value[m]);
    });
}

// Computes, for units u, ..., u + N - 1, of which the first n exist, gradients by the units' sums, by their products
// and by the context's contribution to them, from gradients by the units' values (by_value) and by sums of another
// layer to which the units' sums were added.
template <int N, class T>
__device__ void finish_gradient(const Tape<T>& t, const PlacedStep<NetworkStep<T>>& d, const Layer& layer, int u, int n,
                                const T (&by_value)[N], int lane) {
    const MaskedNetwork<T>& c = d.step.conditioner.masked;
    const TapeLines<T> values = t.lines.from(d.step.tape), grads = t.lines.from(d.part.grads);
    T slope[N] = {}, g[N];
    load_slopes(values, c, layer, n, [&](int m) { return layer.value + u + m; }, lane, slope);
#pragma unroll
    for (int m = 0; m < N; ++m) {
        g[m] = slope[m] == T(0) ? T(0) : by_value[m] * slope[m];
        if (m < n && layer.added_to && layer.added_to[u + m] >= 0) g[m] += grads.at(layer.added_to[u + m], lane);
        if (m < n) grads.at(layer.sum + u + m, lane) = g[m];
    }
    if (!layer.c) return;
    load_slopes(values, c, c.layers[layer.c_layer], n, [&](int m) { return layer.c[u + m]; }, lane, slope);
#pragma unroll
    for (int m = 0; m < N; ++m) {
        if (m >= n) break;
        const int line = layer.c[u + m];
        if (layer.gated) {
            grads.at(layer.product + u + m, lane) = g[m] * values.at(line, lane);
            g[m] *= values.at(layer.product + u + m, lane);
        }
        grads.at(line, lane) = g[m] * slope[m];
    }
}

// Computes gradients by the inputs of one layer from gradients by its units.
template <class T>
__device__ void backward_layer(const Team& team, const Tape<T>& t, int step, const PlacedStep<NetworkStep<T>>& d,
                               const WayBack<T>& way, const BackLayer& of, int first_column, int end_column) {
    const NetworkStep<T>& s = d.step;
    const T* const weights = way.run.call.weights + s.weights;
    const int lane = team.lane;
    const Layer* const layers = s.conditioner.masked.layers;
    const BackOp* const ops = s.conditioner.masked.back_plan.ops;
    const int begin = of.op_begin;
    const Layer& layer = layers[of.layer];
    const TapeLines<T> grads = t.lines.from(d.part.grads + layer.product);
    const TapeLines<T> grad_input = t.gradient(s.reads_built ? step + 1 : step).from(s.input_slot);
    const bool is_first = layer.below < 0;
    const auto is_wanted_op = [&](const BackOp& op) {
        return !is_first || (op.column < end_column && op.column + op.columns > first_column);
    };
    const Products products = t.d.products;
    const bool tensor_cores = std::is_same_v<T, float> && products != Products::exact;
    const int blocks = of.op_end - begin, aligned = tensor_cores ? 16 : 1;
    const Rounds of_whole{1, tensor_cores ? 16 : 8};
    const Rounds rounds = team.is_narrow() ? rounds_of<T>(products, blocks, team) : of_whole;
    // The terms of the blocks that are computed at once, up to `last`.
    const auto terms = [&](int last) {
        Terms all{0, 0};
        for (int b = last / rounds.at_once * rounds.at_once; b <= last; ++b) {
            const BackOp& op = ops[begin + b];
            if (!is_wanted_op(op)) continue;
            const int first = op.row0 / aligned * aligned;
            all = all.end == 0 ? Terms{first, op.row1} : Terms{smaller(all.begin, first), larger(all.end, op.row1)};
        }
        return all;
    };
    for_sums(
        team, way.partial, blocks, layer.out, terms,
        [&](const BlockPart& of_block, Terms part, const PartialSums<T>& sums) {
            const BackOp& op = ops[begin + of_block.block];
            if constexpr (std::is_same_v<T, float>)
                if (rounds.together) {
                    ColumnBlocks columns;
#pragma unroll
                    for (int q = 0; q < narrow_warps; ++q) {
                        const BackOp& one = ops[begin + smaller(of_block.block + q, blocks - 1)];
                        const bool is_taken = q < rounds.at_once && of_block.block + q < blocks && is_wanted_op(one);
                        columns.column[q] = one.column;
                        columns.n[q] = one.columns;
                        columns.rows[q] = is_taken ? Terms{one.row0, one.row1} : Terms{0, 0};
                    }
                    const bool split_factors = products == Products::three_tf32;
                    sum_columns_on_narrow_tile(split_factors, weights, layer.row, columns, grads, part, sums);
                    return;
                }
            sum_input_products(products, weights, layer.row, op.column + of_block.first,
                               smaller(of_block.count, op.columns - of_block.first), grads, op.row0, part, sums);
        },
        [&](int b, int m, T(&total)[finished_at_once]) {
            const BackOp& op = ops[begin + b];
            const int column = op.column + m, n = op.columns - m;
            if (n <= 0) return;
            if (!is_first) return finish_gradient(t, d, layers[layer.below], column, n, total, lane);
            const TapeLines<T> sums = grad_input.from(column);
#pragma unroll
            for (int j = 0; j < finished_at_once; ++j)
                if (j < n && column + j >= first_column && column + j < end_column) sums.at(j, lane) += total[j];
        },
        rounds);
}

// Computes the backward pass of a masked network and its map, level by level or all at once.
template <class T>
__device__ void back_conditioner(const Team& team, const MaskedNetwork<T>& c, const PlacedStep<NetworkStep<T>>& d,
                                 const Tape<T>& t, int i, const WayBack<T>& way) {
    const NetworkStep<T>& s = d.step;
    // The columns of the first layer whose gradient is needed begin with the context.
    const int context = t.d.chain.context - s.input_slot;
    const bool wants_coordinates = s.reads_built || way.back.input || !d.part.first_weights;
    const int first_column = way.back.context ? 0 : context;
    const BackLayerPlan& plan = part_of(d.part, c).back;
    const int span = span_of(s, c.levels);
    for (int to = c.levels; to > 0; to -= span) {
        const int from = to - span;
        settle_back(team, d, t, i, c.outputs, c.first_coordinate[from], c.first_coordinate[to], way.grad_log_det);
        team.sync();
        for (int l = plan.done[to]; l < plan.done[from]; ++l) {
            const BackLayer of = plan.layers[l];
            backward_layer(team, t, i, d, way, of, first_column, wants_coordinates ? of.inputs : context);
            team.sync();
        }
    }
}

// ---- ends of the backward pass, and the run of a tile ---------------------------------------------------------------

// Stores gradients by inputs and context, row by row; a row that is not finite has NaN as gradient.
template <class T>
__device__ void finish_input(const Team& team, const Tape<T>& t, const Call<T>& call, const Back<T>& back, int64_t row,
                             int rows, T grad_log_det, const T* bad_rows) {
    const Chain<T>& chain = t.d.chain;
    const TapeLines<T> gradient = t.gradient(0);
    if (back.input && chain.load_support) {
        back_to_supported_input(team, chain, call, gradient, row, rows, grad_log_det, bad_rows, back.input);
    } else if (back.input)
        for_tile(team, rows, chain.features, true, [&](int r, int c) {
            const double g = gradient.at(chain.load_slot[c], r);
            back.input[(row + r) * chain.features + c] =
                T(chain.load_scale ? g * chain.load_scale[c] : g) + bad_rows[r];
        });
    if (back.context)
        for_tile(team, rows, chain.context, true, [&](int r, int c) {
            const double g = gradient.at(c, r);
            back.context[(row + r) * chain.context + c] =
                T(chain.context_scale ? g * chain.context_scale[c] : g) + bad_rows[r];
        });
}

// Runs tiles of `tile_rows` rows from `first` on, and their backward pass. A tape holds 32 rows, of which a narrow tile
// uses a part. Each tile has a separate tape where sums over rows need it; otherwise each block has one. `bad` becomes
// 1 if a row is not finite.
template <class T, bool all_kinds>
__global__ void __launch_bounds__(network_warps* warp_rows, 1)
    there_and_back(const __grid_constant__ DeviceChain<T> d, const __grid_constant__ Call<T> call,
                   const __grid_constant__ Back<T> back, int64_t first, int64_t tiles, int tile_rows, bool own_tapes,
                   T* tapes, int* bad) {
    HR_DYNAMIC_SHARED(T, scratch);
    const Team team = Team::of_block(tile_rows);
    const int of_tape = warp_rows / tile_rows;
    const WarpSums<T> sums{scratch + team.warps * sums_at_once * sum_line}, bases{sums.p + team.warps * warp_rows};
    TileState<T, false, true> state;
    state.partial = scratch;
    const Run<T> run{d, call, d.products, all_kinds};
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int64_t row = first + tile * tile_rows;
        const int rows = int(smaller(int64_t(tile_rows), call.rows - row));
        T* const tape = tapes + (own_tapes ? tile / of_tape : int64_t(blockIdx.x)) * d.tape.lines * warp_rows;
        const Tape<T> t{d, {tape + tile % of_tape * tile_rows}};
        state.given = state.built = t.state(0);
        state.row = row;
        load_tile(team, d, call, row, rows, state);
        for (int i = 0; i < d.chain.n_steps; ++i) record_any(team, t, i, run, state);
        add_store_support(team, d.chain, t.state(d.chain.n_steps), state.log_det);
        mark_overflows(team, d, sums, t.state(d.chain.n_steps), state.log_det);
        team.sync();  // on a narrow tile, base_density reads coordinates that other warps have made NaN
        sums.put(team, state.log_det);
        const int base_state = call.inverse ? d.chain.n_steps : 0;
        bases.put(team, base_density(team, d, call, t.state(base_state)));
        team.sync();
        store_value(team, d.chain, t.state(d.chain.n_steps), call, row, rows);
        team.sync();
        const T log_det = sums.total(team), log_density = bases.total(team);
        store_sums(team, d, call, row, rows, log_det, log_density);
        const T zero = poison(log_det) + (back.from.of_log_prob ? poison(log_density) : T(0));
        if (team.warp == 0 && team.lane < rows && !(zero == T(0))) *bad = 1;
        team.sync();
        if (team.warp == 0) bases.p[team.lane] = poison(log_det);

        const T grad_log_det = grad_log_det_of_row(team, call, back.from, row, rows);
        start_gradients(team, t, back.from, row, rows, grad_log_det);
        for (int i = d.chain.n_steps;; --i) {
            if (back.from.of_log_prob && i == base_state) {  // log-densities subtract forward log-determinants
                add_base_slopes(team, d.chain, call, t.state(i), t.gradient(i),
                                call.inverse ? grad_log_det : -grad_log_det);
                team.sync();
            }
            if (i == 0) break;
            backward_any(team, t, i - 1, WayBack<T>{run, back, grad_log_det, scratch});
        }
        finish_input(team, t, call, back, row, rows, grad_log_det, bases.p);
        team.sync();
    }
}

}  // namespace

template <class T>
void launch_gradient(const DeviceChain<T>& d, const SumTasks<T>& sums, const Call<T>& call, const Back<T>& back,
                     const uint8_t* is_weight, size_t n_weights, cudaStream_t stream) {
    const int64_t tiles = (call.rows + warp_rows - 1) / warp_rows, tape = d.tape.lines * warp_rows;
    const int tile_rows = d.has_networks ? rows_of_tile(call.rows, device_limits().multiprocessors) : warp_rows;
    const int warps = d.has_networks ? network_warps : 1;
    const int64_t scratch = scratch_numbers(warps * warp_rows / tile_rows);
    const Place place{false, warps, scratch * int64_t(sizeof(T))};
    auto* kernel = there_and_back<T, false>;
    if constexpr (has_own_kernels<T>)
        if (d.has_own_kernel) kernel = there_and_back<T, true>;
    DeviceBuffer<int> bad(1, stream);
    check_cuda(cudaMemsetAsync(bad.get(), 0, sizeof(int), stream), "gradient");
    const auto tiles_of = [&](int64_t rows) { return (rows + tile_rows - 1) / tile_rows; };
    const auto run = [&](int64_t first, int64_t own_tiles, int blocks, bool own_tapes, T* tapes) {
        HR_LAUNCH(kernel, blocks, warps * warp_rows, place.shared_bytes, stream, d, call, back, first, own_tiles,
                  tile_rows, own_tapes, tapes, bad.get());
        check_launch("there_and_back");
    };
    if (!back.weights || sums.count == 0) {
        if (back.weights) check_cuda(cudaMemsetAsync(back.weights, 0, n_weights * sizeof(T), stream), "gradient");
        const int blocks = resident_blocks(kernel, place, tiles_of(call.rows));
        const DeviceBuffer<T> tapes(size_t(blocks) * size_t(tape), stream);
        run(0, tiles_of(call.rows), blocks, false, tapes.get());
        return;
    }
    const int64_t group = std::clamp<int64_t>(tape_bytes / (tape * int64_t(sizeof(T))), 1, tiles);  // by sizes only
    const DeviceBuffer<T> tapes(size_t(group * tape), stream);
    RowSums<T> row_sums(sums, d.products, group, stream);
    const WeightGradient<T> out{back.weights, is_weight, int64_t(n_weights), bad.get()};
    for (int64_t begin = 0; begin < tiles; begin += group) {
        const int64_t first = begin * warp_rows, rows = call.rows - first, n = std::min(group, tiles - begin);
        const int64_t own_tiles = tiles_of(std::min(n * warp_rows, rows));
        run(first, own_tiles, resident_blocks(kernel, place, own_tiles), true, tapes.get());
        row_sums.add({tapes.get(), d.tape.lines, n, rows}, out);
    }
    row_sums.finish(d, call.weights, out);
}

}  // namespace headrace
