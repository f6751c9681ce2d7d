// Sums over rows on tensor cores: units are rows of the left matrix, inputs are columns of the right matrix, and the
// terms are rows of the call, of which a line of the tape has 32 consecutive ones. A lane's load of 16 bytes is four
// terms, and factors do not pass through shared memory. Each warp computes one square of a task, independently of other
// warps.
#pragma once

#include "product.cuh"
#include "row_sums.hpp"

namespace headrace {
namespace {

constexpr int square = 32;                  // number of units, and of inputs, of a warp
constexpr int sums_of_thread = 4 + square;  // sums in float64, those of biases first
constexpr size_t fragment_sum_bytes = sums_of_thread * sum_threads * sizeof(double);
static_assert(sum_units == 2 * square && sum_inputs == 2 * square && sum_threads == 4 * warp_rows);

// Stores a warp's square, from `unit` and `input` of the task on; total(i) are the lane's sums, those of biases first.
template <class Total>
__device__ __forceinline__ void store_square(const SumTask& task, int unit, int input, bool has_bias, bool has_products,
                                             const Total& total, double* out) {
    const int lane = int(threadIdx.x) % warp_rows, g = lane / 4, t = lane % 4;
#pragma unroll 1
    for (int q = 0; q < 4; ++q) {  // for unit 8 q + g of the warp
        const int within = unit + 8 * q + g, u = task.unit + within;
        if (has_bias) {  // each lane has the sum of the terms that it loaded
            double sum = total(q) + __shfl_xor_sync(~0u, total(q), 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            if (within < task.units && t == 0) out[task.bias + u] = sum;
        }
        if (!has_products || within >= task.units) continue;
        double* const row = out + task.weights + task.row[u];
#pragma unroll 1
        for (int n = 0; n < square / 4; ++n) {
            const int b = n / 2, j = n % 2, k = task.input + input + 8 * b + 2 * t + j;
            if (k < task.input + task.inputs && k < task.visible[u]) row[k] = total(4 + 8 * b + 2 * q + j);
        }
    }
}

// Computes a task's sums over tiles [first, end). Tensor cores sum eight terms ("3xtf32") or tiles_of_sum tiles
// ("tf32"); sums of tiles_of_sum tiles are in float32, and their totals in float64. Totals of a thread are in shared
// memory, because in registers they would leave space for fewer warps. Biases have no products, and use no tensor core.
__device__ __forceinline__ void sum_task_in_fragments(const SumTask& task, bool split_factors,
                                                      const Tapes<float>& tapes, int64_t first, int64_t end,
                                                      double* shared, double* out) {
    constexpr int blocks = square / 8;
    const int warp = int(threadIdx.x) / warp_rows, lane = int(threadIdx.x) % warp_rows, g = lane / 4, t = lane % 4;
    const int unit = warp / 2 * square, input = warp % 2 * square;  // first unit and first input of the warp's square
                                                                    // in the task
    if (unit >= task.units) return;
    const int last = task.unit + smaller(unit + square, task.units) - 1;  // the unit that reads most inputs
    const bool has_bias = task.input == 0 && input == 0;
    const bool has_products = input < task.inputs && task.input + input < task.visible[last];
    if (!has_bias && !has_products) return;

    // Lines that do not exist are replaced by an existing line, and their sums are never read.
    uint32_t left[4], right[blocks];
#pragma unroll
    for (int q = 0; q < 4; ++q) {
        const int u = task.unit + smaller(unit + 8 * q + g, task.units - 1);
        const int k = task.input + smaller(input + 8 * q + g, task.inputs - 1);
        left[q] = uint32_t(task.grads + u) * warp_rows + 4 * t;
        right[q] = has_products ? uint32_t(task.inputs_line + k) * warp_rows + 4 * t : left[q];
    }
    const auto total = [&](int i) -> double& { return shared[i * sum_threads + int(threadIdx.x)]; };
#pragma unroll 1
    for (int i = 0; i < sums_of_thread; ++i) total(i) = 0;
    float part[blocks][2][4] = {}, bias_part[4] = {};
    const float* tape = tapes.numbers + first * tapes.lines * warp_rows;
    for (int64_t tile = first; tile < end; ++tile, tape += tapes.lines * warp_rows) {
        const int rows = int(smaller(int64_t(warp_rows), tapes.rows - tile * warp_rows));
#pragma unroll 1
        for (int row = 0; row < rows; row += 16) {
            // Rows behind the last row may be in a tile that was never computed: in place of four such rows, the first
            // four of the sixteen rows are read.
            const float* const at = tape + (row + 4 * t < rows ? row : row - 4 * t);
            Four<float> x[4], w[blocks];
#pragma unroll
            for (int q = 0; q < 4; ++q) {
                x[q] = load_four(at + left[q]);
                w[q] = load_four(at + right[q]);
            }
            if (row + 16 > rows) {  // units of rows that do not exist may have overflowed
#pragma unroll
                for (int c = 0; c < 4; ++c)
#pragma unroll
                    for (int q = 0; q < 4; ++q) {
                        const bool lives = row + 4 * t + c < rows;
                        x[q].x[c] = lives ? x[q].x[c] : 0.0f;
                        w[q].x[c] = lives ? w[q].x[c] : 0.0f;
                    }
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
                add_eight_terms(split_factors, own_x, own_w, part);
            }
        }
        if ((tile + 1) % tiles_of_sum != 0 && tile + 1 < end) continue;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            total(q) += double(bias_part[q]);
            bias_part[q] = 0;
#pragma unroll
            for (int m = 0; m < 2; ++m)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    total(4 + 8 * q + 4 * m + i) += double(part[q][m][i]);
                    part[q][m][i] = 0;
                }
        }
    }
    store_square(task, unit, input, has_bias, has_products, total, out);
}

}  // namespace
}  // namespace headrace
