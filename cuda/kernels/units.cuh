// Values of a network's units from their sums on a tile, and coordinates from the map's parameters.
#pragma once

#include "../../cpp/math/activations.hpp"
#include "../../cpp/math/maps.hpp"
#include "../../cpp/math/random.hpp"

#include "../host/device_chain.hpp"
#include "product.cuh"

namespace headrace {
namespace {

// The data of a team in one step. A recorded run keeps all states and values of all units.
template <class T, bool in_shared, bool keeps_units>
struct TileState {
    Lines<T, in_shared> given, built, units;
    T* partial;
    T log_det;                   // the warp's share for the lane's row
    Lines<T, in_shared> slopes;  // set only if units are kept and slopes cannot be computed from their values
    int64_t row = 0;             // index in the call of the tile's first row
};

// The sum of a unit: its product, plus or times the context's term, plus the sum of another layer.
template <class T, bool in_shared, bool keeps_units>
__device__ T joined(const Layer& layer, int u, T product, int lane, const TileState<T, in_shared, keeps_units>& t) {
    T sum = product;
    if (layer.c) {
        const T c = t.units.at(layer.c[u], lane);
        if (keeps_units && layer.gated) t.units.at(layer.product + u, lane) = product;
        sum = layer.gated ? headrace::product(product, c) : product + c;
    }
    return layer.adds ? sum + t.units.at(layer.adds[u], lane) : sum;
}

// The factor of dropout: 0 for a dropped value, otherwise the factor that compensates for dropped values.
template <class T>
__device__ T dropped(const NetworkStep<T>& s, const Layer& layer, int line, const Call<T>& call, int64_t row) {
    const uint64_t number = row < call.rows ? uint64_t(row_number(call.input, row)) : 0;
    const auto words = philox(call.seed, uint32_t(number), uint32_t(number >> 32), uint32_t(line / 4), s.stream);
    const uint32_t word = words.w[line % 4];
    return uniform<T>(word, word) <= T(layer.dropout) ? T(0) : T(1 / (1 - layer.dropout));
}

// The lines of a layer's inputs: of units from `line` on, or, if `line` is -1, of coordinates from `slot` on. The
// choice is between two objects and not between two addresses, because the compiler could not infer from addresses that
// both are in shared memory.
template <class T, bool in_shared>
__device__ Lines<T, in_shared> lines_of_input(int line, const Lines<T, in_shared>& coordinates, int slot,
                                              const Lines<T, in_shared>& units) {
    return (line < 0 ? coordinates : units).from(line < 0 ? slot : line);
}

// Computes values of units u, ..., u + N - 1 from their products and biases, and stores slopes where these are kept;
// units from u + n on do not exist.
template <int N, class T, bool in_shared, bool keeps_units>
__device__ __forceinline__ void finish(const NetworkStep<T>& s, const Stage& stage, int u, int n, T (&value)[N],
                                       const Call<T>& call, int lane, const TileState<T, in_shared, keeps_units>& t) {
    if (!stage.is_hidden) return;
    if (stage.is_joined || stage.keeps_sum) {
        const Layer& layer = s.conditioner.masked.layers[stage.layer];  // has data that `stage` lacks
#pragma unroll
        for (int m = 0; m < N; ++m) {
            if (m >= n) break;
            if (stage.is_joined) value[m] = joined(layer, u + m, value[m], lane, t);
            if (stage.keeps_sum) t.units.at(layer.sum + u + m, lane) = value[m];
        }
    }
    with_activation(stage.activation, [&]<class A>() {
#pragma unroll
        for (int m = 0; m < N; ++m) {
            const T argument = value[m];
            value[m] = A::value(argument);
            if constexpr (keeps_units) {
                const Layer& layer = s.conditioner.masked.layers[stage.layer];
                if (m < n && keeps_slopes(layer))
                    t.slopes.at(layer.value + u + m, lane) = A::slope(A::slope_of_value ? value[m] : argument);
            }
        }
    });
    if constexpr (keeps_units) {
        const Layer& layer = s.conditioner.masked.layers[stage.layer];
        if (!call.drops || !(layer.dropout > 0)) return;
#pragma unroll
        for (int m = 0; m < N; ++m) {
            if (m >= n) break;
            const T factor = dropped(s, layer, layer.value + u + m, call, t.row + lane);
            value[m] *= factor;
            t.slopes.at(layer.value + u + m, lane) *= factor;
        }
    }
}

// The parameters of a map on the lines of a tile, and a buffer of as many values, because registers cannot be indexed:
// the lines of the parameters if they are not needed afterwards, otherwise the lines of their gradients.
template <class T, bool in_shared>
struct MapParams {
    Lines<T, in_shared> lines, rooms;
    int lane;
    __device__ T operator()(int k) const { return lines.at(k, lane); }
    __device__ T& room(int k) const { return rooms.at(k, lane); }
};

// Coordinates [begin, end) of a map, which all warps compute together, or one warp alone.
struct Settled {
    int begin, end;
    bool by_one_warp = false;
};

// Maps coordinates by parameters on lines; `rooms` are the buffers of MapParams.
template <class T, bool in_shared, bool keeps_units>
__device__ void run_map(const Team& team, const CoordinateMap<T>& s, const Lines<T, in_shared>& params,
                        const Lines<T, in_shared>& rooms, const Settled& of, TileState<T, in_shared, keeps_units>& t) {
    with_map(s.index, [&]<class Map>() {
        const int first = of.by_one_warp ? 0 : team.first_of_sum(), step = of.by_one_warp ? 1 : team.sum_warps();
        for (int c = of.begin + first; c < of.end; c += step) {
            const T value = t.given.at(s.given[c], team.lane);
            const MapParams<T, in_shared> param{params.from(c * s.n_params), rooms.from(c * s.n_params), team.lane};
            T log_det;
            t.built.at(s.built[c], team.lane) = run_direction<Map>(s.inverse, value, param, s.options, log_det);
            t.log_det += log_det;
        }
    });
}

}  // namespace
}  // namespace headrace
