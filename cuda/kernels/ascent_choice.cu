#include "ascent_choice.hpp"

#include "../include/launch.cuh"
#include "../include/threads.cuh"

namespace headrace {
namespace {

constexpr int threads = ascent_threads, warp = 32;

__device__ int thread_of_grid() {
    return int(blockIdx.x) * threads + int(threadIdx.x);
}

__global__ void __launch_bounds__(threads) reset(int features, Kink* kinks) {
    const int k = thread_of_grid();
    if (k < features) kinks[k] = {1.0, 0.0, 0.0, 0.0, 1.0};
}

// Prepares a step: block f computes line f of the affine map, and one block more computes the parameters of the
// coordinates' maps.
template <class T>
__global__ void __launch_bounds__(threads) prepare(Turn turn, int features, const Kink* kinks, AscentPlaces<T> places) {
    HR_DYNAMIC_SHARED(double, of_warp);
    const int line = int(blockIdx.x);
    double sum = 0;
    if (line == features) {
        for (int k = int(threadIdx.x); k < features; k += threads) {
            const Kink kink = kinks[k];
            places.bend[k] = T(kink.c / kink.a);
            places.center[k] = T(kink.center);
            places.square[k] = T(kink.square);
            sum += log(kink.a);
        }
        sum = block_sum(sum, of_warp);
        if (threadIdx.x == 0) *places.log_scale = sum;
        return;
    }
    const AscentTile* tile = turn.tiles;
    while (line >= tile->end) ++tile;
    for (int k = int(threadIdx.x); k < tile->last - tile->first; k += threads) {
        const int64_t at = tile->matrix + int64_t(k) * (tile->end - tile->begin) + (line - tile->begin);
        const Kink& kink = kinks[turn.order[tile->first + k]];
        places.matrix[at] = T(turn.matrix[at] * kink.a);
        sum += turn.matrix[at] * kink.b;
    }
    sum = block_sum(sum, of_warp);
    if (threadIdx.x == 0) places.shift[line] = T(sum);
}

__global__ void __launch_bounds__(threads) aim(int features, int tile_rows, const double* z, const int64_t* rows,
                                               const double* drawn, KinkRule rule, Kink* kinks) {
    const int k = thread_of_grid();
    if (k >= features) return;
    const int64_t row = rows[k];
    const double center = row < 0 ? drawn[k] : z[(row / tile_rows * features + k) * tile_rows + row % tile_rows];
    kinks[k] = {1.0, 0.0, 0.0, center, kink_square(center, rule)};
}

template <class T>
__global__ void __launch_bounds__(threads) put_next(int features, const Kink* kinks, AscentPlaces<T> places) {
    const int k = thread_of_grid();
    if (k >= features) return;
    places.next_center[k] = T(kinks[k].center);
    places.next_square[k] = T(kinks[k].square);
}

__global__ void __launch_bounds__(threads) choose(int features, const double* sums, KinkRule rule, Kink* kinks) {
    const int k = thread_of_grid();
    if (k >= features) return;
    double least;
    kinks[k] = chosen_kink(sums + k * ascent_sum_count, kinks[k].center, kinks[k].square, rule, least);
}

__global__ void __launch_bounds__(threads)
    judge(int features, const double* sums, double precision, double total, double* out) {
    HR_DYNAMIC_SHARED(double, of_warp);
    double squares = 0;
    for (int k = int(threadIdx.x); k < features; k += threads) squares += sums[k * ascent_sum_count + 1];
    squares = block_sum(squares, of_warp);
    if (threadIdx.x == 0) *out = (sums[features * ascent_sum_count] - 0.5 * precision * squares) / total;
}

dim3 grid_for(int features) {
    return dim3(unsigned((features + threads - 1) / threads));
}

constexpr size_t sum_bytes = threads / warp * sizeof(double);

}  // namespace

void ascent_identity(int features, Kink* kinks, cudaStream_t stream) {
    HR_LAUNCH(reset, grid_for(features), dim3(threads), 0, stream, features, kinks);
    check_launch("ascent_identity");
}

template <class T>
void ascent_prepare(const Turn& turn, int features, const Kink* kinks, const AscentPlaces<T>& places,
                    cudaStream_t stream) {
    auto* const kernel = prepare<T>;
    HR_LAUNCH(kernel, dim3(unsigned(features + 1)), dim3(threads), sum_bytes, stream, turn, features, kinks, places);
    check_launch("ascent_prepare");
}

void ascent_aim(const AscentLayout& anchors, const double* z, const int64_t* rows, const double* drawn,
                const KinkRule& rule, Kink* kinks, cudaStream_t stream) {
    HR_LAUNCH(aim, grid_for(anchors.features), dim3(threads), 0, stream, anchors.features, anchors.tile_rows, z, rows,
              drawn, rule, kinks);
    check_launch("ascent_aim");
}

template <class T>
void ascent_next(int features, const Kink* kinks, const AscentPlaces<T>& places, cudaStream_t stream) {
    auto* const kernel = put_next<T>;
    HR_LAUNCH(kernel, grid_for(features), dim3(threads), 0, stream, features, kinks, places);
    check_launch("ascent_next");
}

void ascent_choose(int features, const double* sums, const KinkRule& rule, Kink* kinks, cudaStream_t stream) {
    HR_LAUNCH(choose, grid_for(features), dim3(threads), 0, stream, features, sums, rule, kinks);
    check_launch("ascent_choose");
}

void ascent_judge(int features, const double* sums, double precision, double total, double* out, cudaStream_t stream) {
    HR_LAUNCH(judge, dim3(1), dim3(threads), sum_bytes, stream, features, sums, precision, total, out);
    check_launch("ascent_judge");
}

#define HR_INSTANTIATE(T)                                                                              \
    template void ascent_prepare(const Turn&, int, const Kink*, const AscentPlaces<T>&, cudaStream_t); \
    template void ascent_next(int, const Kink*, const AscentPlaces<T>&, cudaStream_t);
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
