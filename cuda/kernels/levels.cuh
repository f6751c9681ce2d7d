// The part of one warp in a panel of a sequential network's levels (host/plan.hpp), computed level by level after all
// warps have begun the panel's sums. Lanes are independent rows. The weights inside the panel, which all lanes read,
// are kept in shared memory, in the memory of the team's partial sums.
#pragma once

#include "units.cuh"

namespace headrace {
namespace {

// Copies the weights and biases of a panel's stages to shared memory, for a team that waits before and after.
template <class T>
__device__ void keep_weights(const Team& team, Products kind, const Stage* stages, int begin, int end, const T* weights,
                             T* kept) {
    for (int i = begin + team.warp; i < end; i += team.warps) {
        const Stage& s = stages[i];
        const uint32_t* const row = s.row + s.begin;
        const int units = s.end - s.begin, fours = fours_of(s.terms - s.from);
        T* const to = kept + s.kept;
        for (int f = team.lane; f < units * fours; f += team.rows) {
            const int u = f / fours;
            Four<T> four = load_four(weights + row[u] + s.from + 4 * (f - u * fours));
            if (kind == Products::tf32) {
#pragma unroll
                for (int k = 0; k < 4; ++k) four.x[k] = rounded_to_tf32(four.x[k]);
            }
            reinterpret_cast<Four<T>*>(to)[f] = four;
        }
        for (int u = team.lane; u < 4 * fours_of(units); u += team.rows)
            to[4 * units * fours + u] = u < units ? weights[s.bias + s.begin + u] : T(0);
    }
}

// Continues four sums of a panel over terms [begin, end), where `begin` is a multiple of four. Weights of adjacent sums
// are `stride` elements apart. Terms have the order of a sum that is not interrupted. If the network's products are in
// TF32, inputs are rounded to TF32.
constexpr int level_sums = 4;  // number of sums, and of biases of a stage, that are loaded at once

template <class T, bool in_shared>
__device__ __forceinline__ void go_on_with_sums(Products kind, const T* kept, const int (&row)[level_sums],
                                                const Lines<T, in_shared>& input, int lane, Terms terms,
                                                T (&total)[level_sums]) {
    const T* x_at = &input.at(terms.begin, lane);
    const auto add_four = [&](const auto& is_term) {
        T x[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) x[i] = is_term(i) ? x_at[i * line_size<in_shared>] : T(0);
        if (kind == Products::tf32) {
#pragma unroll
            for (int i = 0; i < 4; ++i) x[i] = rounded_to_tf32(x[i]);
        }
#pragma unroll
        for (int m = 0; m < level_sums; ++m) {
            const Four<T> four = load_four(kept + row[m]);
#pragma unroll
            for (int i = 0; i < 4; ++i) total[m] = fma(four.x[i], x[i], total[m]);
        }
        x_at += 4 * line_size<in_shared>;
        kept += 4;
    };
    int k = terms.begin;
#pragma unroll 2
    for (; k + 4 <= terms.end; k += 4) add_four([](int) { return true; });
    if (k < terms.end) add_four([&](int i) { return k + i < terms.end; });  // values not computed yet may be NaN
}

// The stage and the coordinate at which a level ends; the level begins where the previous level ends.
struct LevelEnds {
    int stage, coordinate;
};
__device__ inline LevelEnds ends_of(const StagePhase& phase) {
    return {phase.stage_end, phase.coordinate_end};
}

// Computes the units of a level (phase q, n_stages stages) by one warp. The function is not inlined, because registers
// of the kernel are scarce. Returns the ends of the next phase, which are loaded during the computation, so that no
// warp waits for them.
template <class T, bool in_shared, bool keeps_units>
HR_APART __device__ LevelEnds run_level(const PlacedStep<NetworkStep<T>>& d, const Call<T>& call, Products kind, int q,
                                        const Stage* stages, int n_stages, int lane, LineAddress<T, in_shared> built,
                                        LineAddress<T, in_shared> units, LineAddress<T, in_shared> slopes,
                                        int64_t row) {
    HR_DYNAMIC_SHARED(T, kept);
    const NetworkStep<T>& s = d.step;
    TileState<T, in_shared, keeps_units> t{};
    t.built = lines_at<T, in_shared>(built);
    t.units = lines_at<T, in_shared>(units);
    t.slopes = lines_at<T, in_shared>(slopes);
    t.row = row;
    Stage next = stages[0];
    const LevelEnds ends = ends_of(d.part.conditioner.masked.plan.phases[q + 1]);
    const int slot = s.input_slot;
    for (int i = 0; i < n_stages; ++i) {
        const Stage stage = next;
        next = stages[i + 1];  // read ahead; an additional stage follows the last
        const Lines<T, in_shared> input = lines_of_input(stage.input, t.built, slot, t.units);
        const Lines<T, in_shared> output = t.units.from(keeps_units ? stage.value : stage.output);
        const int n = stage.end - stage.begin, stride = 4 * fours_of(stage.terms - stage.from);
        const T* const own = kept + stage.kept;
#pragma unroll 1
        for (int first = 0; first < n; first += level_sums) {
            // If fewer than level_sums units remain, the weights of the last unit replace those of missing units.
            const int left = n - first;
            const Lines<T, in_shared> values = output.from(stage.begin + first);
            T total[level_sums];
            int weights[level_sums] = {first * stride};
#pragma unroll
            for (int m = 0; m < level_sums; ++m) {
                total[m] = m < left ? values.at(m, lane) : T(0);
                if (m > 0) weights[m] = m < left ? weights[m - 1] + stride : weights[m - 1];
            }
            go_on_with_sums(kind, own, weights, input, lane, Terms{stage.from, stage.terms}, total);
            const Four<T> bias = load_four(own + n * stride + first);
#pragma unroll
            for (int m = 0; m < level_sums; ++m) total[m] += bias.x[m];
            finish(s, stage, stage.begin + first, left, total, call, lane, t);
            for_first<level_sums>(left, [&](int m) { values.at(m, lane) = total[m]; });
        }
    }
    return ends;
}

}  // namespace
}  // namespace headrace
