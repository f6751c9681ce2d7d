// A base density on its way back; one that is a step is one lane's work a row. See cpp/kernels/steps/density-inl.hpp.
#pragma once

#include "tile.cuh"

namespace headrace {
namespace {

// To gradients by coordinates z that of the base's log-density; `by_log_prob` has the sign for it.
template <class T, bool in_shared>
__device__ void add_base_slopes(const Team& team, const Chain<T>& chain, const Call<T>& call,
                                const Lines<T, in_shared>& z, const Lines<T, in_shared>& gradient, T by_log_prob) {
    const int begin = chain.context, end = begin + chain.features;
    if (!chain.density) {
        for (int s = begin + team.warp; s < end; s += team.warps)
            gradient.at(s, team.lane) += base_slope(call.base, z.at(s, team.lane)) * by_log_prob;
    } else if (team.warp == 0) {
        density_slopes<T>(
            *chain.density, call.ready, chain.features, [&](int s) { return z.at(begin + s, team.lane); },
            [&](int s, T slope) { gradient.at(begin + s, team.lane) += slope * by_log_prob; });
    }
}

// The gradient by its parameters, from the tape to the tape.
template <class T, class Tape>
__device__ void back_density(const Team& team, const Tape& t, int step, const Call<T>& call, const Back<T>& back,
                             T grad_log_det) {
    const DensityStep<T>& s = t.d.steps[step].step.density;
    if (s.weights < 0 || team.warp != 0) return;
    const T by_log_prob = !back.from.of_log_prob ? T(0) : call.inverse ? grad_log_det : -grad_log_det;
    const auto z = t.state(step).from(t.d.chain.context), grads = t.lines.from(t.d.steps[step].grads);
    density_by_raw<T>(
        s, call.ready, t.d.chain.features, [&](int slot) { return z.at(slot, team.lane); },
        [&](int k, T slope) { grads.at(k, team.lane) = slope * by_log_prob; });
}

}  // namespace
}  // namespace headrace
