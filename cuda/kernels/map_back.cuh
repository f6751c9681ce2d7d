// Maps of coordinates with parameters on lines of the tape, in the backward pass. Networks and elementwise maps call
// one function, which is not inlined, because it contains all maps.
#pragma once

#include "../../cpp/math/maps.hpp"
#include "tape.cuh"
#include "units.cuh"

namespace headrace {
namespace {

// Computes gradients by the parameters of coordinates [begin, end), and by the inputs.
template <class T>
HR_APART __device__ void back_map(Team team, const CoordinateMap<T>& map, TapeLines<T> params, TapeLines<T> grads,
                                  TapeLines<T> given, TapeLines<T> built, TapeLines<T> grad_given,
                                  TapeLines<T> grad_built, int begin, int end, T grad_log_det) {
    const int lane = team.lane;
    with_map(map.index, [&]<class Map>() {
        HR_ROLLED
        for (int c = begin + team.warp; c < end; c += team.warps) {
            const int first = c * map.n_params;
            const MapParams<T, false> param{params.from(first), grads.from(first), lane};
            const auto grad = [&](int k, T g) { grads.at(first + k, lane) = g; };
            const T z = given.at(map.given[c], lane), x = built.at(map.built[c], lane);
            const T g = grad_built.at(map.built[c], lane);
            grad_given.at(map.given[c], lane) =
                run_direction_vjp<Map>(map.inverse, z, x, param, map.options, g, grad_log_det, grad);
        }
    });
}

// Computes the backward pass of the map of step i.
template <class T>
__device__ void back_map(const Team& team, const CoordinateMap<T>& map, const Tape<T>& t, int i, int64_t params_line,
                         int64_t grads_line, int begin, int end, T grad_log_det) {
    back_map(team, map, t.lines.from(params_line), t.lines.from(grads_line), t.state(i), t.state(i + 1), t.gradient(i),
             t.gradient(i + 1), begin, end, grad_log_det);
}

}  // namespace
}  // namespace headrace
