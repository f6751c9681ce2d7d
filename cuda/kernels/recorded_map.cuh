// Maps of coordinates with parameters on lines of the tape, there and back. Networks and elementwise maps call the same
// two functions, which stand apart: each has all maps in it.
#pragma once

#include "../../cpp/math/maps.hpp"
#include "tape.cuh"
#include "units.cuh"

namespace headrace {
namespace {

// Lines of a map that is step i, or part of it: its parameters and gradients by them, and states beside it.
template <class T>
struct MapTape {
    TapeLines<T> params, grads, given, built, grad_given, grad_built;

    __device__ MapTape(const Tape<T>& t, int i, int64_t params_line, int64_t grads_line)
        : params(t.lines.from(params_line)),
          grads(t.lines.from(grads_line)),
          given(t.state(i)),
          built(t.state(i + 1)),
          grad_given(t.gradient(i)),
          grad_built(t.gradient(i + 1)) {}
};

// The log-determinant with that of these coordinates added.
template <class T>
HR_APART __device__ T record_map(Team team, const CoordinateMap<T>& map, TapeLines<T> params, TapeLines<T> grads,
                                 TapeLines<T> given, TapeLines<T> built, Settled of, T log_det) {
    TileState<T, false, true> t{};
    t.given = given;
    t.built = built;
    t.log_det = log_det;
    run_map(team, map, params, grads, of, t);
    return t.log_det;
}

// Parameters of coordinates [begin, end) to their gradients, and the gradients of what is given.
template <class T>
HR_APART __device__ void back_map(Team team, const CoordinateMap<T>& map, MapTape<T> at, int begin, int end,
                                  T grad_log_det) {
    const int lane = team.lane;
    with_map(map.index, [&]<class Map>() {
        HR_ROLLED
        for (int c = begin + team.warp; c < end; c += team.warps) {
            const int first = c * map.n_params;
            const MapParams<T, false> param{at.params.from(first), at.grads.from(first), lane};
            const auto grad = [&](int k, T g) { at.grads.at(first + k, lane) = g; };
            const T z = at.given.at(map.given[c], lane), x = at.built.at(map.built[c], lane);
            const T g = at.grad_built.at(map.built[c], lane);
            at.grad_given.at(map.given[c], lane) =
                run_direction_vjp<Map>(map.inverse, z, x, param, map.options, g, grad_log_det, grad);
        }
    });
}

}  // namespace
}  // namespace headrace
