// Moves coordinates to other slots.
#pragma once

#include "../tape.cuh"
#include "../units.cuh"

namespace headrace {
namespace {

template <class State>
__device__ void move(const Team& team, const int* from, const int* to, int features, const State& given,
                     const State& built) {
    for (int c = team.warp; c < features; c += team.warps) built.at(to[c], team.lane) = given.at(from[c], team.lane);
    team.sync();
}

template <class T, bool in_shared>
__device__ void run_step(const Team& team, const PlacedStep<MoveStep<T>>& s, const Run<T>& run,
                         TileState<T, in_shared, false>& t) {
    move(team, s.step.given, s.step.built, run.d.chain.features, t.given, t.built);
}

template <class T>
__device__ void record_step(const Team& team, const PlacedStep<MoveStep<T>>& s, const Tape<T>&, int, const Run<T>& run,
                            TileState<T, false, true>& t) {
    move(team, s.step.given, s.step.built, run.d.chain.features, t.given, t.built);
}

template <class T>
__device__ void backward_step(const Team& team, const PlacedStep<MoveStep<T>>& s, const Tape<T>& t, int i,
                              const WayBack<T>&) {
    carry_context(team, t, i);
    move(team, s.step.built, s.step.given, t.d.chain.features, t.gradient(i + 1), t.gradient(i));
}

}  // namespace
}  // namespace headrace
