// Sums over rows on the device. Every sum has a fixed order: rows in shares, shares in theirs, groups of rows in
// theirs; those over more than tiles_of_sum tiles are float64.
#include "row_sums.hpp"

#include <algorithm>
#include <type_traits>

#include "../../cpp/steps/ready.hpp"
#include "../include/threads.cuh"
#include "product.cuh"

namespace headrace {
namespace {

// ---- in the numbers' own type ---------------------------------------------------------------------------------------

// Block (task, share of the rows): sums[share][place] over the tapes of tiles [share tiles_of_share, ...).
template <class T>
__global__ void __launch_bounds__(sum_threads)
    sum_products(const __grid_constant__ SumTasks<T> tasks, const __grid_constant__ Tapes<T> tapes,
                 int64_t tiles_of_share, double* sums) {
    constexpr int columns = 8, of_thread_units = sum_units / (sum_threads / columns),
                  of_thread_inputs = sum_inputs / columns, line = sum_units + 1;
    static_assert(sum_units == sum_inputs);
    HR_DYNAMIC_SHARED(T,
                      shared);  // [row][unit], then [row][input], one number longer than needed: no bank meets itself
    T *const grads = shared, *const inputs = shared + warp_rows * line;
    const SumTask task = tasks.tasks[blockIdx.x];
    const int thread = int(threadIdx.x), x = thread % columns, y = thread / columns;
    const int lane = thread % warp_rows, warp = thread / warp_rows, warps = sum_threads / warp_rows;
    double total[of_thread_units][of_thread_inputs] = {}, bias[of_thread_units] = {};
    T part[of_thread_units][of_thread_inputs] = {}, bias_part[of_thread_units] = {};
    const int64_t end = smaller(tapes.tiles, (int64_t(blockIdx.y) + 1) * tiles_of_share);
    for (int64_t tile = int64_t(blockIdx.y) * tiles_of_share; tile < end; ++tile) {
        const T* const tape = tapes.numbers + tile * tapes.lines * warp_rows;
        const bool lives = tile * warp_rows + lane < tapes.rows;  // what lies past the last row may have overflowed
        for (int u = warp; u < sum_units; u += warps) {
            const int64_t at = (task.grads + task.unit + u) * warp_rows + lane;
            grads[lane * line + u] = lives && u < task.units ? tape[at] : T(0);
        }
        for (int k = warp; k < sum_inputs; k += warps) {
            const int64_t at = (task.inputs_line + task.input + k) * warp_rows + lane;
            inputs[lane * line + k] = lives && k < task.inputs ? tape[at] : T(0);
        }
        __syncthreads();
        for (int r = 0; r < warp_rows; ++r) {
            T g[of_thread_units], in[of_thread_inputs];
#pragma unroll
            for (int i = 0; i < of_thread_units; ++i) {
                g[i] = grads[r * line + y * of_thread_units + i];
                bias_part[i] += g[i];
            }
#pragma unroll
            for (int j = 0; j < of_thread_inputs; ++j) in[j] = inputs[r * line + x + columns * j];
#pragma unroll
            for (int i = 0; i < of_thread_units; ++i)
#pragma unroll
                for (int j = 0; j < of_thread_inputs; ++j) part[i][j] += g[i] * in[j];
        }
        __syncthreads();
        if ((tile + 1) % tiles_of_sum != 0 && tile + 1 < end) continue;
#pragma unroll
        for (int i = 0; i < of_thread_units; ++i) {
            bias[i] += double(bias_part[i]);
            bias_part[i] = 0;
#pragma unroll
            for (int j = 0; j < of_thread_inputs; ++j) {
                total[i][j] += double(part[i][j]);
                part[i][j] = 0;
            }
        }
    }
    double* const out = sums + int64_t(blockIdx.y) * tasks.n_sums;
#pragma unroll
    for (int i = 0; i < of_thread_units; ++i) {
        const int within = y * of_thread_units + i, unit = task.unit + within;
        if (within >= task.units) continue;
        if (task.input == 0 && x == 0) out[task.bias + unit] = bias[i];
#pragma unroll
        for (int j = 0; j < of_thread_inputs; ++j) {
            const int k = task.input + x + columns * j;
            if (x + columns * j < task.inputs && k < task.visible[unit])
                out[task.weights + task.row[unit] + k] = total[i][j];
        }
    }
}

// ---- on tensor cores ------------------------------------------------------------------------------------------------
//
// Units are rows of the left matrix, inputs columns of the right one, and the terms are rows of the call, of which a
// line of the tape has 32 that follow each other: a lane's load of 16 bytes is four terms, and no number goes through
// shared memory. Squares of the task are a warp's each, without a word between them.

constexpr int of_warp = 32;  // units, and as many inputs
static_assert(sum_units == 2 * of_warp && sum_inputs == 2 * of_warp && sum_threads == 4 * warp_rows);

// The lane's four terms of sixteen rows of a line; zero where a row does not exist, whose units may have overflowed.
__device__ __forceinline__ Four<float> load_rows_that_live(const float* line, int rows) {
    Four<float> four = load_four(line);
    if (rows < 4) {
#pragma unroll
        for (int c = 0; c < 4; ++c) four.x[c] = c < rows ? four.x[c] : 0.0f;
    }
    return four;
}

// As sum_products. Sums of eight terms ("3xtf32") or of tiles_of_sum tiles ("tf32") are the tensor cores', those of
// tiles_of_sum tiles float32, and what they add up to float64. Biases have no products, and see no tensor core.
__global__ void __launch_bounds__(sum_threads)
    sum_products_in_fragments(const __grid_constant__ SumTasks<float> tasks, bool split_factors,
                              const __grid_constant__ Tapes<float> tapes, int64_t tiles_of_share, double* sums) {
    constexpr int blocks = of_warp / 8;
    const SumTask task = tasks.tasks[blockIdx.x];
    const int warp = int(threadIdx.x) / warp_rows, lane = int(threadIdx.x) % warp_rows, g = lane / 4, t = lane % 4;
    const int unit = warp / 2 * of_warp, input = warp % 2 * of_warp;  // the warp's first ones, of the task's
    if (unit >= task.units) return;
    const int last = task.unit + smaller(unit + of_warp, task.units) - 1;  // which sees the most
    const bool has_bias = task.input == 0 && input == 0;
    const bool has_products = input < task.inputs && task.input + input < task.visible[last];
    if (!has_bias && !has_products) return;

    // Lines that do not exist have another in their place, and sums that nobody reads.
    const int64_t first = int64_t(blockIdx.y) * tiles_of_share, end = smaller(tapes.tiles, first + tiles_of_share);
    const float *left[4], *right[blocks];
#pragma unroll
    for (int q = 0; q < 4; ++q) {
        const float* const tape = tapes.numbers + first * tapes.lines * warp_rows + 4 * t;
        const int u = task.unit + smaller(unit + 8 * q + g, task.units - 1);
        const int k = task.input + smaller(input + 8 * q + g, task.inputs - 1);
        left[q] = tape + (task.grads + u) * warp_rows;
        right[q] = has_products ? tape + (task.inputs_line + k) * warp_rows : left[q];
    }
    double total[blocks][2][4] = {}, bias[4] = {};
    float part[blocks][2][4] = {}, bias_part[4] = {};
    for (int64_t tile = first; tile < end; ++tile) {
        const int rows = int(smaller(int64_t(warp_rows), tapes.rows - tile * warp_rows));
#pragma unroll 1
        for (int row = 0; row < rows; row += 16) {
            Four<float> x[4], w[blocks];
#pragma unroll
            for (int q = 0; q < 4; ++q) {
                x[q] = load_rows_that_live(left[q] + row, rows - row - 4 * t);
                w[q] = load_rows_that_live(right[q] + row, rows - row - 4 * t);
            }
            if (has_bias) {
#pragma unroll
                for (int q = 0; q < 4; ++q) bias_part[q] += (x[q].x[0] + x[q].x[1]) + (x[q].x[2] + x[q].x[3]);
            }
            if (!has_products) continue;
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                float own_x[2][4], own_w[blocks][2];
#pragma unroll
                for (int i = 0; i < 2; ++i)
#pragma unroll
                    for (int q = 0; q < 4; ++q) {
                        own_x[i][q] = x[q].x[2 * h + i];
                        own_w[q][i] = w[q].x[2 * h + i];
                    }
                add_eight_terms<blocks>(split_factors, own_x, own_w, part);
            }
        }
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            left[q] += tapes.lines * warp_rows;
            right[q] += tapes.lines * warp_rows;
        }
        if ((tile + 1) % tiles_of_sum != 0 && tile + 1 < end) continue;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            bias[q] += double(bias_part[q]);
            bias_part[q] = 0;
#pragma unroll
            for (int m = 0; m < 2; ++m)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    total[q][m][i] += double(part[q][m][i]);
                    part[q][m][i] = 0;
                }
        }
    }
    double* const out = sums + int64_t(blockIdx.y) * tasks.n_sums;
#pragma unroll
    for (int q = 0; q < 4; ++q) {  // unit 8 q + g of the warp
        const int within = unit + 8 * q + g, u = task.unit + within;
        if (has_bias) {  // a lane has the terms that it loaded
            double sum = bias[q] + __shfl_xor_sync(~0u, bias[q], 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            if (within < task.units && t == 0) out[task.bias + u] = sum;
        }
        if (!has_products || within >= task.units) continue;
        const int64_t row = task.weights + task.row[u];
#pragma unroll
        for (int b = 0; b < blocks; ++b)
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const int k = input + 8 * b + 2 * t + j;
                if (k < task.inputs && task.input + k < task.visible[u])
                    out[row + task.input + k] = total[b][q / 2][2 * (q % 2) + j];
            }
    }
}

// ---- shares, and what becomes of them -------------------------------------------------------------------------------

template <class T>
__device__ T not_a_number_if(bool condition, T value) {
    return condition ? not_a_number<T>() : value;
}

// The shares' sums, in their order, to the sums of all groups, and these to the gradient. What no task sums is zero;
// where a row is not finite every weight's is NaN.
template <class T>
__global__ void add_shares(const __grid_constant__ SumTasks<T> tasks, const double* sums, int shares, bool is_first,
                           const __grid_constant__ WeightGradient<T> out, double* totals) {
    const int64_t i = element_of_thread();
    if (i >= tasks.n_sums) return;
    double total = is_first ? 0.0 : totals[i];
    if (tasks.is_summed[i])
        for (int s = 0; s < shares; ++s) total += sums[s * tasks.n_sums + i];
    totals[i] = total;
    if (i < out.n_weights) out.gradient[i] = not_a_number_if(*out.bad && out.is_weight[i], T(total));
}

// The gradients by raw parameters of a step, from those by ready ones: none, but of a run of vector maps.
template <class T, class S>
__device__ void finish_step(const S&, int, const T*, const double*, const int*, T*) {}

template <class T>
__device__ void finish_step(const VectorStep<T>& step, int features, const T* weights, const double* by_ready,
                            const int* bad, T* gradient) {
    for (int i = threadIdx.x; i < ready_parts(step, features); i += blockDim.x) {
        const double* const given = by_ready + step.ready + int64_t(i) * step.n_ready;
        T* const out = gradient + step.weights[i];
        finish_part(
            step, i, features, weights, [&](int k) { return given[k]; },
            [&](int k, double value) { out[k] = not_a_number_if(*bad != 0, T(value)); });
    }
}

// A block for each step, a thread for each transform.
template <class T>
__global__ void finish_ready(const __grid_constant__ DeviceChain<T> d, const T* weights, const double* by_ready,
                             const int* bad, T* gradient) {
    const int features = d.chain.features;
    for (int s = blockIdx.x; s < d.chain.n_steps; s += gridDim.x)
        with_step(d.steps[s].step,
                  [&](const auto& step) { finish_step(step, features, weights, by_ready, bad, gradient); });
}

constexpr int plain_threads = 256, step_blocks = 1024, step_threads = 64;

unsigned blocks_of(int64_t n) {
    return unsigned((n + plain_threads - 1) / plain_threads);
}

}  // namespace

template <class T>
RowSums<T>::RowSums(const SumTasks<T>& tasks, Products products, int64_t group, cudaStream_t stream)
    : tasks_(tasks), products_(products), stream_(stream), totals_(size_t(tasks.n_sums), stream) {
    const int64_t wanted = std::clamp<int64_t>(sum_blocks / tasks.count, 1, most_shares);
    tiles_of_share_ = (group + wanted - 1) / wanted;
    const int64_t most = (group + tiles_of_share_ - 1) / tiles_of_share_;
    shares_ = DeviceBuffer<double>(size_t(most * tasks.n_sums), stream);
}

template <class T>
void RowSums<T>::add(const Tapes<T>& tapes, const WeightGradient<T>& out) {
    const int64_t n_shares = (tapes.tiles + tiles_of_share_ - 1) / tiles_of_share_;
    const dim3 blocks(unsigned(tasks_.count), unsigned(n_shares));
    const bool is_exact = products_ == Products::exact;
    if constexpr (std::is_same_v<T, float>)
        if (!is_exact)
            HR_LAUNCH(sum_products_in_fragments, blocks, sum_threads, 0, stream_, tasks_,
                      products_ == Products::three_tf32, tapes, tiles_of_share_, shares_.get());
    if (std::is_same_v<T, double> || is_exact) {
        const size_t bytes = size_t(warp_rows) * size_t(sum_units + 1 + sum_inputs + 1) * sizeof(T);
        auto* const kernel = sum_products<T>;
        allow_shared(kernel);
        HR_LAUNCH(kernel, blocks, sum_threads, bytes, stream_, tasks_, tapes, tiles_of_share_, shares_.get());
    }
    check_launch("sum_products");
    HR_LAUNCH(add_shares<T>, blocks_of(tasks_.n_sums), plain_threads, 0, stream_, tasks_, shares_.get(), int(n_shares),
              is_first_, out, totals_.get());
    check_launch("add_shares");
    is_first_ = false;
}

template <class T>
void RowSums<T>::finish(const DeviceChain<T>& d, const T* weights, const WeightGradient<T>& out) {
    if (d.chain.ready == 0) return;
    HR_LAUNCH(finish_ready<T>, step_blocks, step_threads, 0, stream_, d, weights, totals_.get() + out.n_weights,
              out.bad, out.gradient);
    check_launch("finish_ready");
}

template class RowSums<float>;
template class RowSums<double>;

}  // namespace headrace
