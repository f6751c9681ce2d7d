// A panel of a sequential network's levels (host/plan.hpp): what one warp does of it, level by level, when all have
// begun its sums. Lanes are rows and know nothing of each other; what all read, the weights inside of the panel, is
// kept in shared memory, where the team has its parts of sums at other times.
#pragma once

#include "units.cuh"

namespace headrace {
namespace {

// The weights and biases of a panel's stages to shared memory, for a team that waits before and after.
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
        for (int u = team.lane; u < units; u += team.rows) to[4 * units * fours + u] = weights[s.bias + s.begin + u];
    }
}

// n sums, on the lines `sums`, go on from where they were left: over terms [begin, end), of which `begin` is a multiple
// of four and is the first in `kept`, where a unit's weights follow the last one's after whole fours. The order of
// terms is that of sums in one go. Inputs are rounded as in products in TF32.
template <class T, bool in_shared>
__device__ void go_on_with_sums(Products kind, const T* kept, int n, const Lines<T, in_shared>& input, int lane,
                                Terms terms, const Lines<T, in_shared>& sums) {
    constexpr int M = 4;
    const int stride = 4 * fours_of(terms.end - terms.begin);
    if (stride == 0) return;
#pragma unroll 1
    for (int first = 0; first < n; first += M) {
        T total[M];
        int w[M];
#pragma unroll
        for (int m = 0; m < M; ++m) {  // where there are fewer, the last one stands in
            const int unit = smaller(first + m, n - 1);
            total[m] = sums.at(unit, lane);
            w[m] = unit * stride;
        }
        const T* w_at = kept;
        const T* x_at = &input.at(terms.begin, lane);
#pragma unroll 1
        for (int k = terms.begin; k < terms.end; k += 4) {
            T x[4];
#pragma unroll
            for (int i = 0; i < 4; ++i)  // what is not there yet is no number
                x[i] = k + i < terms.end ? x_at[i * line_size<in_shared>] : T(0);
            if (kind == Products::tf32) {
#pragma unroll
                for (int i = 0; i < 4; ++i) x[i] = rounded_to_tf32(x[i]);
            }
#pragma unroll
            for (int m = 0; m < M; ++m) {
                const Four<T> four = load_four(w_at + w[m]);
#pragma unroll
                for (int i = 0; i < 4; ++i) total[m] += four.x[i] * x[i];
            }
            x_at += 4 * line_size<in_shared>;
            w_at += 4;
        }
#pragma unroll
        for (int m = 0; m < M; ++m) sums.at(smaller(first + m, n - 1), lane) = total[m];
    }
}

// The units of a level, phase q, by one warp. A function of its own, as registers of the kernel are short.
template <class T, bool in_shared, bool keeps_units>
HR_APART __device__ void run_level(const DeviceStep<T>& d, const Call<T>& call, Products kind, int q, int lane,
                                   ToldLines<T, in_shared> built, ToldLines<T, in_shared> units,
                                   ToldLines<T, in_shared> slopes, int64_t row) {
    HR_DYNAMIC_SHARED(T, kept);
    const NetworkStep<T>& s = d.step.network;
    TileState<T, in_shared, keeps_units> t{};
    t.built = seen<T, in_shared>(built);
    t.units = seen<T, in_shared>(units);
    t.slopes = seen<T, in_shared>(slopes);
    t.row = row;
    const StagePhase phase = d.plan.phases[q];
    for (int i = phase.stage_begin; i < phase.stage_end; ++i) {
        const Stage stage = d.plan.stages[i];
        prefetch(d.plan.stages + i + 1);
        const Lines<T, in_shared> output =
            t.units.from(stage.value - (stage.is_hidden || keeps_units ? 0 : phase.window));
        const int n = stage.end - stage.begin;
        const T* const own = kept + stage.kept;
        const Lines<T, in_shared> input = lines_of_input(stage.input, t.built, s.input_slot, t.units);
        go_on_with_sums(kind, own, n, input, lane, Terms{stage.from, stage.terms}, output.from(stage.begin));
        const T* const bias = own + 4 * n * fours_of(stage.terms - stage.from);
#pragma unroll 1
        for (int m = 0; m < n; ++m) {
            const int u = stage.begin + m;
            output.at(u, lane) = finished(s, stage, u, output.at(u, lane) + bias[m], call, lane, t);
        }
    }
}

}  // namespace
}  // namespace headrace
