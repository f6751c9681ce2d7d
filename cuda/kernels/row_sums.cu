// Sums over rows on the device. Every sum has a fixed order: rows of a share are added first, then shares, then groups
// of rows. Sums over more than tiles_of_sum tiles are in float64.
#include "row_sums.hpp"

#include <algorithm>
#include <type_traits>

#include "../include/threads.cuh"
#include "row_sums.cuh"
#include "weights.hpp"

namespace headrace {
namespace {

// ---- in the type of the program -------------------------------------------------------------------------------------

// A block of threads computes one task for one share of the rows: sums[share][index], over the tapes of tiles
// share * tiles_of_share, ..., (share + 1) * tiles_of_share - 1.
template <class T>
__global__ void __launch_bounds__(sum_threads)
    sum_products(const __grid_constant__ SumTasks<T> tasks, const __grid_constant__ Tapes<T> tapes,
                 int64_t tiles_of_share, double* sums) {
    constexpr int columns = 8, of_thread_units = sum_units / (sum_threads / columns),
                  of_thread_inputs = sum_inputs / columns, line = sum_units + 1;
    static_assert(sum_units == sum_inputs);
    HR_DYNAMIC_SHARED(T,
                      shared);  // [row][unit], then [row][input], each one element longer to avoid bank conflicts
    T *const grads = shared, *const inputs = shared + warp_rows * line;
    const SumTask task = tasks.tasks[blockIdx.x];
    const int thread = int(threadIdx.x), x = thread % columns, y = thread / columns;
    const int lane = thread % warp_rows, warp = thread / warp_rows, warps = sum_threads / warp_rows;
    double total[of_thread_units][of_thread_inputs] = {}, bias[of_thread_units] = {};
    T part[of_thread_units][of_thread_inputs] = {}, bias_part[of_thread_units] = {};
    const int64_t end = smaller(tapes.tiles, (int64_t(blockIdx.y) + 1) * tiles_of_share);
    for (int64_t tile = int64_t(blockIdx.y) * tiles_of_share; tile < end; ++tile) {
        const T* const tape = tapes.numbers + tile * tapes.lines * warp_rows;
        const bool lives = tile * warp_rows + lane < tapes.rows;  // values behind the last row may have overflowed
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

// Computes the same sums as sum_products, on tensor cores. Registers suffice for four blocks on a multiprocessor.
__global__ void __launch_bounds__(sum_threads, 4)
    sum_products_in_fragments(const __grid_constant__ SumTasks<float> tasks, bool split_factors,
                              const __grid_constant__ Tapes<float> tapes, int64_t tiles_of_share, double* sums) {
    HR_DYNAMIC_SHARED(double, shared);
    const int64_t first = int64_t(blockIdx.y) * tiles_of_share;
    sum_task_in_fragments(tasks.tasks[blockIdx.x], split_factors, tapes, first,
                          smaller(tapes.tiles, first + tiles_of_share), shared,
                          sums + int64_t(blockIdx.y) * tasks.n_sums);
}

// ---- shares, and their sums -----------------------------------------------------------------------------------------

template <class T>
__device__ T not_a_number_if(bool condition, T value) {
    return condition ? not_a_number<T>() : value;
}

// Adds the sums of shares, in order, to the sums of all groups, and stores these in the gradient. Entries that no task
// sums are zero; where a row is not finite the gradient of every weight is NaN.
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

constexpr int plain_threads = 256;

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
            HR_LAUNCH(sum_products_in_fragments, blocks, sum_threads, fragment_sum_bytes, stream_, tasks_,
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
    launch_finish(d, weights, totals_.get() + out.n_weights, out.bad, out.gradient, stream_);
}

template class RowSums<float>;
template class RowSums<double>;

}  // namespace headrace
