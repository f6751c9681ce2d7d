// The backward pass of a base density; one lane computes a row where the base is a step. See
// cpp/kernels/steps/density-inl.hpp.
#pragma once

#include "../tape.cuh"
#include "../units.cuh"

namespace headrace {
namespace {

// Adds the base's gradient to gradients by coordinates z; `by_log_prob` is the gradient by the base's log-density.
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

// Runs the step, which leaves coordinates unchanged.
template <class T, bool in_shared>
__device__ void run_step(const Team&, const PlacedStep<DensityStep<T>>&, const Run<T>&,
                         TileState<T, in_shared, false>&) {}

template <class T>
__device__ void record_step(const Team& team, const PlacedStep<DensityStep<T>>&, const Tape<T>& t, int, const Run<T>&,
                            TileState<T, false, true>& state) {
    const int context = t.d.chain.context;
    copy_context(team, t.d.chain.features, state.given.from(context), state.built.from(context));
    team.sync();
}

// Computes the gradient by the base's parameters, which is stored on the tape.
template <class T>
__device__ void back_density(const Team& team, const DensityStep<T>& s, const Tape<T>& t, int i,
                             const WayBack<T>& way) {
    if (s.weights < 0 || team.warp != 0) return;
    const T by_log_prob = !way.back.from.of_log_prob ? T(0)
                          : way.run.call.inverse     ? way.grad_log_det
                                                     : -way.grad_log_det;
    const auto z = t.state(i).from(t.d.chain.context), grads = t.lines.from(s.tape_grads);
    density_by_raw<T>(
        s, way.run.call.ready, t.d.chain.features, [&](int slot) { return z.at(slot, team.lane); },
        [&](int k, T slope) { grads.at(k, team.lane) = slope * by_log_prob; });
}

template <class T>
__device__ void backward_step(const Team& team, const PlacedStep<DensityStep<T>>& s, const Tape<T>& t, int i,
                              const WayBack<T>& way) {
    copy_context(team, t.d.slots(), t.gradient(i + 1), t.gradient(i));
    back_density(team, s.step, t, i, way);
    team.sync();
}

}  // namespace
}  // namespace headrace
