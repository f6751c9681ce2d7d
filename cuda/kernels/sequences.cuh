// Code that both kernels of causal networks share: the sums of a thread, and the map of a step.
//
// A thread computes the sums of one unit, or of the two halves of a gate, for adjacent lanes: positions of a row, or
// streams. Adjacent threads read adjacent weights [input][unit], and a thread reads its lanes of an input from shared
// memory at once.
#pragma once

#include "../../cpp/math/compand.hpp"
#include "../../cpp/math/gate.hpp"
#include "../../cpp/math/maps.hpp"
#include "rows.cuh"
#include "sequences.hpp"

// HR_IN_FLIGHT(rounds) before a loop asks the compiler to have the loads of `rounds` rounds in flight together.
#ifdef __CUDACC__
#define HR_IN_FLIGHT(rounds) HR_PRAGMA(unroll(rounds))
#else
#define HR_IN_FLIGHT(rounds)
#endif

namespace headrace {
namespace {

template <class T, int M>
struct alignas(16) LanesOf {
    T v[M];
};

// Adds weights[input] x[input][lane] of all inputs to the sums of units `gap` apart. `line` is the distance between the
// lanes of adjacent inputs.
template <int S, int M, class T>
__device__ __forceinline__ void add_terms(T (&sum)[S][M], const T* weights, int stride, int gap, const T* x, int line,
                                          int inputs, bool relu = false) {
    constexpr int rounds [[maybe_unused]] = 32 / M;  // weights for streams come from the L2 cache, those for positions
                                                     // from L1
    HR_IN_FLIGHT(rounds)
    for (int i = 0; i < inputs; ++i, weights += stride, x += line) {
        LanesOf<T, M> lanes = *reinterpret_cast<const LanesOf<T, M>*>(x);
        HR_UNROLL for (int j = 0; j < M; ++j) if (relu) lanes.v[j] = max(lanes.v[j], T(0));
        HR_UNROLL for (int s = 0; s < S; ++s) {
            const T w = weights[s * gap];
            HR_UNROLL for (int j = 0; j < M; ++j) sum[s][j] = fma(w, lanes.v[j], sum[s][j]);
        }
    }
}

// Adds weights[tap][input] x[tap][input][lane] of all taps and inputs to the sums; load(tap, input, lane) returns an
// input, which passes through `stage` in shared memory. All threads of the block take part, including those without a
// unit. With by_input, adjacent threads load adjacent inputs, otherwise adjacent lanes.
template <int S, int M, bool by_input, int lanes, class T, class Load>
__device__ __forceinline__ void add_taps(T (&sum)[S][M], const T* weights, int stride, int gap, int lane, bool has_unit,
                                         int taps, int inputs, T* stage, const Load& load) {
    constexpr int line = lanes + (by_input ? 4 : 0);  // padded to reduce bank conflicts of stores to the stage
    for (int tap = 0; tap < taps; ++tap, weights += int64_t(inputs) * stride)
        for (int first = 0; first < inputs; first += causal_inputs) {
            const int n = inputs - first < causal_inputs ? inputs - first : causal_inputs;
            __syncthreads();  // earlier values of the stage have been read
            for (int i = int(threadIdx.x); i < n * lanes; i += int(blockDim.x)) {
                const int input = by_input ? i % n : i / lanes, at = by_input ? i / n : i % lanes;
                stage[input * line + at] = load(tap, first + input, at);
            }
            __syncthreads();
            if (has_unit) add_terms(sum, weights + int64_t(first) * stride, stride, gap, stage + lane, line, n);
        }
}

// The unit and the lanes of a thread, among `units` units and `groups` groups of lanes, from index `from` of the
// block's round on.
struct ThreadUnit {
    bool exists;
    int unit, lane;
    __device__ __forceinline__ ThreadUnit(int from, int units, int groups, int lanes_of_thread) {
        const int item = from + int(threadIdx.x);
        exists = item < units * groups;
        unit = exists ? item % units : 0;
        lane = exists ? item / units * lanes_of_thread : 0;
    }
};

template <class T>
__device__ __forceinline__ T number_at(const SequenceView& a, int64_t row, int64_t step, int64_t column) {
    const char* const p = a.data + row * a.row_stride + step * a.step_stride + column * a.column_stride;
    return a.is_double ? T(*reinterpret_cast<const double*>(p)) : T(*reinterpret_cast<const float*>(p));
}

// ---- the map -------------------------------------------------------------------------------------------------------

// The parameters of a map in shared memory, which are also a buffer for its results.
template <class T>
struct ParamsInLine {
    T* p;
    int stride;
    __device__ __forceinline__ T operator()(int k) const { return p[int64_t(k) * stride]; }
    __device__ __forceinline__ T& room(int k) const { return p[int64_t(k) * stride]; }
};

// Whether the kernels contain a map: splines, which would be most of the code of both kernels, are left out.
template <class Map>
constexpr bool is_of_steps = !has_bins<Map> || std::is_same_v<Map, LogisticMixture>;

// Maps one value, and returns it with its log-derivative in the direction of the call.
template <class T>
__device__ __forceinline__ T map_value(const CausalMap<T>& map, T given, const ParamsInLine<T>& params, T& log) {
    T level = 0;
    if (map.has_level) {
        level = params(map.n_params);
        level = level < T(least_level) ? T(least_level) : level > T(most_level) ? T(most_level) : level;
        if (!map.to_data) given = product(given, exp(-level));
    }
    T value = given;
    log = 0;
    with_map(map.index, [&]<class Map>() {
        if constexpr (is_of_steps<Map>) value = run_direction<Map>(map.inverse, given, params, map.options, log);
    });
    if (map.has_level) {
        if (map.to_data) value = product(value, exp(level));
        log += map.to_data ? level : -level;
    }
    return value;
}

// The gate bias of a unit at a position, plus the contribution of covariates: `frames` has the products of each frame's
// covariates with the unit's weights, `frame_step` apart.
template <class T>
__device__ __forceinline__ T gate_start(const CausalNetwork& n, T bias, const T* frames, int64_t frame_step,
                                        int64_t first_frame, int64_t last_frame, int64_t position) {
    const FramePlace<T> place = frame_place<T>(n, last_frame, position);
    const T first = frames[(place.first - first_frame) * frame_step];
    return interpolated(bias, first, frames[(place.second - first_frame) * frame_step], place.share);
}

}  // namespace
}  // namespace headrace
