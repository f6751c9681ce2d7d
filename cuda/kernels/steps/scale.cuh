// A scale and a shift of each coordinate. Lanes are rows, and columns are divided among warps.
#pragma once

#include "../tile.cuh"

namespace headrace {
namespace {

template <class T, class State>
__device__ T run_in_place(const Team& team, const ScaleStep<T>& s, const State& given, const State& built, int context,
                          int features) {
    for (int c = team.warp; c < features; c += team.warps)
        built.at(context + c, team.lane) = scaled(s, c, given.at(context + c, team.lane));
    return 0;  // the chain's constant includes the log-determinant
}

template <class T, class State>
__device__ void back_in_place(const Team& team, const ScaleStep<T>& s, const State&, const State&, const State& after,
                              const State& before, int context, int features, T) {
    for (int c = team.warp; c < features; c += team.warps)
        before.at(context + c, team.lane) = after.at(context + c, team.lane) * T(s.scale[c]);
}

}  // namespace
}  // namespace headrace
