// A conditioner and its map, for all kinds of conditioners. Where the conditioner reads given coordinates, all
// positions are computed at once; where it reads coordinates that are being built, positions are computed one after
// another.
#pragma once

#include "../conditioners.cuh"
#include "../map_back.cuh"
#include "../vector_map.cuh"

namespace headrace {
namespace {

// ---- uses of parameters ---------------------------------------------------------------------------------------------

// A vector map whose raw parameters are the conditioner's outputs; one lane computes a row.
template <class T, bool in_shared, bool keeps_units>
__device__ void run_vector_map_of_rows(const Team& team, const NetworkStep<T>& s, const Lines<T, in_shared>& params,
                                       TileState<T, in_shared, keeps_units>& t) {
    if (team.warp != 0) return;
    const Lines<T, in_shared> ready = t.units.from(s.ready);
    with_vector_map(s.vector_map, [&]<class Map>() {
        Map::template prepare<T>(LineNumbers<T, in_shared>{params, team.lane}, s.map.n,
                                 [&](int k, T value) { ready.at(k, team.lane) = value; });
        t.log_det += run_vector_map<Map, false>(
            s.map.inverse, LineNumbers<T, in_shared>{ready, team.lane}, s.map.n, s.map.options,
            [&](int c) { return t.given.at(s.map.given[c], team.lane); },
            [&](int c, T value) { t.built.at(s.map.built[c], team.lane) = value; });
    });
}

// Maps coordinates by parameters on lines.
template <class T, bool in_shared, bool keeps_units>
__device__ void settle(const Team& team, const PlacedStep<NetworkStep<T>>& d, const Lines<T, in_shared>& params,
                       const Settled& of, TileState<T, in_shared, keeps_units>& t) {
    if (!of.by_one_warp && d.step.vector_map >= 0) {
        run_vector_map_of_rows(team, d.step, params, t);
    } else {
        run_map(team, d.step.map, params, keeps_units ? params.from(d.part.grads - d.step.tape) : params, of, t);
    }
}

template <class T>
__device__ void back_vector_map_of_rows(const Team& team, const PlacedStep<NetworkStep<T>>& d, const Tape<T>& t, int i,
                                        int line, T grad_log_det) {
    if (team.warp != 0) return;
    const NetworkStep<T>& s = d.step;
    const CoordinateMap<T>& map = s.map;
    const TapeLines<T> params = t.lines.from(s.tape + line), grads = t.lines.from(d.part.grads + line);
    const TapeLines<T> given = t.state(i), built = t.state(i + 1);
    const TapeLines<T> grad_given = t.gradient(i), grad_built = t.gradient(i + 1);
    const int lane = team.lane;
    const TapeLines<T> ready = t.lines.from(s.tape + s.ready), grad_ready = t.lines.from(d.part.grads + s.ready);
    with_vector_map(s.vector_map, [&]<class Map>() {
        vector_map_vjp<Map, false>(
            map.inverse, LineNumbers<T, false>{ready, lane}, map.n, map.options, grad_log_det,
            [&](int c) { return given.at(map.given[c], lane); }, [&](int c) { return built.at(map.built[c], lane); },
            [&](int c) { return grad_built.at(map.built[c], lane); },
            [&](int c, T g) { grad_given.at(map.given[c], lane) = g; },
            [&](int k, T g) { grad_ready.at(k, lane) = g; });
        Map::template prepare_vjp<T>(LineNumbers<T, false>{params, lane}, LineNumbers<T, false>{grad_ready, lane},
                                     map.n, [&](int k, T g) { grads.at(k, lane) = g; });
    });
}

// Computes gradients by parameters of coordinates [begin, end); the parameters of coordinate 0 start at line `line` of
// the conditioner.
template <class T>
__device__ void settle_back(const Team& team, const PlacedStep<NetworkStep<T>>& d, const Tape<T>& t, int i, int line,
                            int begin, int end, T grad_log_det) {
    if (d.step.vector_map >= 0) {
        back_vector_map_of_rows(team, d, t, i, line, grad_log_det);
    } else {
        back_map(team, d.step.map, t, i, d.step.tape + line, d.part.grads + line, begin, end, grad_log_det);
    }
}

// ---- position by position, or all at once ---------------------------------------------------------------------------

template <class C, class T, bool in_shared, bool keeps_units>
__device__ void run_conditioner(const Team& team, const C& c, const PlacedStep<NetworkStep<T>>& d, const Run<T>& run,
                                TileState<T, in_shared, keeps_units>& t) {
    const NetworkStep<T>& s = d.step;
    const auto& read = s.reads_built ? t.built : t.given;
    const Known<T, in_shared> known{s,       run.call,   run.call.weights + s.weights, read.from(s.input_slot),
                                    t.units, keeps_units};
    const int n = positions(c, s.map.n), span = span_of(s, n);
    for (int from = 0; from < n; from += span) {
        const int to = from + span;
        advance(team, c, known, from, to);
        team.sync();
        settle(team, d, t.units.from(parameters(c, from, keeps_units)),
               {first_coordinate(c, from), first_coordinate(c, to)}, t);
        team.sync();
    }
}

template <class C, class T>
__device__ void back_conditioner(const Team& team, const C& c, const PlacedStep<NetworkStep<T>>& d, const Tape<T>& t,
                                 int i, const WayBack<T>& way) {
    const NetworkStep<T>& s = d.step;
    const int read = s.reads_built ? i + 1 : i;
    const KnownBack<T> known{s,
                             way.run.call,
                             way.run.call.weights + s.weights,
                             t.state(read).from(s.input_slot),
                             t.gradient(read).from(s.input_slot),
                             t.lines.from(s.tape),
                             t.lines.from(d.part.grads)};
    const int n = positions(c, s.map.n), span = span_of(s, n);
    for (int to = n; to > 0; to -= span) {
        const int from = to - span;
        settle_back(team, d, t, i, parameters(c, 0, true), first_coordinate(c, from), first_coordinate(c, to),
                    way.grad_log_det);
        team.sync();
        advance_back(team, c, known, from, to);
        team.sync();
    }
}

// ---- the step -------------------------------------------------------------------------------------------------------

template <class T, bool in_shared, bool keeps_units>
__device__ void run_network(const Team& team, const PlacedStep<NetworkStep<T>>& d, const Run<T>& run,
                            TileState<T, in_shared, keeps_units>& t) {
    const NetworkStep<T>& s = d.step;
    for (int c = team.warp; c < s.n_passive; c += team.warps)
        t.built.at(s.passive_built[c], team.lane) = t.given.at(s.passive_given[c], team.lane);
    with_conditioner(s.conditioner, [&]<class C>(const C& c) {
        if (run.has_all_kinds || !has_own_kernel<C>) run_conditioner(team, c, d, run, t);
    });
}

template <class T, bool in_shared>
__device__ void run_step(const Team& team, const PlacedStep<NetworkStep<T>>& d, const Run<T>& run,
                         TileState<T, in_shared, false>& t) {
    run_network(team, d, run, t);
}

template <class T>
__device__ void record_step(const Team& team, const PlacedStep<NetworkStep<T>>& d, const Tape<T>& t, int,
                            const Run<T>& run, TileState<T, false, true>& state) {
    state.units = t.lines.from(d.step.tape);
    run_network(team, d, run, state);
}

// Copies gradients by unchanged coordinates and by the context to the gradients by the step's inputs.
template <class T>
__device__ void carry_passive(const Team& team, const NetworkStep<T>& s, const Tape<T>& t, int i) {
    const TapeLines<T> grad_given = t.gradient(i), grad_built = t.gradient(i + 1);
    for (int c = team.warp; c < s.n_passive; c += team.warps)
        grad_given.at(s.passive_given[c], team.lane) = grad_built.at(s.passive_built[c], team.lane);
    carry_context(team, t, i);
    team.sync();
}

// The backward pass of a step. Gradients by unchanged coordinates are copied first where the conditioner reads given
// coordinates, and last where it reads coordinates that are being built.
template <class T>
__device__ void backward_step(const Team& team, const PlacedStep<NetworkStep<T>>& d, const Tape<T>& t, int i,
                              const WayBack<T>& way) {
    const NetworkStep<T>& s = d.step;
    if (!s.reads_built) carry_passive(team, s, t, i);
    with_conditioner(s.conditioner, [&]<class C>(const C& c) {
        if (way.run.has_all_kinds || !has_own_kernel<C>) back_conditioner(team, c, d, t, i, way);
    });
    if (s.reads_built) carry_passive(team, s, t, i);
}

}  // namespace
}  // namespace headrace
