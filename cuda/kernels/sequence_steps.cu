// Causal networks in the direction towards the side that they read: step after step, for many streams at once.
//
// A block has a panel of streams, whose values of the current layer are in shared memory as lines [unit][stream];
// values that later steps read are in device memory, in a ring for each layer. The time of a step is the latency of its
// layers, each of which waits for the previous layer, so that more streams cost little. A kernel that keeps the weights
// in registers of many blocks, and stays on the card for all steps, may come later.
#define HR_SMALL_CODE
#include "sequences.cuh"

#include <algorithm>

#include "../include/memory.cuh"

namespace headrace {
namespace {

constexpr int P = panel_streams, M = panel_lanes, panel_groups = P / M;
constexpr int panel_stage = causal_inputs * P;

// Lines of a panel, with P values each.
template <class T>
struct PanelLines {
    T *values, *z, *skip, *raw, *built, *logs;

    __device__ __forceinline__ PanelLines(const CausalNetwork& n, T* at)
        : values(at),
          z(values + n.channel_units * P),
          skip(z + (n.channel_units > n.skip_units ? n.channel_units : n.skip_units) * P),
          raw(skip + n.skip_units * P),
          built(raw + n.output_units * P),
          logs(built + n.values * P) {}
};

int64_t panel_lines(const CausalNetwork& n) {
    return n.channel_units + std::max(n.channel_units, n.skip_units) + n.skip_units + n.output_units + 2 * n.values;
}

// The panel of a block of threads at one position.
template <class T>
struct PanelAt {
    int64_t panel, position;
    T* state;
    T* stage;
    PanelLines<T> lines;

    // The row of a lane. A lane without a stream computes the last row, and its results are not read.
    __device__ __forceinline__ int64_t row(const CausalStepsCall<T>& c, int lane) const {
        const int64_t row = panel * P + lane;
        return row < c.rows ? row : c.rows - 1;
    }
};

// Computes to[unit][lane] = start + the terms that `add` adds.
template <bool relu, class T, class Add>
__device__ __forceinline__ void panel_units_of(int units, const T* start, T* to, const Add& add) {
    for (int from = 0; from < units * panel_groups; from += int(blockDim.x)) {
        const ThreadUnit own(from, units, panel_groups, M);
        T sum[1][M];
        HR_UNROLL for (int j = 0; j < M; ++j) sum[0][j] = start[own.unit];
        add(sum, own);
        HR_UNROLL for (int j = 0; j < M; ++j) if (own.exists) to[own.unit * P + own.lane + j] =
            relu ? max(sum[0][j], T(0)) : sum[0][j];
    }
}

template <class T>
__device__ __forceinline__ void panel_input(const CausalStepsCall<T>& c, const PanelAt<T>& at) {
    const CausalNetwork& n = c.network;
    const T* const past = at.state + int64_t(n.past) * P;
    const int64_t slot = at.position % n.kernel;
    const auto load = [&](int tap, int input, int lane) {
        const int64_t own = slot + tap < n.kernel ? slot + tap : slot + tap - n.kernel;
        return past[(own * n.inputs + input) * P + lane];
    };
    panel_units_of<false>(n.channel_units, c.weights + n.input_bias, at.lines.values,
                          [&](T(&sum)[1][M], const ThreadUnit& own) {
                              add_taps<1, M, false, P>(sum, c.weights + n.input + own.unit, n.channel_units, 0,
                                                       own.lane, own.exists, n.kernel, n.inputs, at.stage, load);
                          });
    for (int i = int(threadIdx.x); i < n.skip_units * P; i += int(blockDim.x)) at.lines.skip[i] = T(0);
}

// Computes gated values of a layer; the layer's new values then replace the oldest values of the ring.
template <class T>
__device__ __forceinline__ void panel_gates(const CausalStepsCall<T>& c, const PanelAt<T>& at, int l) {
    const CausalNetwork& n = c.network;
    const CausalLayer& layer = n.layers[l];
    const int units = n.channel_units, gates = gate_units(n);
    T* const ring = at.state + int64_t(layer.ring) * P;
    const int64_t slots = ring_slots(n, layer), slot = at.position % slots;
    const auto load = [&](int tap, int input, int lane) {
        const int64_t own = slot + int64_t(tap) * layer.dilation;
        return ring[((own < slots ? own : own - slots) * units + input) * P + lane];
    };
    for (int from = 0; from < units * panel_groups; from += int(blockDim.x)) {
        const ThreadUnit own(from, units, panel_groups, M);
        T sum[2][M];
        HR_UNROLL for (int s = 0; s < 2; ++s) HR_UNROLL for (int j = 0; j < M; ++j) {
            const int unit = s * units + own.unit;
            const int64_t row = at.row(c, own.lane + j);
            const T bias = c.bias ? c.bias[row * c.bias_row + l * gates + unit] : c.weights[layer.gate_bias + unit];
            sum[s][j] = bias;
            if (c.frames)
                sum[s][j] = gate_start(n, bias, c.frames + row * c.frames_row + l * gates + unit,
                                       int64_t(n.n_layers) * gates, c.first_frame, c.last_frame, at.position);
        }
        const T* const weights = c.weights + layer.gate + own.unit;
        add_taps<2, M, false, P>(sum, weights, gates, units, own.lane, own.exists, n.kernel - 1, n.channels, at.stage,
                                 load);
        if (own.exists)
            add_terms(sum, weights + int64_t(n.kernel - 1) * n.channels * gates, gates, units,
                      at.lines.values + own.lane, P, n.channels);
        HR_UNROLL for (int j = 0; j < M; ++j) if (own.exists) at.lines.z[own.unit * P + own.lane + j] =
            gated(sum[0][j], sum[1][j]);
    }
    for (int i = int(threadIdx.x); i < units * P; i += int(blockDim.x)) ring[slot * units * P + i] = at.lines.values[i];
}

template <class T>
__device__ __forceinline__ void panel_outputs(const CausalStepsCall<T>& c, const PanelAt<T>& at, int l) {
    const CausalNetwork& n = c.network;
    const CausalLayer& layer = n.layers[l];
    const int all = out_units(n, layer), residual = all - n.skip_units;
    for (int from = 0; from < all * panel_groups; from += int(blockDim.x)) {
        const ThreadUnit own(from, all, panel_groups, M);
        if (!own.exists) continue;
        T sum[1][M];
        HR_UNROLL for (int j = 0; j < M; ++j) sum[0][j] = c.weights[layer.out_bias + own.unit];
        add_terms(sum, c.weights + layer.out + own.unit, all, 0, at.lines.z + own.lane, P, n.channels);
        T* const to =
            (own.unit < residual ? at.lines.values + own.unit * P : at.lines.skip + (own.unit - residual) * P) +
            own.lane;
        HR_UNROLL for (int j = 0; j < M; ++j) to[j] += sum[0][j];
    }
}

template <class T>
__device__ __forceinline__ void panel_head(const CausalStepsCall<T>& c, const PanelAt<T>& at) {
    const CausalNetwork& n = c.network;
    panel_units_of<true>(n.skip_units, c.weights + n.head_bias, at.lines.z, [&](T(&sum)[1][M], const ThreadUnit& own) {
        add_terms(sum, c.weights + n.head + own.unit, n.skip_units, 0, at.lines.skip + own.lane, P, n.skip, true);
    });
    __syncthreads();
    panel_units_of<false>(
        n.output_units, c.weights + n.last_bias, at.lines.raw, [&](T(&sum)[1][M], const ThreadUnit& own) {
            add_terms(sum, c.weights + n.last + own.unit, n.output_units, 0, at.lines.z + own.lane, P, n.skip);
        });
}

// Maps the panel's values, and stores results and inputs of the next step.
template <class T>
__device__ __forceinline__ void panel_map(const CausalStepsCall<T>& c, const PanelAt<T>& at) {
    const CausalNetwork& n = c.network;
    const int of_value = c.map.n_params + (c.map.has_level ? 1 : 0), lane = int(threadIdx.x) % P;
    const bool has_stream = at.panel * P + lane < c.rows;
    const int64_t row = at.row(c, lane), step = row * c.steps + at.position;
    const int first = int(threadIdx.x) / P, all = int(blockDim.x) / P;
    if (c.raw && has_stream)
        for (int u = first; u < n.outputs; u += all) c.raw[step * n.outputs + u] = at.lines.raw[u * P + lane];
    __syncthreads();  // the parameters are stored before the map overwrites them
    for (int i = first; i < n.values; i += all) {
        const T given = has_stream ? number_at<T>(c.given, row, at.position, i) : T(0);
        const ParamsInLine<T> params{at.lines.raw + i * of_value * P + lane, P};
        const T value = map_value(c.map, given, params, at.lines.logs[i * P + lane]);
        at.lines.built[i * P + lane] = value;
        if (c.value && has_stream) c.value[step * n.values + i] = value;
    }
    __syncthreads();
    T* const past = at.state + (n.past + at.position % n.kernel * n.inputs) * P;
    for (int i = first; i < n.inputs; i += all)
        past[i * P + lane] =
            i < n.values ? at.lines.built[i * P + lane] : compand(at.lines.built[(i - n.values) * P + lane]);
    if (!c.log_det || first != 0 || !has_stream) return;
    T total = 0;
    for (int i = 0; i < n.values; ++i) total += at.lines.logs[i * P + lane];
    c.log_det[step] = total;
}

template <class T>
__global__ void __launch_bounds__(panel_threads) run_steps(CausalStepsCall<T> c) {
    HR_DYNAMIC_SHARED(T, shared);
    const CausalNetwork& n = c.network;
    const int lines = n.channel_units + (n.channel_units > n.skip_units ? n.channel_units : n.skip_units) +
                      n.skip_units + n.output_units + 2 * n.values;
    T* const own = c.room ? c.room + int64_t(blockIdx.x) * lines * P : shared + panel_stage;
    for (int64_t panel = blockIdx.x; panel * P < c.rows; panel += gridDim.x) {
        PanelAt<T> at{panel, 0, c.state + panel * n.state * P, shared, PanelLines<T>(n, own)};
        for (at.position = c.begin; at.position < c.end; ++at.position) {
            panel_input(c, at);
            __syncthreads();
            for (int l = 0; l < n.n_layers; ++l) {
                panel_gates(c, at, l);
                __syncthreads();
                panel_outputs(c, at, l);
                __syncthreads();
            }
            panel_head(c, at);
            __syncthreads();
            panel_map(c, at);
            __syncthreads();
        }
    }
}

}  // namespace

int64_t causal_steps_room(const CausalNetwork& network) {
    return panel_lines(network) * P;
}

int64_t causal_steps_blocks(int64_t rows) {
    return std::min((rows + P - 1) / P, most_blocks);
}

template <class T>
void causal_steps(const CausalStepsCall<T>& call, cudaStream_t stream) {
    const int64_t numbers = panel_stage + (call.room ? 0 : causal_steps_room(call.network));
    allow_shared(run_steps<T>);
    HR_LAUNCH(run_steps<T>, unsigned(causal_steps_blocks(call.rows)), panel_threads, size_t(numbers) * sizeof(T),
              stream, call);
    check_launch("causal_steps");
}

template void causal_steps(const CausalStepsCall<float>&, cudaStream_t);
template void causal_steps(const CausalStepsCall<double>&, cudaStream_t);

}  // namespace headrace
