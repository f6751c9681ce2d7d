// Maps of each coordinate with ready parameters. Lanes are rows, and columns are divided among warps.
#pragma once

#include "../../../cpp/math/log_product.hpp"
#include "../../../cpp/math/maps.hpp"
#include "../../../cpp/steps/marginal.hpp"
#include "../tile.cuh"

namespace headrace {
namespace {

// Maps lines to lines, which may be the same, and returns the warp's share of the log-determinant.
template <class T, class Given>
__device__ T run_ready_map(const Team& team, const ReadyMap<T>& m, int context, int features, const Given& given,
                           const Given& built) {
    T total = 0;
    with_map(m.index, [&]<class Map>() {
        if constexpr (requires { Map::ready_factors; }) {
            LogProduct<T> product;
            int factors = 0;
            HR_ROLLED
            for (int c = team.first_of_sum(); c < features; c += team.sum_warps()) {
                const T* ready = m.ready + int64_t(c) * m.n_ready;
                const T value = given.at(context + c, team.lane);
                T factor;
                built.at(context + c, team.lane) = run_ready_direction<Map>(m.inverse, value, ready, m.options, factor);
                product.mantissa *= factor;
                if (++factors % Map::ready_factors == 0) product.rescale();
            }
            product.rescale();
            total = m.inverse ? -product.log() : product.log();
        }
    });
    return total;
}

template <class T, class State>
__device__ T run_in_place(const Team& team, const MarginalStep<T>& s, const State& given, const State& built,
                          int context, int features) {
    return run_ready_map(team, s.map, context, features, given, built);
}

// Computes gradients by inputs of the maps from gradients by outputs; the fixed parameters have no gradients.
template <class T, class State>
__device__ void back_in_place(const Team& team, const MarginalStep<T>& s, const State& given, const State&,
                              const State& after, const State& before, int context, int features, T grad_log_det) {
    const ReadyMap<T>& m = s.map;
    with_map(m.index, [&]<class Map>() {
        if constexpr (requires { Map::has_ready_derivative; }) {
            HR_ROLLED
            for (int c = team.warp; c < features; c += team.warps) {
                const T* ready = m.ready + int64_t(c) * m.n_ready;
                const T x = given.at(context + c, team.lane);
                T bend;
                const T slope = Map::ready_derivative(m.inverse, x, ready, m.options, bend);
                before.at(context + c, team.lane) = after.at(context + c, team.lane) * slope + grad_log_det * bend;
            }
        }
    });
}

}  // namespace
}  // namespace headrace
