// A map of each coordinate with parameters that all rows share. A run without a backward pass uses ready parameters,
// like a marginal map (marginal.cuh). For the backward pass the tape has raw parameters for every row, and then the
// gradients by these parameters.
#pragma once

#include "../map_back.cuh"
#include "marginal.cuh"

namespace headrace {
namespace {

template <class T>
__device__ void record_step(const Team& team, const PlacedStep<ElementwiseStep<T>>& d, const Tape<T>& t, int,
                            const Run<T>& run, TileState<T, false, true>& state) {
    const ElementwiseStep<T>& s = d.step;
    const TapeLines<T> raw = t.lines.from(s.tape_raw);
    const int n = s.map.n * s.map.n_params;
    for (int k = team.warp; k < n; k += team.warps) raw.at(k, team.lane) = run.call.weights[s.weights + k];
    team.sync();
    run_map(team, s.map, raw, raw.from(n), Settled{0, s.map.n}, state);
    team.sync();
}

template <class T>
__device__ void backward_step(const Team& team, const PlacedStep<ElementwiseStep<T>>& d, const Tape<T>& t, int i,
                              const WayBack<T>& way) {
    const ElementwiseStep<T>& s = d.step;
    carry_context(team, t, i);
    back_map(team, s.map, t, i, s.tape_raw, s.tape_raw + s.map.n * s.map.n_params, 0, s.map.n, way.grad_log_det);
    team.sync();
}

}  // namespace
}  // namespace headrace
