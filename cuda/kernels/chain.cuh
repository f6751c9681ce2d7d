// The run of a tile of rows through a whole program on the device: load (or draw) rows, compute every step, store
// results. A run on the CPU, by cpp/kernels/chain-inl.hpp, has the same steps, but divides the work among threads
// differently.
#pragma once

#include <type_traits>

#include "../../cpp/steps/density_draw.hpp"
#include "levels.cuh"
#include "steps.cuh"

namespace headrace {
namespace {

// ---- masked networks ------------------------------------------------------------------------------------------------

// Runs the stages of a phase of a network, one after another; stages that begin a panel do not wait for each other.
// Products need all registers, so that data that products do not use are read again afterwards.
template <class T, bool in_shared, bool keeps_units>
__device__ void run_stages(const Team& team, Products products, const PlacedStep<NetworkStep<T>>& d,
                           const Call<T>& call, int q, const TileState<T, in_shared, keeps_units>& t) {
    const NetworkStep<T>& s = d.step;
    const DevicePart<MaskedNetwork<T>>& own = d.part.conditioner.masked;
    for (int i = own.plan.phases[q].stage_begin; i < own.plan.phases[q].stage_end; ++i) {
        Stage stage = own.plan.stages[i];
        prefetch(own.plan.stages + i + 1);
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
        // In a network that is also run level by level, exact sums have one order of terms in both directions.
        rounds.has_shares = is_whole && (products != Products::exact || !own.has_levels);
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
                stage = own.plan.stages[i];
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
            rounds, [&](int b, int m, T(&total)[finished_at_once]) {  // a unit's line has the begun sum
                const Lines<T, in_shared> begun = output().from(first(b) + m);
                for_first<finished_at_once>(count(b) - m, [&](int j) { total[j] = begun.at(j, team.lane); });
            });
        if (stage.part == StagePart::whole) team.sync();
    }
}

// Runs a masked network and its map, phase by phase.
template <class T, bool in_shared, bool keeps_units>
__device__ void run_conditioner(const Team& team, const MaskedNetwork<T>& c, const PlacedStep<NetworkStep<T>>& d,
                                const Run<T>& run, TileState<T, in_shared, keeps_units>& t) {
    const StagePlan& plan = part_of(d.part, c).plan;
    if (keeps_units) t.slopes = t.units.from(c.slopes < 0 ? 0 : c.slopes);
    StagePhase phase{};
    LevelEnds next{};                   // ends of the panel's next level
    const Stage* next_stage = nullptr;  // first stage of the panel's next level
    int levels = 0;                     // number of remaining levels of the panel
    for (int q = 0; levels > 0 || q < plan.n_phases; ++q) {
        if (levels > 0) {
            const int n = next.stage - phase.stage_end;
            phase.coordinate_begin = phase.coordinate_end;
            phase.coordinate_end = next.coordinate;
            phase.stage_end = next.stage;
            next = run_level<T, in_shared, keeps_units>(d, run.call, run.products, q, next_stage, n, team.lane,
                                                        address_of(t.built), address_of(t.units),
                                                        address_of(keeps_units ? t.slopes : t.units), t.row);
            next_stage += n;
            --levels;
        } else {
            run_stages(team, run.products, d, run.call, q, t);
            forget_loads();
            phase = plan.phases[q];
            next = {};  // reset, so that `next` takes no registers during run_stages
            next_stage = nullptr;
            levels = 0;
        }
        bool is_waited = levels == 0;
        if (phase.panel_end > 0) {
            team.sync();  // warps may still read partial sums in the buffer
            keep_weights(team, run.products, plan.stages, phase.stage_end, phase.panel_end,
                         run.call.weights + d.step.weights, t.partial);
            team.sync();
            is_waited = team.warp != 0;  // other warps wait until the first warp is at the panel's last level
            if (is_waited) {
                q += phase.levels;
            } else {
                levels = phase.levels;
                next = ends_of(plan.phases[q + 1]);
                next_stage = plan.stages + phase.stage_end;
                phase.panel_end = 0;
                phase.is_level = true;
            }
        } else {
            settle(team, d, t.units.from(c.outputs - (keeps_units ? 0 : phase.window)),
                   {phase.coordinate_begin, phase.coordinate_end, phase.is_level}, t);
        }
        if (is_waited) team.sync();
    }
}

// ---- in and out -----------------------------------------------------------------------------------------------------

// A warp's share of the base's log-density of the lane's row.
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

// Draws the random values of columns [first, first + 4) of a row.
template <class T>
__device__ Columns<T> drawn_columns(const Chain<T>& chain, const Call<T>& call, uint64_t row, int first) {
    const uint32_t low = uint32_t(row), high = uint32_t(row >> 32), block = uint32_t(first / 4);
    if (!chain.density) return base_columns<T>(call.base == Base::logistic, call.seed, low, high, block);
    const int count = smaller(4, chain.features - first);
    int slot_of[4] = {};
    for (int i = 0; i < count; ++i) slot_of[i] = chain.load_slot[first + i] - chain.context;
    return density_columns<T>(*chain.density, call.ready, chain.features, slot_of, count, call.seed, low, high, block);
}

// Loads context and coordinates, or a sample, to t.given; a row that is not finite becomes NaN, and so does its
// log-determinant.
template <class T, bool in_shared, bool keeps_units>
__device__ void load_tile(const Team& team, const DeviceChain<T>& d, const Call<T>& call, int64_t row, int rows,
                          TileState<T, in_shared, keeps_units>& t) {
    const Chain<T>& chain = d.chain;
    t.log_det = 0;
    if (rows < team.rows)  // lanes behind the last row have zeros, which are finite
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

// Where a coordinate or the log-determinant of a row is not finite at the end of the chain, makes all coordinates of
// the row and each warp's share of `log_det` NaN.
template <class T, bool in_shared>
__device__ void mark_overflows(const Team& team, const DeviceChain<T>& d, const WarpSums<T>& sums,
                               const Lines<T, in_shared>& z, T& log_det) {
    T bad = poison(log_det);
    for (int s = d.chain.context + team.warp; s < d.slots(); s += team.warps) bad += poison(z.at(s, team.lane));
    sums.put(team, bad);
    team.sync();
    bad = sums.total(team);
    team.sync();  // the buffer is used again afterwards
    if (bad == T(0)) return;
    log_det = bad;
    for (int s = d.chain.context + team.warp; s < d.slots(); s += team.warps) z.at(s, team.lane) = bad;
}

// Stores the row's log-determinant and log-density from the shares of warps.
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

// Copies coordinates of rows [row, row + rows) from lines to an array of all rows.
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
