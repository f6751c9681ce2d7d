// All kinds of steps on a device, each in a file of steps/. Each kind has overloads of these functions for PlacedStep,
// which is its struct with additional device data. The team waits at the end of each function:
//
// - run_step(team, s, run, t) computes a tile from t.given to t.built, or in place for a kind that works in place.
// - record_step(team, s, tape, i, run, t) computes step i from one state on the tape, t.given, to the next, t.built.
// - backward_step(team, s, tape, i, way) computes the gradient by the state before step i from that by the next state.
//
// A kind that works in place without weights has two overloads for its struct, from which run_step, record_step and
// backward_step follow. The lines `given` and `built` may be the same; run_in_place returns the warp's share of the
// log-determinant:
//
//   run_in_place(team, s, given, built, context, features)
//   back_in_place(team, s, given, built, after, before, context, features, grad_log_det)
//
// A kind that is a map of each coordinate with ready parameters has `ready_map` (cpp/steps/marginal.hpp).
#pragma once

#include "steps/density.cuh"
#include "steps/elementwise.cuh"
#include "steps/marginal.cuh"
#include "steps/move.cuh"
#include "steps/network.cuh"
#include "steps/rotation.cuh"
#include "steps/scale.cuh"
#include "steps/support.cuh"
#include "steps/vector.cuh"

#ifdef HEADRACE_MORE_STEP_KERNELS
#include HEADRACE_MORE_STEP_KERNELS
#endif

namespace headrace {
namespace {

// ---- kinds that work in place, on lines alone -----------------------------------------------------------------------

template <class S, class T, bool in_shared>
__device__ void run_step(const Team& team, const PlacedStep<S>& s, const Run<T>& run,
                         TileState<T, in_shared, false>& t) {
    t.log_det += run_in_place(team, s.step, t.given, t.given, run.d.chain.context, run.d.chain.features);
    team.sync();
}

template <class S, class T>
__device__ void record_step(const Team& team, const PlacedStep<S>& s, const Tape<T>&, int, const Run<T>& run,
                            TileState<T, false, true>& t) {
    t.log_det += run_in_place(team, s.step, t.given, t.built, run.d.chain.context, run.d.chain.features);
    team.sync();
}

template <class S, class T>
__device__ void backward_step(const Team& team, const PlacedStep<S>& s, const Tape<T>& t, int i,
                              const WayBack<T>& way) {
    carry_context(team, t, i);
    back_in_place(team, s.step, t.state(i), t.state(i + 1), t.gradient(i + 1), t.gradient(i), t.d.chain.context,
                  t.d.chain.features, way.grad_log_det);
    team.sync();
}

// ---- any kind -------------------------------------------------------------------------------------------------------

// Runs one step from t.given to t.built. Returns true if the step worked in place, so that t.given has the result.
// Kernels without `products` have no steps with products.
template <bool products, class T, bool in_shared>
__device__ bool run_any(const Team& team, const Run<T>& run, const DeviceStep<T>& step,
                        TileState<T, in_shared, false>& t) {
    bool in_place = true, is_ready_map = false;
    ReadyMap<T> map;
    with_step(step, [&]<class S>(const PlacedStep<S>& s) {
        in_place = S::in_place;
        if constexpr (requires { ready_map(s.step, run.call.ready); }) {
            map = ready_map(s.step, run.call.ready);
            is_ready_map = true;
        } else if constexpr (products || !has_products<S>) {
            run_step(team, s, run, t);
        }
    });
    if (is_ready_map) {  // one call for all kinds of steps, because the call inlines all maps
        t.log_det += run_ready_map(team, map, run.d.chain.context, run.d.chain.features, t.given, t.given);
        team.sync();
    }
    return in_place;
}

// Records a step, and adds the log-determinant to state.log_det.
template <class T>
__device__ void record_any(const Team& team, const Tape<T>& t, int i, const Run<T>& run,
                           TileState<T, false, true>& state) {
    state.given = t.state(i);
    state.built = t.state(i + 1);
    copy_context(team, t.d.chain.context, state.given, state.built);
    team.sync();
    with_step(t.d.steps[i], [&](const auto& s) { record_step(team, s, t, i, run, state); });
}

template <class T>
__device__ void backward_any(const Team& team, const Tape<T>& t, int i, const WayBack<T>& way) {
    with_step(t.d.steps[i], [&](const auto& s) { backward_step(team, s, t, i, way); });
}

}  // namespace
}  // namespace headrace
