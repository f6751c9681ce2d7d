#include "ascent_choice.hpp"

#include "../include/launch.cuh"
#include "../include/threads.cuh"

namespace headrace {
namespace {

constexpr int threads = ascent_threads, warp = 32;
constexpr double least_width = 2e-3;  // of a kink; the map allows 1e-3
constexpr double margin = 0.1;        // the slope of a bent line stays above this
constexpr double full = 0.29;         // up to this reach a full Newton step grows the bound

__device__ int thread_of_grid() {
    return int(blockIdx.x) * threads + int(threadIdx.x);
}

__global__ void __launch_bounds__(threads) reset(int features, Kink* kinks) {
    const int k = thread_of_grid();
    if (k < features) kinks[k] = {1.0, 0.0, 0.0, 0.0, 1.0};
}

// Block f: line f of the affine map; the block after the last line: what belongs to coordinates.
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
    const double square = rule.precision * center * center, u = square < 100.0 ? square : 100.0;
    double width = rule.neighbours * sqrt(6.283185307179586) * exp(0.5 * u);
    width = (width < 1.0 ? width : 1.0) / sqrt(rule.precision);
    if (width < least_width) width = least_width;
    kinks[k] = {1.0, 0.0, 0.0, center, width * width};
}

template <class T>
__global__ void __launch_bounds__(threads) put_next(int features, const Kink* kinks, AscentPlaces<T> places) {
    const int k = thread_of_grid();
    if (k >= features) return;
    places.next_center[k] = T(kinks[k].center);
    places.next_square[k] = T(kinks[k].square);
}

// u of (A + ridge) u = g, with A symmetric and nowhere negative, in the order xx, x1, xr, 11, 1r, rr.
__device__ void solve(const double (&a)[6], const double (&g)[3], double (&u)[3]) {
    const double ridge = 1e-12 * (a[0] + a[3] + a[5]);
    const double d0 = a[0] + ridge, l1 = a[1] / d0, l2 = a[2] / d0;
    const double d1 = a[3] + ridge - l1 * a[1], m = a[4] - l2 * a[1], l3 = m / d1;
    const double d2 = a[5] + ridge - l2 * a[2] - l3 * m;
    const double y1 = g[1] - l1 * g[0], y2 = g[2] - l2 * g[0] - l3 * y1;
    u[2] = y2 / d2;
    u[1] = y1 / d1 - l3 * u[2];
    u[0] = g[0] / d0 - l1 * u[1] - l2 * u[2];
}

__device__ double form(const double (&a)[6], const double (&u)[3]) {
    return a[0] * u[0] * u[0] + a[3] * u[1] * u[1] + a[5] * u[2] * u[2] +
           2.0 * (a[1] * u[0] * u[1] + a[2] * u[0] * u[2] + a[4] * u[1] * u[2]);
}

__global__ void __launch_bounds__(threads) choose(int features, const double* sums, KinkRule rule, Kink* kinks) {
    const int k = thread_of_grid();
    if (k >= features) return;
    double mean[ascent_sum_count];
    for (int i = 0; i < ascent_sum_count; ++i) mean[i] = sums[k * ascent_sum_count + i] / rule.total;
    const auto [x, xx, r, xr, q, inverse] = mean;
    const double center = kinks[k].center, e2 = kinks[k].square, p = rule.precision;
    const double rr = e2 + xx - 2.0 * center * x + center * center, qq = 1.0 - e2 * inverse;
    const double gradient[3] = {1.0 - p * xx, -p * x, q - p * xr};
    const double slopes[6] = {1.0, 0.0, q, 0.0, 0.0, qq}, values[6] = {p * xx, p * x, p * xr, p, p * r, p * rr};
    double u[3] = {gradient[0], gradient[1], gradient[2]};
    if (rule.newton) {
        double curvature[6];
        for (int i = 0; i < 6; ++i) curvature[i] = slopes[i] + values[i];
        solve(curvature, gradient, u);
    }
    const double growth = gradient[0] * u[0] + gradient[1] * u[1] + gradient[2] * u[2];
    const double of_slopes = form(slopes, u), of_values = form(values, u), reach = fabs(u[0]) + fabs(u[2]);
    double t = 1.0;
    if (!(rule.newton && reach <= full)) {
        double low = 0.0, high = (1.0 - margin) / (reach > 1e-12 ? reach : 1e-12);
        if (high > 1e6) high = 1e6;
        for (int i = 0; i < 50; ++i) {  // the bound's slope falls in t
            t = 0.5 * (low + high);
            const double left = 1.0 - t * reach;
            (growth - t * of_values - t * of_slopes / (left * left * left) > 0 ? low : high) = t;
        }
        t = low;
    }
    const double left = 1.0 - t * reach;
    const double least = t * growth - 0.5 * t * t * (of_slopes / (left * left) + of_values);
    if (!(least > 0)) t = u[0] = u[1] = u[2] = 0.0;  // at the optimum rounding may decide
    kinks[k] = {1.0 + t * u[0], t * u[1], t * u[2], center, e2};
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
