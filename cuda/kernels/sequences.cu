// Causal networks in the direction from the side that they read, all positions at once. Linear prediction, and sums
// over steps.
//
// A block of threads computes one layer for a tile of positions of a row: the sums of gates, then gated values in
// shared memory, then the sums of residual and skip outputs. For 32 channels, a position needs 12,000 operations for
// each layer, and moves 1 KB. Values are read from the memory of the previous layer and stored in that of the next,
// because other tiles read the memory of the previous layer.
#define HR_SMALL_CODE
#include "sequences.cuh"

#include <algorithm>

#include "../include/memory.cuh"
#include "../include/threads.cuh"

namespace headrace {
namespace {

constexpr int stage_line = causal_positions + 4, groups = causal_positions / causal_lanes;
constexpr int stage_numbers = causal_inputs * stage_line;

// A tile of positions of one row.
struct PositionTile {
    int64_t row, first;
    int count;
    __device__ __forceinline__ PositionTile(int64_t k, int64_t n) {
        const int64_t tiles = (n + causal_positions - 1) / causal_positions;
        row = k / tiles;
        first = k % tiles * causal_positions;
        count = int(n - first < causal_positions ? n - first : causal_positions);
    }
};

int64_t tiles_of(int64_t rows, int64_t n) {
    return rows * ((n + causal_positions - 1) / causal_positions);
}

template <class T>
__global__ void __launch_bounds__(causal_threads) run_products(CausalProducts<T> c) {
    HR_DYNAMIC_SHARED(T, stage);
    const int64_t all = c.rows * ((c.n + causal_positions - 1) / causal_positions);
    for (int64_t k = blockIdx.x; k < all; k += gridDim.x) {
        const PositionTile tile(k, c.n);
        const auto load = [&](int tap, int input, int lane) {
            const int64_t at = tile.first + lane + c.first + tap;
            if (lane >= tile.count || at < 0) return T(0);
            const bool is_companded = input >= c.values;
            const T x = number_at<T>(c.x, tile.row, at, is_companded ? input - c.values : input);
            return is_companded ? compand(x) : c.relu_of_x ? max(x, T(0)) : x;
        };
        for (int from = 0; from < c.units * groups; from += int(blockDim.x)) {
            const ThreadUnit own(from, c.units, groups, causal_lanes);
            T sum[1][causal_lanes];
            const T start = c.start ? c.start[own.unit] : T(0);
            HR_UNROLL for (int j = 0; j < causal_lanes; ++j) sum[0][j] = start;
            add_taps<1, causal_lanes, true, causal_positions>(sum, c.weights + own.unit, c.stride, 0, own.lane,
                                                              own.exists, c.taps, c.inputs, stage, load);
            T* const to = c.to + tile.row * c.to_row + (tile.first + own.lane) * c.to_step + own.unit;
            HR_UNROLL for (int j = 0; j < causal_lanes; ++j) if (own.exists && own.lane + j < tile.count)
                to[j * c.to_step] = c.relu ? max(sum[0][j], T(0)) : sum[0][j];
        }
    }
}

// Computes the gated values [unit][position] of a tile.
template <class T>
__device__ __forceinline__ void tile_gates(const CausalLayerCall<T>& c, const PositionTile& tile, T* stage, T* z) {
    const CausalNetwork& n = c.network;
    const int units = n.channel_units, gates = gate_units(n);
    const T* const values = c.values + tile.row * c.n * units;
    const auto load = [&](int tap, int input, int lane) {
        const int64_t at = tile.first + lane - int64_t(n.kernel - 1 - tap) * c.layer.dilation;
        return lane < tile.count && at >= 0 ? values[at * units + input] : T(0);
    };
    for (int from = 0; from < units * groups; from += int(blockDim.x)) {
        const ThreadUnit own(from, units, groups, causal_lanes);
        T sum[2][causal_lanes];
        HR_UNROLL for (int s = 0; s < 2; ++s) {
            const int unit = s * units + own.unit;
            const T bias = c.bias[tile.row * c.bias_row + unit];
            HR_UNROLL for (int j = 0; j < causal_lanes; ++j) sum[s][j] = bias;
            if (c.frames) {
                const T* const frames = c.frames + tile.row * c.frames_row + unit;
                HR_UNROLL for (int j = 0; j < causal_lanes; ++j) if (own.lane + j < tile.count) sum[s][j] = gate_start(
                    n, bias, frames, gates, c.first_frame, c.last_frame, c.position + tile.first + own.lane + j);
            }
        }
        add_taps<2, causal_lanes, true, causal_positions>(sum, c.weights + c.layer.gate + own.unit, gates, units,
                                                          own.lane, own.exists, n.kernel, n.channels, stage, load);
        HR_UNROLL for (int j = 0; j < causal_lanes; ++j) if (own.exists) z[own.unit * stage_line + own.lane + j] =
            gated(sum[0][j], sum[1][j]);
    }
}

// Computes the residual and skip outputs of a tile.
template <class T>
__device__ __forceinline__ void tile_outputs(const CausalLayerCall<T>& c, const PositionTile& tile, const T* z) {
    const CausalNetwork& n = c.network;
    const int all = out_units(n, c.layer), residual = all - n.skip_units;
    for (int from = 0; from < all * groups; from += int(blockDim.x)) {
        const ThreadUnit own(from, all, groups, causal_lanes);
        if (!own.exists) continue;
        T sum[1][causal_lanes];
        HR_UNROLL for (int j = 0; j < causal_lanes; ++j) sum[0][j] = c.weights[c.layer.out_bias + own.unit];
        add_terms(sum, c.weights + c.layer.out + own.unit, all, 0, z + own.lane, stage_line, n.channels);
        const bool is_skip = own.unit >= residual;
        const int units = is_skip ? n.skip_units : n.channel_units, unit = is_skip ? own.unit - residual : own.unit;
        const int64_t at = (tile.row * c.n + tile.first + own.lane) * units + unit;
        const T* const before = is_skip ? c.skip : c.values;
        T* const to = is_skip ? c.skip : c.next;
        HR_UNROLL for (int j = 0; j < causal_lanes; ++j) if (own.lane + j < tile.count) {
            const T old = is_skip && c.is_first ? T(0) : before[at + int64_t(j) * units];
            to[at + int64_t(j) * units] = old + sum[0][j];
        }
    }
}

template <class T>
__global__ void __launch_bounds__(causal_threads) run_layer(CausalLayerCall<T> c) {
    HR_DYNAMIC_SHARED(T, shared);
    T* const z = c.room ? c.room + int64_t(blockIdx.x) * c.network.channel_units * stage_line : shared + stage_numbers;
    const int64_t all = c.rows * ((c.n + causal_positions - 1) / causal_positions);
    for (int64_t k = blockIdx.x; k < all; k += gridDim.x) {
        const PositionTile tile(k, c.n);
        tile_gates(c, tile, shared, z);
        __syncthreads();
        tile_outputs(c, tile, z);  // z changes only after barriers of the next tile's gates
    }
}

template <class T>
__global__ void __launch_bounds__(causal_threads) run_map(CausalMapCall<T> c) {
    HR_DYNAMIC_SHARED(T, shared);
    const int of_value = c.map.n_params + (c.map.has_level ? 1 : 0), stride = int(blockDim.x);
    const ParamsInLine<T> params{shared + threadIdx.x, stride};
    const int64_t all = c.rows * c.n;
    for (int64_t p = element_of_thread(); p < all; p += int64_t(gridDim.x) * blockDim.x) {
        const int64_t row = p / c.n, t = p % c.n, at = row * c.steps + t;
        T total = 0;
        for (int column = 0; column < c.values; ++column) {
            const T* const raw = c.raw + row * c.raw_row + (t * c.values + column) * of_value;
            for (int i = 0; i < of_value; ++i) params.room(i) = raw[i];
            T log;
            const T value = map_value(c.map, number_at<T>(c.given, row, t, column), params, log);
            if (c.value) c.value[at * c.values + column] = value;
            total += log;
        }
        if (c.log_det) c.log_det[at] = total;
    }
}

// ---- prediction
// ------------------------------------------------------------------------------------------------------

// Computes coefficients by the step-up recursion, one column for each thread, and logarithms of gains.
template <class T>
__global__ void __launch_bounds__(causal_threads)
    make_filter(const T* theta, int64_t columns, int64_t order, double* coefficients, double* log_gain) {
    for (int64_t c = element_of_thread(); c < columns; c += int64_t(gridDim.x) * blockDim.x) {
        double* const a = coefficients + c * order;
        double gain = 0;
        for (int64_t m = 0; m < order; ++m) {
            const double at = theta[c * order + m], k = tanh(at), size = abs(at);
            for (int64_t i = 0; 2 * i < m; ++i) {
                const double one = a[i], other = a[m - 1 - i];
                a[i] = fma(-k, other, one);
                a[m - 1 - i] = fma(-k, one, other);
            }
            a[m] = k;
            gain += size + log1p(exp(-2 * size)) - 0.6931471805599453;  // adds log cosh
        }
        log_gain[c] = gain;
    }
}

// Runs a linear prediction. Each thread computes one element of the residuals, or, with to_signal, one column of a row
// of the signal, step after step, because a step needs the results of earlier steps.
template <class T>
__global__ void __launch_bounds__(causal_threads) run_prediction(PredictionCallOnDevice<T> c) {
    const int64_t all = c.rows * c.columns * (c.to_signal ? 1 : c.steps);
    for (int64_t k = element_of_thread(); k < all; k += int64_t(gridDim.x) * blockDim.x) {
        const int64_t column = k % c.columns, rest = k / c.columns;
        const int64_t row = c.to_signal ? rest : rest / c.steps, begin = c.to_signal ? 0 : rest % c.steps;
        const int64_t end = c.to_signal ? c.steps : begin + 1;
        const T* const x = (c.to_signal ? c.result : c.given) + row * c.steps * c.columns + column;
        const double* const a = c.coefficients + column * c.order;
        const T gain = T(exp(c.log_gain[column]));
        for (int64_t t = begin; t < end; ++t) {
            T sum = 0;
            for (int64_t lag = t < c.order ? t : c.order; lag > 0; --lag)
                sum = fma(T(a[lag - 1]), x[(t - lag) * c.columns], sum);
            const int64_t at = (row * c.steps + t) * c.columns + column;
            const T own = c.given[at];
            c.result[at] = c.to_signal ? own / gain + sum : product(own - sum, gain);
        }
    }
}

template <class T>
__global__ void __launch_bounds__(causal_threads) run_totals(const T* scores, int64_t rows, int64_t steps, T* totals) {
    HR_DYNAMIC_SHARED(double, of_warp);
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        double sum = 0;
        for (int64_t t = threadIdx.x; t < steps; t += blockDim.x) sum += scores[row * steps + t];
        sum = block_sum(sum, of_warp);
        if (threadIdx.x == 0) totals[row] = T(sum);
        __syncthreads();
    }
}

unsigned grid_for(int64_t blocks) {
    return unsigned(std::min(blocks, most_blocks));
}

}  // namespace

bool is_map_of_steps(int map) {
    bool is_one = false;
    with_map(map, [&]<class Map>() { is_one = is_of_steps<Map>; });
    return is_one;
}

int64_t causal_layer_room(const CausalNetwork& network) {
    return int64_t(network.channel_units) * stage_line;
}

int64_t causal_layer_blocks(int64_t rows, int64_t n) {
    return std::min(tiles_of(rows, n), most_blocks);
}

template <class T>
void causal_products(const CausalProducts<T>& call, cudaStream_t stream) {
    if (call.rows * call.n == 0) return;
    HR_LAUNCH(run_products<T>, grid_for(tiles_of(call.rows, call.n)), causal_threads, stage_numbers * sizeof(T), stream,
              call);
    check_launch("causal_products");
}

template <class T>
void causal_layer(const CausalLayerCall<T>& call, cudaStream_t stream) {
    const int64_t numbers = stage_numbers + (call.room ? 0 : causal_layer_room(call.network));
    allow_shared(run_layer<T>);
    HR_LAUNCH(run_layer<T>, unsigned(causal_layer_blocks(call.rows, call.n)), causal_threads,
              size_t(numbers) * sizeof(T), stream, call);
    check_launch("causal_layer");
}

template <class T>
void causal_map(const CausalMapCall<T>& call, cudaStream_t stream) {
    const int64_t of_thread = (call.map.n_params + 1) * int64_t(sizeof(T));
    int threads = causal_threads;
    while (threads > warp_rows && threads * of_thread > staged_bytes) threads /= 2;
    allow_shared(run_map<T>);
    HR_LAUNCH(run_map<T>, grid_for((call.rows * call.n + threads - 1) / threads), threads, size_t(threads * of_thread),
              stream, call);
    check_launch("causal_map");
}

template <class T>
void predict(const PredictionCallOnDevice<T>& call, cudaStream_t stream) {
    const auto blocks = [](int64_t n) { return grid_for((n + causal_threads - 1) / causal_threads); };
    HR_LAUNCH(make_filter<T>, blocks(call.columns), causal_threads, 0, stream, call.theta, call.columns, call.order,
              call.coefficients, call.log_gain);
    check_launch("predict");
    const int64_t all = call.rows * call.columns * (call.to_signal ? std::min<int64_t>(1, call.steps) : call.steps);
    if (all == 0) return;
    HR_LAUNCH(run_prediction<T>, blocks(all), causal_threads, 0, stream, call);
    check_launch("predict");
}

template <class T>
void sum_steps(const T* scores, int64_t rows, int64_t steps, T* totals, cudaStream_t stream) {
    if (rows == 0) return;
    HR_LAUNCH(run_totals<T>, grid_for(rows), causal_threads, causal_threads / warp_rows * sizeof(double), stream,
              scores, rows, steps, totals);
    check_launch("sum_steps");
}

#define HR_INSTANTIATE(T)                                                  \
    template void causal_products(const CausalProducts<T>&, cudaStream_t); \
    template void causal_layer(const CausalLayerCall<T>&, cudaStream_t);   \
    template void causal_map(const CausalMapCall<T>&, cudaStream_t);       \
    template void predict(const PredictionCallOnDevice<T>&, cudaStream_t); \
    template void sum_steps(const T*, int64_t, int64_t, T*, cudaStream_t);
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
