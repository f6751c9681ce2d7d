#define HR_SMALL_CODE
#include "vector_long_rows.hpp"

#include <algorithm>

#include "../include/memory.cuh"
#include "either.cuh"
#include "vector_row.cuh"

namespace headrace {
namespace {

// Computes rows that do not fit in shared memory, each by one warp. Rows of this length are rare, so that one kernel
// serves both one set of parameters for all rows (a.ready) and a set for each row. If each row has a set, each warp of
// the grid has a part of `room` for the ready parameters of its row.
template <class T>
__global__ void __launch_bounds__(vector_threads, long_row_blocks)
    long_rows_forth(VectorRows<T> a, int64_t rows, T* room) {
    constexpr int rows_of_block = vector_threads / 32;
    const RowLanes lanes{int(threadIdx.x) % 32, 32};
    const int64_t warp = int64_t(blockIdx.x) * rows_of_block + int(threadIdx.x) / 32;
    for (int64_t row = warp; row < rows; row += int64_t(gridDim.x) * rows_of_block) {
        RowParams<T, const T*> ready{lanes, a.ready};
        if (!a.ready) {
            T* const p = room + warp * a.n_ready;
            prepare_row_of<T>(a, RowParams<T, const T*>{lanes, a.params + row * a.n_raw}, p);
            ready.p = p;
        }
        const T log_det = run_row_of(a, a.value + row * a.features, ready, a.result + row * a.features);
        if (lanes.first == 0) a.log_det[row] = log_det;
        __syncwarp();  // the next row uses the buffer
    }
}

// The backward pass of long_rows_forth; `room` has the ready parameters and then the gradients by ready parameters.
// `sums` is null if each row has a set of parameters.
template <class T>
__global__ void __launch_bounds__(vector_threads, long_row_blocks)
    long_rows_back(VectorRows<T> a, VectorRowsBack<T> back, int64_t rows, T* room, double* sums) {
    constexpr int rows_of_block = vector_threads / 32;
    const RowLanes lanes{int(threadIdx.x) % 32, 32};
    const int own = int(threadIdx.x) / 32, features = a.features;
    T* const ready_rows = room + int64_t(blockIdx.x) * rows_of_block * a.n_ready;
    T* const of_ready = ready_rows + int64_t(own) * a.n_ready;
    const int64_t tiles = (rows + rows_of_block - 1) / rows_of_block;
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int64_t begin = tile * rows_of_block, row = begin + own;
        if (row < rows) {
            const RowParams<T, const T*> raw{lanes, a.params + (a.ready ? 0 : row * a.n_raw)};
            const RowParams<T, const T*> ready{lanes, a.ready ? a.ready : of_ready};
            if (!a.ready) prepare_row_of<T>(a, raw, of_ready);
            run_row_vjp_of(a, a.value + row * features, ready, back.grad_value + row * features, back.grad_log_det[row],
                           back.grad_input + row * features, of_ready);
            if (!a.ready) prepare_row_vjp_of<T>(a, raw, ready, back.grad_params + row * a.n_raw);
        }
        if (!sums) continue;
        __syncthreads();
        const int n = int(rows - begin < rows_of_block ? rows - begin : rows_of_block);
        BlockSums(sums, a.n_ready).add(ready_rows, a.n_ready, n, tile == int64_t(blockIdx.x));
        __syncthreads();
    }
    if (sums) BlockSums(sums, a.n_ready).finish();
}

// Computes the ready parameters of one set for all rows, by one warp, in float64 for either type.
__global__ void __launch_bounds__(32) prepare_set(int map, int features, NumbersOfEither raw, NumbersOfEither ready) {
    const RowParams<double, NumbersOfEither> params{{int(threadIdx.x), 32}, raw};
    with_prepared_map(map, [&]<class Map>() { prepare_row<Map, double>(params, features, ready); });
}

__global__ void __launch_bounds__(32)
    prepare_set_vjp(int map, int features, NumbersOfEither raw, const double* by_ready, NumbersOfEither by_raw) {
    const RowLanes lanes{int(threadIdx.x), 32};
    const RowParams<double, NumbersOfEither> params{lanes, raw};
    const RowParams<double, const double*> gradients{lanes, by_ready};
    with_prepared_map(map, [&]<class Map>() { prepare_row_vjp<Map, double>(params, gradients, features, by_raw); });
}

// Computes total[k], k < n, over `count` blocks of sums that are `size` values apart: each lane takes a value, and each
// warp a share of the blocks.
__global__ void __launch_bounds__(row_sum_threads)
    sum_blocks_of_rows(const double* sums, int64_t size, int count, int n, double* total) {
    HR_DYNAMIC_SHARED(double, partial);
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
    for (int64_t first = int64_t(blockIdx.x) * 32; first < n; first += int64_t(gridDim.x) * 32) {
        const int64_t k = first + lane;
        double sum = 0;
        if (k < n)
            for (int b = warp; b < count; b += warps) sum += sums[b * size + k];
        partial[threadIdx.x] = sum;
        __syncthreads();
        if (warp == 0 && k < n) {
            for (int w = 1; w < warps; ++w) sum += partial[w * 32 + lane];
            total[k] = sum;
        }
        __syncthreads();
    }
}

}  // namespace

template <class T>
void launch_prepare_set(const VectorRows<T>& a, T* ready, cudaStream_t stream) {
    HR_LAUNCH(prepare_set, 1, 32, 0, stream, a.map, a.features, NumbersOfEither(a.params), NumbersOfEither(ready));
    check_launch("prepare_set");
}

template <class T>
void launch_prepare_set_vjp(const VectorRows<T>& a, const double* sums, int64_t size, int count, double* total,
                            T* grad_params, cudaStream_t stream) {
    const int64_t warps_of_numbers = (int64_t(a.n_ready) + 31) / 32;
    HR_LAUNCH(sum_blocks_of_rows, unsigned(std::min(warps_of_numbers, most_blocks)), row_sum_threads,
              row_sum_threads * sizeof(double), stream, sums, size, count, a.n_ready, total);
    check_launch("sum_blocks_of_rows");
    HR_LAUNCH(prepare_set_vjp, 1, 32, 0, stream, a.map, a.features, NumbersOfEither(a.params), total,
              NumbersOfEither(grad_params));
    check_launch("prepare_set_vjp");
}

template <class T>
void launch_long_rows(const VectorRows<T>& a, int64_t rows, unsigned blocks, T* room, cudaStream_t stream) {
    HR_LAUNCH(long_rows_forth<T>, blocks, vector_threads, 0, stream, a, rows, room);
    check_launch("vector_map");
}

template <class T>
void launch_long_rows_back(const VectorRows<T>& a, const VectorRowsBack<T>& back, int64_t rows, unsigned blocks,
                           T* room, double* sums, cudaStream_t stream) {
    HR_LAUNCH(long_rows_back<T>, blocks, vector_threads, 0, stream, a, back, rows, room, sums);
    check_launch("vector_map_backward");
}

#define HR_INSTANTIATE(T)                                                                                      \
    template void launch_prepare_set(const VectorRows<T>&, T*, cudaStream_t);                                  \
    template void launch_prepare_set_vjp(const VectorRows<T>&, const double*, int64_t, int, double*, T*,       \
                                         cudaStream_t);                                                        \
    template void launch_long_rows(const VectorRows<T>&, int64_t, unsigned, T*, cudaStream_t);                 \
    template void launch_long_rows_back(const VectorRows<T>&, const VectorRowsBack<T>&, int64_t, unsigned, T*, \
                                        double*, cudaStream_t);
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
