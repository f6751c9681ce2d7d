// Rows through a program and back, on the device. The run keeps what the way back needs on a tape in global memory, and
// gradients of units go beside their values; then sums over rows, which are products of the tape's lines, give the
// gradient of the weights (row_sums.cu). Included by a source for each type of numbers.
#pragma once

#ifndef HR_NARROW_TILES
#error "HR_NARROW_TILES is to be defined before anything is included"
#endif
#include "gradient.hpp"

#include <algorithm>

#include "../../cpp/steps/ready.hpp"
#include "../include/threads.cuh"
#include "chain.cuh"
#include "density.cuh"

namespace headrace {
namespace {

template <class T>
using TapeLines = Lines<T, false>;

template <class T>
struct Tape {
    const DeviceChain<T>& d;
    TapeLines<T> lines;

    __device__ TapeLines<T> state(int step) const { return lines.from(d.tape.states + int64_t(step) * d.slots()); }
    __device__ TapeLines<T> gradient(int step) const { return lines.from(d.tape.gradients + (step & 1) * d.slots()); }
    // Coordinates before transform i of a run of vector maps, the step `step` of the chain.
    __device__ TapeLines<T> vector_state(int step, int i) const {
        const DeviceStep<T>& s = d.steps[step];
        if (i == 0) return state(step).from(d.chain.context);
        if (i == s.step.vector.transforms) return state(step + 1).from(d.chain.context);
        return lines.from(s.states + int64_t(i - 1) * d.chain.features);
    }
};

// ---- there ----------------------------------------------------------------------------------------------------------

template <class T>
__device__ T record_vectors(const Team& team, const Tape<T>& t, int step, const T* all_ready) {
    const VectorStep<T>& s = t.d.steps[step].step.vector;
    T log_det = 0;
    if (team.warp == 0)
        with_vector_map(s.map, [&]<class Map>() {
            for (int i = 0; i < s.transforms; ++i) {
                const TapeLines<T> given = t.vector_state(step, i), built = t.vector_state(step, i + 1);
                log_det += run_vector_map<Map, is_single<T>>(
                    s.inverse, SharedNumbers<T>{all_ready + s.ready + int64_t(i) * s.n_ready}, t.d.chain.features,
                    s.options, [&](int c) { return given.at(c, team.lane); },
                    [&](int c, T value) { built.at(c, team.lane) = value; });
            }
        });
    return log_det;
}

// One step from its state on the tape to the next; what is summed goes to state.log_det.
template <class T>
__device__ void record_step(const Team& team, const Tape<T>& t, int i, const Call<T>& call,
                            TileState<T, false, true>& state) {
    const DeviceStep<T>& d = t.d.steps[i];
    const int context = t.d.chain.context;
    state.given = t.state(i);
    state.built = t.state(i + 1);
    copy_context(team, context, state.given, state.built);
    team.sync();
    switch (d.step.kind) {
        case StepKind::scale:
            for (int c = team.warp; c < t.d.chain.features; c += team.warps)
                state.built.at(context + c, team.lane) =
                    scaled(d.step.scale, c, state.given.at(context + c, team.lane));
            team.sync();
            break;
        case StepKind::density:
            copy_context(team, t.d.chain.features, state.given.from(context), state.built.from(context));
            team.sync();
            break;
        case StepKind::support:
            state.log_det += run_support(team, d.step.support, state.given, state.built, context, t.d.chain.features);
            team.sync();
            break;
        case StepKind::marginal:
            state.log_det +=
                run_ready_map(team, d.step.marginal.map, context, t.d.chain.features, state.given, state.built);
            team.sync();
            break;
        case StepKind::vector:
            state.log_det += record_vectors(team, t, i, call.ready);
            team.sync();
            break;
        case StepKind::network:
        case StepKind::elementwise:
            state.units = t.lines.from(d.values);
            state.slopes = t.lines.from(d.slopes < 0 ? d.values : d.slopes);
            if (d.step.kind == StepKind::elementwise ||
                !with_positions(d, [&](const auto& c) { run_positions(team, c, d, call, state); }))
                run_network(team, t.d.products, d, call, state);
            break;
        case StepKind::rotation:
            rotate(team, d.step.rotation, d.step.rotation.matrix, context, state.partial, state.given, state.built);
            break;
        case StepKind::move: run_move(team, d.step.move, t.d.chain.features, state); break;
        default:
            with_step(d.step, [&](const auto& s) {
                if constexpr (requires {
                                  run_in_place(team, s, state.given, state.built, context, t.d.chain.features);
                              })
                    state.log_det += run_in_place(team, s, state.given, state.built, context, t.d.chain.features);
            });
            team.sync();
    }
}

// ---- back -----------------------------------------------------------------------------------------------------------

// The gradient of some number by this lane's log-determinant, in the chain's own direction.
template <class T>
__device__ T grad_log_det_of_row(const Team& team, const Call<T>& call, const Cotangent& from, int64_t row, int rows) {
    if (team.lane >= rows) return 0;
    // A row's density falls by the log-determinant of the direction to data.
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

// The vector-Jacobian product of one vector map: given(c), built(c) and grad_built(c) to put_given(c, gradient) and
// put(k, gradient by ready parameter k). `alone`: as that of run_vector_map.
template <class Map, bool alone, class T, class P, class Given, class Built, class GradBuilt, class PutGiven, class Put>
__device__ void vector_map_vjp(bool inverse, const P& p, int features, const MapOptions<T>& options, T grad_log_det,
                               const Given& given, const Built& built, const GradBuilt& grad_built,
                               const PutGiven& put_given, const Put& put) {
    auto sums = Map::reduced(Map::template start<T>(p, features));
    HR_ROLLED_UNLESS(alone)
    for (int c = 0; c < features; ++c)
        Map::reduce(sums, given(c), inverse ? built(c) : given(c), grad_built(c), p, c, features);
    const auto spread = [&](const auto& shared) {
        HR_ROLLED_UNLESS(alone)
        for (int c = 0; c < features; ++c)
            put_given(c, Map::spread(shared, given(c), grad_built(c), p, c, features, put));
    };
    if (inverse) {
        spread(Map::template backward<true>(sums, grad_log_det, p, features, options, put));
    } else {
        spread(Map::template backward<false>(sums, grad_log_det, p, features, options, put));
    }
}

template <class T>
__device__ void backward_vectors(const Team& team, const Tape<T>& t, int step, const T* all_ready, T grad_log_det) {
    if (team.warp != 0) return;
    const DeviceStep<T>& d = t.d.steps[step];
    const VectorStep<T>& s = d.step.vector;
    const TapeLines<T> grad_given = t.gradient(step).from(t.d.chain.context);
    TapeLines<T> grad_built = t.gradient(step + 1).from(t.d.chain.context);
    with_vector_map(s.map, [&]<class Map>() {
        for (int i = s.transforms - 1; i >= 0; --i, grad_built = grad_given) {  // from the second on in place
            const TapeLines<T> given = t.vector_state(step, i), built = t.vector_state(step, i + 1);
            const TapeLines<T> grads = t.lines.from(d.grads + int64_t(i) * s.n_ready);
            vector_map_vjp<Map, is_single<T>>(
                s.inverse, SharedNumbers<T>{all_ready + s.ready + int64_t(i) * s.n_ready}, t.d.chain.features,
                s.options, grad_log_det, [&](int c) { return given.at(c, team.lane); },
                [&](int c) { return built.at(c, team.lane); }, [&](int c) { return grad_built.at(c, team.lane); },
                [&](int c, T g) { grad_given.at(c, team.lane) = g; }, [&](int k, T g) { grads.at(k, team.lane) = g; });
        }
    });
}

// Coordinates whose gradients come first, and the layers that can be done after them.
struct BackPhase {
    int coordinate_begin, coordinate_end, layer_begin, layer_end;
};

// Parameters of the map to their gradients, and the gradients of what is given.
template <class T>
__device__ void backward_map(const Team& team, const Tape<T>& t, int step, const BackPhase& phase, T grad_log_det) {
    const DeviceStep<T>& d = t.d.steps[step];
    const NetworkStep<T>& s = d.step.network;
    const CoordinateMap<T>& map = d.map;
    const TapeLines<T> params = t.lines.from(d.values + d.outputs), grads = t.lines.from(d.grads + d.outputs);
    const TapeLines<T> given = t.state(step), built = t.state(step + 1);
    const TapeLines<T> grad_given = t.gradient(step), grad_built = t.gradient(step + 1);
    const int lane = team.lane;
    if (d.step.kind == StepKind::network && s.vector_map >= 0) {
        if (team.warp != 0) return;
        const TapeLines<T> ready = t.lines.from(d.values + s.ready), grad_ready = t.lines.from(d.grads + s.ready);
        with_vector_map(s.vector_map, [&]<class Map>() {
            vector_map_vjp<Map, false>(
                map.inverse, LineNumbers<T, false>{ready, lane}, map.n, map.options, grad_log_det,
                [&](int c) { return given.at(map.given[c], lane); },
                [&](int c) { return built.at(map.built[c], lane); },
                [&](int c) { return grad_built.at(map.built[c], lane); },
                [&](int c, T g) { grad_given.at(map.given[c], lane) = g; },
                [&](int k, T g) { grad_ready.at(k, lane) = g; });
            Map::template prepare_vjp<T>(LineNumbers<T, false>{params, lane}, LineNumbers<T, false>{grad_ready, lane},
                                         map.n, [&](int k, T g) { grads.at(k, lane) = g; });
        });
        return;
    }
    with_map(map.index, [&]<class Map>() {
        HR_ROLLED
        for (int c = phase.coordinate_begin + team.warp; c < phase.coordinate_end; c += team.warps) {
            const int first = c * map.n_params;
            const MapParams<T, false> param{params.from(first), grads.from(first), lane};
            const auto grad = [&](int k, T g) { grads.at(first + k, lane) = g; };
            const T z = given.at(map.given[c], lane), x = built.at(map.built[c], lane);
            const T g = grad_built.at(map.built[c], lane);
            grad_given.at(map.given[c], lane) =
                run_direction_vjp<Map>(map.inverse, z, x, param, map.options, g, grad_log_det, grad);
        }
    });
}

// The slopes of the first n of N units at their values, which are at line(m).
template <int N, class T, class LineOf>
__device__ void load_slopes(const Tape<T>& t, const DeviceStep<T>& d, const Layer& layer, int n, const LineOf& line,
                            int lane, T (&slope)[N]) {
    if (keeps_slopes(layer)) {
        for_first<N>(n, [&](int m) { slope[m] = t.lines.at(d.slopes + line(m), lane); });
        return;
    }
    T value[N] = {};
    for_first<N>(n, [&](int m) { value[m] = t.lines.at(d.values + line(m), lane); });
    with_activation(layer.activation, [&]<class A>() {
#pragma unroll
        for (int m = 0; m < N; ++m) slope[m] = A::slope(value[m]);
    });
}

// From the gradients by the values of units u, ..., u + N - 1, of which the first n exist, to those by their sums, to
// which another layer added them, by their products, and by what the context gave.
template <int N, class T>
__device__ void finish_gradient(const Tape<T>& t, const DeviceStep<T>& d, const Layer& layer, int u, int n,
                                const T (&by_value)[N], int lane) {
    const TapeLines<T> values = t.lines.from(d.values), grads = t.lines.from(d.grads);
    T slope[N] = {}, g[N];
    load_slopes(t, d, layer, n, [&](int m) { return layer.value + u + m; }, lane, slope);
#pragma unroll
    for (int m = 0; m < N; ++m) {
        g[m] = slope[m] == T(0) ? T(0) : by_value[m] * slope[m];
        if (m < n && layer.added_to && layer.added_to[u + m] >= 0) g[m] += grads.at(layer.added_to[u + m], lane);
        if (m < n) grads.at(layer.sum + u + m, lane) = g[m];
    }
    if (!layer.c) return;
    load_slopes(
        t, d, d.step.network.conditioner.masked.layers[layer.c_layer], n, [&](int m) { return layer.c[u + m]; }, lane,
        slope);
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

// The gradients of the inputs of one layer from those of its units.
template <class T>
__device__ void backward_layer(const Team& team, const Tape<T>& t, int step, const T* weights, const BackLayer& of,
                               int first_column, int end_column, T* partial) {
    const DeviceStep<T>& d = t.d.steps[step];
    const NetworkStep<T>& s = d.step.network;
    const int lane = team.lane;
    const Layer* const layers = s.conditioner.masked.layers;
    const BackOp* const ops = s.conditioner.masked.back_plan.ops;
    const int begin = of.op_begin;
    const Layer& layer = layers[of.layer];
    const TapeLines<T> grads = t.lines.from(d.grads + layer.product);
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
    // Of as many blocks as are taken at once, up to this one.
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
        team, partial, blocks, layer.out, terms,
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

// What passes through a network goes on to its inputs: at first where these are what is given, at last where they are
// what is built.
template <class T>
__device__ void carry_passive(const Team& team, const Tape<T>& t, int step) {
    const NetworkStep<T>& s = t.d.steps[step].step.network;
    const TapeLines<T> grad_given = t.gradient(step), grad_built = t.gradient(step + 1);
    for (int c = team.warp; c < s.n_passive; c += team.warps)
        grad_given.at(s.passive_given[c], team.lane) = grad_built.at(s.passive_built[c], team.lane);
    copy_context(team, t.d.chain.context, grad_built, grad_given);
    team.sync();
}

// A conditioner that has no stages, and its map.
template <class C, class T>
__device__ void backward_positions(const Team& team, const C& c, const Tape<T>& t, int step, const Call<T>& call,
                                   T grad_log_det) {
    const DeviceStep<T>& d = t.d.steps[step];
    const NetworkStep<T>& s = d.step.network;
    const int read = s.reads_built ? step + 1 : step;
    const KnownBack<T> known{s,
                             call,
                             call.weights + s.weights,
                             t.state(read).from(s.input_slot),
                             t.gradient(read).from(s.input_slot),
                             t.lines.from(d.values),
                             t.lines.from(d.grads)};
    if (!s.reads_built) carry_passive(team, t, step);
    const int n = positions(c, s.map.n), span = span_of(s, n);
    for (int to = n; to > 0; to -= span) {
        const int from = to - span;
        backward_map(team, t, step, BackPhase{first_coordinate(c, from), first_coordinate(c, to), 0, 0}, grad_log_det);
        team.sync();
        advance_back(team, c, known, from, to);
        team.sync();
    }
    if (s.reads_built) carry_passive(team, t, step);
}

template <class T>
__device__ void backward_network(const Team& team, const Tape<T>& t, int step, const Call<T>& call, const Back<T>& back,
                                 T grad_log_det, T* partial) {
    const DeviceStep<T>& d = t.d.steps[step];
    const NetworkStep<T>& s = d.step.network;
    const TapeLines<T> grad_given = t.gradient(step), grad_built = t.gradient(step + 1);
    const bool is_network = d.step.kind == StepKind::network;  // or a map alone: one body, as each inlines all maps
    const bool reads_built = is_network && s.reads_built;
    if (!is_network) {
        copy_context(team, t.d.chain.context, grad_built, grad_given);
        team.sync();
    } else if (!reads_built) {
        carry_passive(team, t, step);
    }
    // Columns of the first layer whose gradient anybody wants: context is first.
    const int context = is_network ? t.d.chain.context - s.input_slot : 0;
    const bool wants_coordinates = reads_built || back.input || !d.first_weights;
    const int first_column = back.context ? 0 : context;
    const MaskedNetwork<T>& c = s.conditioner.masked;
    const int positions = is_network ? c.levels : 1, span = reads_built ? 1 : positions;
    for (int to = positions; to > 0; to -= span) {
        const int from = to - span;
        const BackPhase phase =
            is_network ? BackPhase{c.first_coordinate[from], c.first_coordinate[to], d.back.done[to], d.back.done[from]}
                       : BackPhase{0, d.map.n, 0, 0};
        backward_map(team, t, step, phase, grad_log_det);
        team.sync();
        for (int i = phase.layer_begin; i < phase.layer_end; ++i) {
            const BackLayer of = d.back.layers[i];
            backward_layer(team, t, step, call.weights + s.weights, of, first_column,
                           wants_coordinates ? of.inputs : context, partial);
            team.sync();
        }
    }
    if (reads_built) carry_passive(team, t, step);
}

template <class T>
__device__ void backward_step(const Team& team, const Tape<T>& t, int i, const Call<T>& call, const Back<T>& back,
                              T grad_log_det, T* partial) {
    const Step<T>& step = t.d.steps[i].step;
    const int context = t.d.chain.context, features = t.d.chain.features;
    if (step.kind == StepKind::network || step.kind == StepKind::elementwise) {
        const bool is_network = step.kind == StepKind::network;
        if (!is_network || !with_positions(t.d.steps[i], [&](const auto& c) {
                backward_positions(team, c, t, i, call, grad_log_det);
            }))
            backward_network(team, t, i, call, back, grad_log_det, partial);
        return;
    }
    const TapeLines<T> before = t.gradient(i), after = t.gradient(i + 1);
    copy_context(team, context, after, before);
    switch (step.kind) {
        case StepKind::vector: backward_vectors(team, t, i, call.ready, grad_log_det); break;
        case StepKind::rotation:
            rotate(team, step.rotation, step.rotation.transpose, context, partial, after, before);
            break;
        case StepKind::scale:
            for (int c = team.warp; c < features; c += team.warps)
                before.at(context + c, team.lane) = after.at(context + c, team.lane) * T(step.scale.scale[c]);
            break;
        case StepKind::density:
            copy_context(team, features, after.from(context), before.from(context));
            back_density(team, t, i, call, back, grad_log_det);
            break;
        case StepKind::support:
            back_support(team, step.support, t.state(i), after, before, context, features, grad_log_det);
            break;
        case StepKind::marginal:
            back_ready_map(team, step.marginal.map, t.state(i), after, before, context, features, grad_log_det);
            break;
        case StepKind::move:
            for (int c = team.warp; c < features; c += team.warps)
                before.at(step.move.given[c], team.lane) = after.at(step.move.built[c], team.lane);
            break;
        default:
            with_step(step, [&](const auto& s) {
                if constexpr (requires {
                                  back_in_place(team, s, t.state(i), t.state(i + 1), after, before, context, features,
                                                grad_log_det);
                              })
                    back_in_place(team, s, t.state(i), t.state(i + 1), after, before, context, features, grad_log_det);
            });
    }
    team.sync();
}

// Gradients by inputs and context, row by row; a row that is not finite has no gradient.
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

// Tiles of `tile_rows` rows from `first` on there and back. A tape has room for 32 rows, of which a narrow tile has its
// part. It is that of these rows alone where the sums over rows need it, else the block's. `bad` becomes 1 if a row is
// not finite.
template <class T>
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
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int64_t row = first + tile * tile_rows;
        const int rows = int(smaller(int64_t(tile_rows), call.rows - row));
        T* const tape = tapes + (own_tapes ? tile / of_tape : int64_t(blockIdx.x)) * d.tape.lines * warp_rows;
        const Tape<T> t{d, {tape + tile % of_tape * tile_rows}};
        state.given = state.built = t.state(0);
        state.row = row;
        load_tile(team, d, call, row, rows, state);
        for (int i = 0; i < d.chain.n_steps; ++i) record_step(team, t, i, call, state);
        add_store_support(team, d.chain, t.state(d.chain.n_steps), state.log_det);
        mark_overflows(team, d, sums, t.state(d.chain.n_steps), state.log_det);
        team.sync();  // on a narrow tile the base's warps read what others marked
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
            if (back.from.of_log_prob && i == base_state) {  // grad_log_det has the sign of the log-determinant
                add_base_slopes(team, d.chain, call, t.state(i), t.gradient(i),
                                call.inverse ? grad_log_det : -grad_log_det);
                team.sync();
            }
            if (i == 0) break;
            backward_step(team, t, i - 1, call, back, grad_log_det, scratch);
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
    auto* const kernel = there_and_back<T>;
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
    const int64_t group = std::clamp<int64_t>(tape_bytes / (tape * int64_t(sizeof(T))), 1, tiles);  // by sizes alone
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
