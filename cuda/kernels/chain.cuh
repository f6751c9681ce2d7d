// A tile of rows through a whole program on the device: load (or draw), every step, store. The counterpart of
// cpp/kernels/chain-inl.hpp, whose steps it takes; only the way in which threads share the work is its own.
#pragma once

#include <type_traits>

#include "../../cpp/math/log_product.hpp"
#include "../../cpp/math/vector_maps.hpp"
#include "../../cpp/steps/density_draw.hpp"

#include "conditioners.cuh"
#include "levels.cuh"
#include "marginal.cuh"
#include "steps.cuh"
#include "support.cuh"

namespace headrace {
namespace {

// ---- networks -------------------------------------------------------------------------------------------------------

// The stages of a phase of a network, one after another; those that begin a panel do not wait for each other. What
// products do not need is read anew behind them: they take all registers.
template <class T, bool in_shared, bool keeps_units>
__device__ void run_stages(const Team& team, Products products, const DeviceStep<T>& d, const Call<T>& call, int q,
                           const TileState<T, in_shared, keeps_units>& t) {
    const NetworkStep<T>& s = d.step.network;
    for (int i = d.plan.phases[q].stage_begin; i < d.plan.phases[q].stage_end; ++i) {
        Stage stage = d.plan.stages[i];
        prefetch(d.plan.stages + i + 1);
        const bool is_whole = stage.part == StagePart::whole;
        const auto output = [&] { return t.units.from(keeps_units ? stage.value : stage.output); };
        const int blocks = (stage.end - stage.begin + sums_at_once - 1) / sums_at_once;
        const auto count = [&](int b) { return smaller(sums_at_once, stage.end - stage.begin - b * sums_at_once); };
        const auto first = [&](int b) { return stage.begin + b * sums_at_once; };
        const auto terms = [&](int b) {
            const bool is_last = b + 1 == blocks || stage.part != StagePart::whole;
            return Terms{0, is_last ? stage.terms : stage.visible[first(b) + sums_at_once - 1]};
        };
        Rounds rounds = rounds_of<T>(products, blocks, team);
        // A network that is run level by level, too, has one order of terms for that.
        rounds.has_shares = is_whole && (products != Products::exact || !d.has_levels);
        rounds.taken = stage.taken;
        for_sums(
            team, t.partial, blocks, stage.terms, terms,
            [&](const BlockPart& of, Terms part, const PartialSums<T>& partial) {
                const int b = of.block, begin = first(b) + of.first;
                const Lines<T, in_shared> input = stage.input < 0
                                                      ? (s.reads_built ? t.built : t.given).from(s.input_slot)
                                                      : t.units.from(stage.input);
                BlockEnds ends;
#pragma unroll
                for (int j = 0; j < narrow_warps; ++j)
                    ends.of[j] = rounds.at_once > 1 ? terms(smaller(b + j, blocks - 1)).end : part.end;
                sum_unit_products(products, rounds, call.weights + s.weights, stage.row + begin,
                                  smaller(of.count, stage.end - begin), input, part, ends, partial,
                                  output().from(begin + sums_at_once));
                forget_loads();
                stage = d.plan.stages[i];
            },
            [&](int b, int m, T(&total)[finished_at_once]) {
                const int n = count(b) - m, u = first(b) + m;
                if (n <= 0) return;
                if (stage.part == StagePart::whole) {
                    const Four<T> bias = load_first(call.weights + s.weights + stage.bias, u, n);
#pragma unroll
                    for (int j = 0; j < finished_at_once; ++j) total[j] += bias.x[j];
                    finish(s, stage, u, n, total, call, team.lane, t);
                }
                const Lines<T, in_shared> values = output().from(u);
                for_first<finished_at_once>(n, [&](int j) { values.at(j, team.lane) = total[j]; });
            },
            rounds, [&](int b, int m, T(&total)[finished_at_once]) {  // a unit's sum is where its value will be
                const Lines<T, in_shared> begun = output().from(first(b) + m);
                for_first<finished_at_once>(count(b) - m, [&](int j) { total[j] = begun.at(j, team.lane); });
            });
        if (stage.part == StagePart::whole) team.sync();
    }
}

// Numbers of a row on the lines of a tile, as a vector map reads them; a thread has no second vector of rows.
template <class T, bool in_shared>
struct LineNumbers {
    Lines<T, in_shared> lines;
    int lane;
    __device__ T operator()(int k, int = 0) const { return lines.at(k, lane); }
};
template <class T>
struct SharedNumbers {
    const T* p;
    __device__ T operator()(int k, int = 0) const { return p[k]; }
};

// One vector map from given(c) to put(c, value) for all coordinates c. `alone`: it is all that is done to a row, and
// waits for its loads.
template <class Map, bool alone, class T, class P, class Given, class Put>
__device__ T run_vector_map(bool inverse, const P& p, int features, const MapOptions<T>& options, const Given& given,
                            const Put& put) {
    T sum[1] = {Map::template start<T>(p, features)}, amount[1], factor[1][Map::factors];
    HR_ROLLED_UNLESS(alone)
    for (int c = 0; c < features; ++c) sum[0] = Map::accumulate(sum[0], given(c), p, c, features);
    if (inverse) {
        Map::inverse(sum, p, features, options, amount, factor);
    } else {
        Map::forward(sum, p, features, options, amount, factor);
    }
    HR_ROLLED_UNLESS(alone)
    for (int c = 0; c < features; ++c) put(c, Map::move(given(c), amount[0], p, c, features));
    T total = 0;
    for (int f = 0; f < Map::factors; ++f) total = fma(log(factor[0][f]), T(Map::power(f, features)), total);
    return inverse ? -total : total;
}

// A vector map whose raw parameters are a network's outputs: a row is one lane's work.
template <class T, bool in_shared, bool keeps_units>
__device__ void run_network_vector_map(const Team& team, const NetworkStep<T>& s, const Lines<T, in_shared>& params,
                                       const Lines<T, in_shared>& ready, TileState<T, in_shared, keeps_units>& t) {
    if (team.warp != 0) return;
    with_vector_map(s.vector_map, [&]<class Map>() {
        Map::template prepare<T>(LineNumbers<T, in_shared>{params, team.lane}, s.map.n,
                                 [&](int k, T value) { ready.at(k, team.lane) = value; });
        t.log_det += run_vector_map<Map, false>(
            s.map.inverse, LineNumbers<T, in_shared>{ready, team.lane}, s.map.n, s.map.options,
            [&](int c) { return t.given.at(s.map.given[c], team.lane); },
            [&](int c, T value) { t.built.at(s.map.built[c], team.lane) = value; });
    });
}

// What passes through.
template <class T, bool in_shared, bool keeps_units>
__device__ void copy_passive(const Team& team, const NetworkStep<T>& s, const TileState<T, in_shared, keeps_units>& t) {
    for (int c = team.warp; c < s.n_passive; c += team.warps)
        t.built.at(s.passive_built[c], team.lane) = t.given.at(s.passive_given[c], team.lane);
}

// A conditioner that has no stages, and its map: all positions at once, or one after another.
template <class C, class T, bool in_shared, bool keeps_units>
__device__ void run_positions(const Team& team, const C& c, const DeviceStep<T>& d, const Call<T>& call,
                              TileState<T, in_shared, keeps_units>& t) {
    const NetworkStep<T>& s = d.step.network;
    copy_passive(team, s, t);
    const Known<T, in_shared> known{
        s,       call,       call.weights + s.weights, (s.reads_built ? t.built : t.given).from(s.input_slot),
        t.units, keeps_units};
    const int n = positions(c, s.map.n), span = span_of(s, n);
    for (int from = 0; from < n; from += span) {
        const int to = from + span;
        advance(team, c, known, from, to);
        team.sync();
        StagePhase phase{};
        phase.coordinate_begin = first_coordinate(c, from);
        phase.coordinate_end = first_coordinate(c, to);
        phase.window = d.outputs - parameters(c, from, keeps_units);
        run_map(team, d, phase, t);
        team.sync();
    }
}

// A network and its map. Where units are kept this also is an elementwise map, on raw parameters that every row then
// has of its own: one body for both, as each inlines all maps.
template <class T, bool in_shared, bool keeps_units>
__device__ void run_network(const Team& team, Products products, const DeviceStep<T>& d, const Call<T>& call,
                            TileState<T, in_shared, keeps_units>& t) {
    const NetworkStep<T>& s = d.step.network;
    const bool is_network = !keeps_units || d.step.kind == StepKind::network;
    if (is_network) {
        copy_passive(team, s, t);
    } else {
        const T* const raw = call.weights + d.step.elementwise.weights;
        for (int k = team.warp; k < d.map.n * d.map.n_params; k += team.warps) t.units.at(k, team.lane) = raw[k];
        team.sync();
    }
    StagePhase phase{};
    LevelEnds next{};                   // of the panel's next level
    const Stage* next_stage = nullptr;  // and its first stage
    int levels = 0;                     // so many are left of the panel
    for (int q = 0; levels > 0 || q < d.plan.n_phases; ++q) {
        if (levels > 0) {
            const int n = next.stage - phase.stage_end;
            phase.coordinate_begin = phase.coordinate_end;
            phase.coordinate_end = next.coordinate;
            phase.stage_end = next.stage;
            next = run_level<T, in_shared, keeps_units>(d, call, products, q, next_stage, n, team.lane, told(t.built),
                                                        told(t.units), told(keeps_units ? t.slopes : t.units), t.row);
            next_stage += n;
            --levels;
        } else {
            if (is_network) run_stages(team, products, d, call, q, t);
            forget_loads();
            phase = d.plan.phases[q];
            next = {};  // no register of theirs is needed by the stages before
            next_stage = nullptr;
            levels = 0;
        }
        bool is_waited = levels == 0;
        if (phase.panel_end > 0) {
            team.sync();  // the room is that of sums that were begun
            keep_weights(team, products, d.plan.stages, phase.stage_end, phase.panel_end, call.weights + s.weights,
                         t.partial);
            team.sync();
            is_waited = team.warp != 0;  // by others, until the first one is at the last of the panel's levels
            if (is_waited) {
                q += phase.levels;
            } else {
                levels = phase.levels;
                next = ends_of(d.plan.phases[q + 1]);
                next_stage = d.plan.stages + phase.stage_end;
                phase.panel_end = 0;
                phase.is_level = true;
            }
        } else if (!phase.is_level && is_network && s.vector_map >= 0) {
            run_network_vector_map(team, s, t.units.from(d.outputs - (keeps_units ? 0 : phase.window)),
                                   t.units.from(s.ready), t);
        } else {
            run_map(team, d, phase, t);
        }
        if (is_waited) team.sync();
    }
}

// ---- steps with parameters that all rows share ----------------------------------------------------------------------

// A run of vector maps, in place: while one moves a coordinate, the next adds it to its sum. A row is one lane's work.
template <class T, bool in_shared, bool keeps_units>
__device__ void run_vectors(const Team& team, const VectorStep<T>& s, const T* all_ready, int context, int features,
                            TileState<T, in_shared, keeps_units>& t) {
    if (team.warp != 0) return;
    with_vector_map(s.map, [&]<class Map>() {
        constexpr int factors = Map::factors;
        const T* ready = all_ready + s.ready;
        LogProduct<T> product[factors];
        T sum[1] = {Map::template start<T>(SharedNumbers<T>{ready}, features)};
        HR_ROLLED
        for (int c = 0; c < features; ++c)
            sum[0] = Map::accumulate(sum[0], t.given.at(context + c, team.lane), SharedNumbers<T>{ready}, c, features);
        for (int k = 0; k < s.transforms; ++k) {
            const SharedNumbers<T> p{ready + int64_t(k) * s.n_ready},
                next{p.p + (k + 1 < s.transforms ? s.n_ready : 0)};
            T amount[1], factor[1][factors];
            if (s.inverse) {
                Map::inverse(sum, p, features, s.options, amount, factor);
            } else {
                Map::forward(sum, p, features, s.options, amount, factor);
            }
            for (int f = 0; f < factors; ++f) {
                product[f].mantissa *= factor[0][f];
                product[f].rescale();
            }
            sum[0] = Map::template start<T>(next, features);
            HR_ROLLED
            for (int c = 0; c < features; ++c) {
                T& value = t.given.at(context + c, team.lane);
                value = Map::move(value, amount[0], p, c, features);
                sum[0] = Map::accumulate(sum[0], value, next, c, features);
            }
        }
        T total = 0;
        for (int f = 0; f < factors; ++f) total = fma(product[f].log(), T(Map::power(f, features)), total);
        t.log_det += s.inverse ? -total : total;
    });
}

// Coordinates times a matrix of the step, block by block.
template <class T, bool in_shared>
__device__ void rotate(const Team& team, const RotationStep<T>& s, const T* matrix, int context, T* partial,
                       const Lines<T, in_shared>& given, const Lines<T, in_shared>& built) {
    for (int i = 0; i < s.blocks; ++i) {
        const int begin = s.first[i], size = s.first[i + 1] - begin;
        const auto count = [&](int b) { return smaller(sums_at_once, size - b * sums_at_once); };
        for_sums(
            team, partial, (size + sums_at_once - 1) / sums_at_once, size, [&](int) { return Terms{0, size}; },
            [&](const BlockPart& of, Terms part, const PartialSums<T>& sums) {
                sum_row_products(matrix, s.row + begin + of.block * sums_at_once + of.first,
                                 smaller(of.count, count(of.block) - of.first), given.from(context + begin), part,
                                 sums);
            },
            [&](int b, int m, T(&total)[finished_at_once]) {
                const Lines<T, in_shared> values = built.from(context + begin + b * sums_at_once + m);
                for_first<finished_at_once>(count(b) - m, [&](int j) { values.at(j, team.lane) = total[j]; });
            });
        team.sync();
    }
}

template <class T, bool in_shared, bool keeps_units>
__device__ void run_move(const Team& team, const MoveStep<T>& s, int features,
                         const TileState<T, in_shared, keeps_units>& t) {
    for (int c = team.warp; c < features; c += team.warps)
        t.built.at(s.built[c], team.lane) = t.given.at(s.given[c], team.lane);
    team.sync();
}

// ---- in and out -----------------------------------------------------------------------------------------------------

// This warp's share of the base's log-density of its lane's row.
template <class T, bool in_shared>
__device__ T base_density(const Team& team, const DeviceChain<T>& d, const Call<T>& call,
                          const Lines<T, in_shared>& z) {
    const Base base = call.base;
    if (d.chain.density) {
        if (team.warp != 0) return 0;
        return log_density<T>(*d.chain.density, call.ready, d.chain.features,
                              [&](int s) { return z.at(d.chain.context + s, team.lane); });
    }
    T sum = 0;
    for (int s = d.chain.context + team.first_of_sum(); s < d.slots(); s += team.sum_warps())
        sum += base_log_density(base, z.at(s, team.lane));
    return sum;
}

// Columns [first, first + 4) of a row.
template <class T>
__device__ Columns<T> drawn_columns(const Chain<T>& chain, const Call<T>& call, uint64_t row, int first) {
    const uint32_t low = uint32_t(row), high = uint32_t(row >> 32), block = uint32_t(first / 4);
    if (!chain.density) return base_columns<T>(call.base == Base::logistic, call.seed, low, high, block);
    const int count = smaller(4, chain.features - first);
    int slot_of[4] = {};
    for (int i = 0; i < count; ++i) slot_of[i] = chain.load_slot[first + i] - chain.context;
    return density_columns<T>(*chain.density, call.ready, chain.features, slot_of, count, call.seed, low, high, block);
}

// Coordinates, or numbers drawn, and context to t.given; a row that is not finite becomes NaN, its log-determinant too.
template <class T, bool in_shared, bool keeps_units>
__device__ void load_tile(const Team& team, const DeviceChain<T>& d, const Call<T>& call, int64_t row, int rows,
                          TileState<T, in_shared, keeps_units>& t) {
    const Chain<T>& chain = d.chain;
    t.log_det = 0;
    if (rows < team.rows)  // lanes past the last row are finite
        for (int s = team.warp; s < d.slots(); s += team.warps) t.given.at(s, team.lane) = 0;
    team.sync();
    if (call.input.data && chain.load_support) {
        load_supported(team, chain, call, row, rows, t.given, t.log_det);
    } else if (call.input.data) {
        load_columns(team, call.input, chain.features, chain.load_slot, chain.load_shift, chain.load_scale, row, rows,
                     t.given);
    } else {
        const uint64_t drawn = uint64_t(call.first_row) + uint64_t(row) + uint64_t(team.lane);
        for (int c = 4 * team.warp; c < chain.features; c += 4 * team.warps) {
            const Columns<T> z = drawn_columns(chain, call, drawn, c);
            for (int k = 0; k < 4 && c + k < chain.features; ++k)
                t.given.at(chain.load_slot[c + k], team.lane) = z.column[k];
        }
    }
    if (chain.context > 0)
        load_columns(team, call.context, chain.context, static_cast<const int*>(nullptr), chain.context_shift,
                     chain.context_scale, row, rows, t.given);
    team.sync();
    for (int s = team.warp; s < d.slots(); s += team.warps) {
        T& x = t.given.at(s, team.lane);
        const T zero = poison(x);
        t.log_det += zero;
        if (!(zero == T(0))) x = zero;
        if (s < chain.context) t.built.at(s, team.lane) = x;
    }
    team.sync();
}

// One step from t.given to t.built. True if it worked in place, and t.given is the result. Without `products` there are
// neither networks nor rotations; `kind` is that of networks.
template <bool products, class T, bool in_shared, bool keeps_units>
__device__ bool run_step(const Team& team, Products kind, const DeviceChain<T>& d, const DeviceStep<T>& step,
                         const Call<T>& call, TileState<T, in_shared, keeps_units>& t) {
    const int context = d.chain.context, features = d.chain.features;
    switch (step.step.kind) {
        case StepKind::network:
            if constexpr (products)
                if (!with_positions(step, [&](const auto& c) { run_positions(team, c, step, call, t); }))
                    run_network(team, kind, step, call, t);
            return false;
        case StepKind::rotation:
            if constexpr (products)
                rotate(team, step.step.rotation, step.step.rotation.matrix, context, t.partial, t.given, t.built);
            return false;
        case StepKind::move: run_move(team, step.step.move, features, t); return false;
        case StepKind::scale:
            for (int c = team.warp; c < features; c += team.warps) {
                T& value = t.given.at(context + c, team.lane);
                value = scaled(step.step.scale, c, value);
            }
            break;
        case StepKind::density: return true;
        case StepKind::support:
            t.log_det += run_support(team, step.step.support, t.given, t.given, context, features);
            break;
        case StepKind::elementwise:
        case StepKind::marginal: {
            const ReadyMap<T> map = step.step.kind == StepKind::marginal ? step.step.marginal.map
                                                                         : ready_map(step.step.elementwise, call.ready);
            t.log_det += run_ready_map(team, map, context, features, t.given, t.given);
            break;
        }
        case StepKind::vector: run_vectors(team, step.step.vector, call.ready, context, features, t); break;
        default:
            with_step(step.step, [&](const auto& s) {
                if constexpr (requires { run_in_place(team, s, t.given, t.given, context, features); })
                    t.log_det += run_in_place(team, s, t.given, t.given, context, features);
            });
    }
    team.sync();
    return true;
}

// NaN in each warp's share of `log_det` for a row whose coordinates or log-determinant are not finite at the end of the
// chain, and in all of its coordinates.
template <class T, bool in_shared>
__device__ void mark_overflows(const Team& team, const DeviceChain<T>& d, const WarpSums<T>& sums,
                               const Lines<T, in_shared>& z, T& log_det) {
    T bad = poison(log_det);
    for (int s = d.chain.context + team.warp; s < d.slots(); s += team.warps) bad += poison(z.at(s, team.lane));
    sums.put(team, bad);
    team.sync();
    bad = sums.total(team);
    team.sync();  // the room is used again
    if (bad == T(0)) return;
    log_det = bad;
    for (int s = d.chain.context + team.warp; s < d.slots(); s += team.warps) z.at(s, team.lane) = bad;
}

// The row's log-determinant and log-density, from the warps' shares.
template <class T>
__device__ void store_sums(const Team& team, const DeviceChain<T>& d, const Call<T>& call, int64_t row, int rows,
                           T log_det, T base) {
    if (team.warp != 0 || team.lane >= rows) return;
    const double total = double(log_det) + d.chain.log_det;
    if (call.log_det) call.log_det[row + team.lane] = T(total);
    if (call.log_prob) {
        call.log_prob[row + team.lane] =
            T(double(base) + base_constant(call.base, d.chain.features) + (call.inverse ? total : -total));
        if (call.inverse && d.chain.load_support && total != total &&
            is_row_outside(
                d.chain.load_support, d.chain.features, d.chain.context, call.input.is_double,
                [&](int c) { return element(call.input, row + team.lane, c); },
                [&](int c) { return element(call.context, row + team.lane, c); }))
            call.log_prob[row + team.lane] = -infinity<T>();
    }
}

// Coordinates of rows [row, row + rows) from lines to an array of all rows.
template <class T, class Out, bool in_shared>
__device__ void store_tile(const Team& team, const Chain<T>& chain, const Lines<T, in_shared>& lines, int64_t row,
                           int rows, Out* values) {
    Out* const out = values + row * chain.features;
    const auto value_at = [&](int r, int c) {
        const T value = lines.at(chain.store_slot[c], r);
        if (chain.store_support) {
            const SupportColumn& support = chain.store_support[c];
            return inside<Out>(support, to_support(support, stored(chain, c, value)).value, sizeof(Out) > sizeof(T));
        }
        return chain.store_scale ? Out(stored(chain, c, value)) : Out(value);
    };
    if (reinterpret_cast<uintptr_t>(values) % 16 != 0) {
        for_tile(team, rows, chain.features, true,
                 [&](int r, int c) { out[int64_t(r) * chain.features + c] = value_at(r, c); });
        return;
    }
    for_adjacent_tile(
        team, rows, chain.features,
        [&](int first, const auto& each) {
            Four<Out> numbers;
            each([&](int i, int r, int c) { numbers.x[i] = value_at(r, c); });
            *reinterpret_cast<Four<Out>*>(out + first) = numbers;
        },
        [&](int n, int r, int c) { out[n] = value_at(r, c); });
}

template <class T, bool in_shared>
__device__ void store_value(const Team& team, const Chain<T>& chain, const Lines<T, in_shared>& lines,
                            const Call<T>& call, int64_t row, int rows) {
    if (call.value) store_tile(team, chain, lines, row, rows, call.value);
    if constexpr (sizeof(T) < sizeof(double)) {
        if (call.wide_value) store_tile(team, chain, lines, row, rows, call.wide_value);
    }
}

}  // namespace
}  // namespace headrace
