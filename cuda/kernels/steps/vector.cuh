// A run of vector maps, each with parameters that all rows share. One lane computes a row.
#pragma once

#include "../../../cpp/math/log_product.hpp"
#include "../tape.cuh"
#include "../units.cuh"
#include "../vector_map.cuh"

namespace headrace {
namespace {

// Runs vector maps in place: while one map moves a coordinate, the next map adds the coordinate to its sum. One lane
// computes a row.
template <class T, bool in_shared>
__device__ void run_vectors(const Team& team, const VectorStep<T>& s, const T* all_ready, int context, int features,
                            TileState<T, in_shared, false>& t) {
    if (team.warp != 0) return;
    with_vector_map(s.map, [&]<class Map>() {
        constexpr int factors = Map::factors;
        const T* ready = all_ready + s.ready;
        LogProduct<T> product[factors];
        T sum[1] = {Map::template start<T>(SharedNumbers<T>{ready}, features)};
        HR_ROLLED
        for (int c = 0; c < features; ++c)
            sum[0] = Map::accumulate(sum[0], t.given.at(context + c, team.lane), SharedNumbers<T>{ready}, c, features);
        for (int k = 0; k < s.transforms; ++k) {
            const SharedNumbers<T> p{ready + int64_t(k) * s.n_ready},
                next{p.p + (k + 1 < s.transforms ? s.n_ready : 0)};
            T amount[1], factor[1][factors];
            if (s.inverse) {
                Map::inverse(sum, p, features, s.options, amount, factor);
            } else {
                Map::forward(sum, p, features, s.options, amount, factor);
            }
            for (int f = 0; f < factors; ++f) {
                product[f].mantissa *= factor[0][f];
                product[f].rescale();
            }
            sum[0] = Map::template start<T>(next, features);
            HR_ROLLED
            for (int c = 0; c < features; ++c) {
                T& value = t.given.at(context + c, team.lane);
                value = Map::move(value, amount[0], p, c, features);
                sum[0] = Map::accumulate(sum[0], value, next, c, features);
            }
        }
        T total = 0;
        for (int f = 0; f < factors; ++f) total = fma(product[f].log(), T(Map::power(f, features)), total);
        t.log_det += s.inverse ? -total : total;
    });
}

template <class T, bool in_shared>
__device__ void run_step(const Team& team, const PlacedStep<VectorStep<T>>& s, const Run<T>& run,
                         TileState<T, in_shared, false>& t) {
    run_vectors(team, s.step, run.call.ready, run.d.chain.context, run.d.chain.features, t);
    team.sync();
}

// The coordinates before transform k of a run of vector maps; the run is step i of the chain.
template <class T>
__device__ TapeLines<T> vector_state(const VectorStep<T>& s, const Tape<T>& t, int i, int k) {
    if (k == 0) return t.state(i).from(t.d.chain.context);
    if (k == s.transforms) return t.state(i + 1).from(t.d.chain.context);
    return t.lines.from(s.tape_states + int64_t(k - 1) * t.d.chain.features);
}

template <class T>
__device__ void record_step(const Team& team, const PlacedStep<VectorStep<T>>& d, const Tape<T>& t, int i,
                            const Run<T>& run, TileState<T, false, true>& state) {
    const VectorStep<T>& s = d.step;
    T log_det = 0;
    if (team.warp == 0)
        with_vector_map(s.map, [&]<class Map>() {
            for (int k = 0; k < s.transforms; ++k) {
                const TapeLines<T> given = vector_state(s, t, i, k), built = vector_state(s, t, i, k + 1);
                log_det += run_vector_map<Map, is_single<T>>(
                    s.inverse, SharedNumbers<T>{run.call.ready + s.ready + int64_t(k) * s.n_ready}, t.d.chain.features,
                    s.options, [&](int c) { return given.at(c, team.lane); },
                    [&](int c, T value) { built.at(c, team.lane) = value; });
            }
        });
    state.log_det += log_det;
    team.sync();
}

template <class T>
__device__ void backward_vectors(const Team& team, const VectorStep<T>& s, const Tape<T>& t, int i,
                                 const WayBack<T>& way) {
    if (team.warp != 0) return;
    const TapeLines<T> grad_given = t.gradient(i).from(t.d.chain.context);
    TapeLines<T> grad_built = t.gradient(i + 1).from(t.d.chain.context);
    with_vector_map(s.map, [&]<class Map>() {
        for (int k = s.transforms - 1; k >= 0; --k, grad_built = grad_given) {  // in place from the second transform on
            const TapeLines<T> given = vector_state(s, t, i, k), built = vector_state(s, t, i, k + 1);
            const TapeLines<T> grads = t.lines.from(s.tape_gradients + int64_t(k) * s.n_ready);
            vector_map_vjp<Map, is_single<T>>(
                s.inverse, SharedNumbers<T>{way.run.call.ready + s.ready + int64_t(k) * s.n_ready}, t.d.chain.features,
                s.options, way.grad_log_det, [&](int c) { return given.at(c, team.lane); },
                [&](int c) { return built.at(c, team.lane); }, [&](int c) { return grad_built.at(c, team.lane); },
                [&](int c, T g) { grad_given.at(c, team.lane) = g; }, [&](int n, T g) { grads.at(n, team.lane) = g; });
        }
    });
}

template <class T>
__device__ void backward_step(const Team& team, const PlacedStep<VectorStep<T>>& s, const Tape<T>& t, int i,
                              const WayBack<T>& way) {
    carry_context(team, t, i);
    backward_vectors(team, s.step, t, i, way);
    team.sync();
}

}  // namespace
}  // namespace headrace
