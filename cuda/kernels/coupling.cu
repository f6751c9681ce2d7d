// The number of bytes that must be moved for an element in float32 is 4 for its value, 4 n_params for its parameters
// and 4 for its result, and 4 for each row: 16 for an affine map, 100 for a spline of 8 bins. The backward pass moves
// 12 bytes for value, gradient and result, and 8 n_params for parameters and their gradients: 28 for an affine map, 196
// for a spline of 8 bins. Each input is read once, and each result is written once.
//
// A block takes stretches of whole rows. In float32, maps of one or two parameters are *direct*: a thread takes 16
// bytes of values and their parameters, in a kernel for each number of parameters. All other maps are *staged*: threads
// copy the parameters of as many elements as there are threads to shared memory, side by side, and then each thread
// computes an element; an odd distance between elements prevents bank conflicts. A kernel has all its maps in both
// directions, because only the work on an element differs, and each kernel adds to the module's size. Log-derivatives
// stay in shared memory until the stretch is finished; then a few lanes sum each row, in an order that depends only on
// its length.
#define HR_SMALL_CODE
#include "coupling.cuh"

#include <algorithm>

#include "../../cpp/math/maps.hpp"
#include "../include/launch.cuh"
#include "../include/memory.cuh"
#include "rows.cuh"

namespace headrace {
namespace {

template <class Map>
constexpr int params_in_registers() {
    if constexpr (has_bins<Map>) {
        return 0;
    } else {
        return Map::n_params(2) <= 2 ? Map::n_params(2) : 0;
    }
}
// The number of parameters of a direct map; 0 for a staged map.
template <class Map, class T>
constexpr int direct_params = sizeof(T) == 4 ? params_in_registers<Map>() : 0;

// A map as an argument of a kernel.
struct AnyMap {
    int index;
    bool inverse;
    int n_params;

    // Calls f.operator()<Map>() for a map with `direct` parameters.
    template <class T, int direct, class F>
    __device__ __forceinline__ void run(const F& f) const {
        with_map(index, [&]<class Map>() {
            if constexpr (direct_params<Map, T> == direct) f.template operator()<Map>();
        });
    }
};

// The number of scratch values of an element that the backward pass of a map needs besides the parameters.
template <class Map>
constexpr int room_of(int bins) {
    if constexpr (requires { Map::n_room(bins); }) {
        return Map::n_room(bins);
    } else {
        return 0;
    }
}

template <class Map>
constexpr bool reads_built = !requires { requires !Map::vjp_reads_built; };

template <class Map, class T, class P, class G>
__device__ __forceinline__ T apply_vjp(bool inverse, T x, const P& p, const MapOptions<T>& options, T grad_value,
                                       T grad_log_det, const G& grad) {
    T built = 0, log_det;
    if constexpr (reads_built<Map>) built = run_direction<Map>(inverse, x, p, options, log_det);
    return run_direction_vjp<Map>(inverse, x, built, p, options, grad_value, grad_log_det, grad);
}

// The parameters of an element, in registers.
template <class T>
struct PlainParams {
    const T* p;
    __device__ __forceinline__ T operator()(int k) const { return p[k]; }
};

// The parameters of an element in shared memory, with a separate buffer or, in the forward direction, in place.
template <class T>
struct StagedParams {
    T *p, *place;
    __device__ __forceinline__ T operator()(int k) const { return p[k]; }
    __device__ __forceinline__ T& room(int k) const { return place[k]; }
};

constexpr int odd(int n) {
    return n | 1;
}

// The partition of a call's rows into stretches, computed on the host.
struct Stretches {
    int64_t rows, active, count;
    int rows_of_stretch;
    int lanes_of_row;  // a power of two, at most the size of a warp
    TilePlaces places;
    int stride;  // distance of staged elements
};

// Computes elements [0, n) of the arrays, each with P parameters, and their log-derivatives log[0, n).
template <int P, class T>
__device__ __forceinline__ void run_direct(const AnyMap& map, const MapOptions<T>& options, const T* in,
                                           const T* params, T* value, int n, T* log) {
    constexpr int N = numbers_of_16<T>;
    const auto aligned_at = [&](int i) { return is_aligned_16(value + i) && is_aligned_16(params + i * P); };
    for_elements(in, n, aligned_at, [&](const Elements& some) {
        T x[N] = {}, p[N * P] = {}, derivative[N];
        load_elements<1>(some, in, x);
        load_elements<P>(some, params, p);
        map.run<T, P>([&]<class Map>() {
            HR_UNROLL for (int j = 0; j < N; ++j) x[j] =
                run_direction<Map>(map.inverse, x[j], PlainParams<T>{p + j * P}, options, derivative[j]);
        });
        store_elements<1>(some, value, x);
        store_elements<1>(some, log, derivative);
    });
}

template <class T>
__device__ __forceinline__ void run_staged(const AnyMap& map, const MapOptions<T>& options, const Stretches& s,
                                           const T* in, const T* params, T* value, int n, T* log, T* tile) {
    const int threads = int(blockDim.x), thread = int(threadIdx.x);
    for (int first = 0; first < n; first += threads) {
        const int count = n - first < threads ? n - first : threads;
        rows_to_tile(params + int64_t(first) * map.n_params, count * map.n_params, s.places, tile);
        __syncthreads();
        if (thread < count) {
            const int i = first + thread;
            T* const own = tile + thread * s.stride;
            map.run<T, 0>([&]<class Map>() {
                value[i] = run_direction<Map>(map.inverse, in[i], StagedParams<T>{own, own}, options, log[i]);
            });
        }
        __syncthreads();
    }
}

// Sums the log-derivatives of whole rows, each row by some lanes of a warp.
template <class T>
__device__ __forceinline__ void sum_short_rows(const Stretches& s, const T* log, int rows, T* log_det) {
    const int lanes = s.lanes_of_row, active = int(s.active), end = (rows * lanes + 31) / 32 * 32;  // whole warps
    for (int i = int(threadIdx.x); i < end; i += int(blockDim.x)) {
        const int r = i / lanes, lane = i % lanes;
        T sum = 0;
        if (r < rows)
            for (int c = lane; c < active; c += lanes) sum += log[r * active + c];
        sum = sum_of_lanes(sum, lanes);
        if (r < rows && lane == 0) log_det[r] = sum;
    }
}

// Sums the shares of a row that the threads of a block pass.
template <class T>
__device__ __forceinline__ void sum_long_row(T own, T* shared, T* log_det) {
    const int thread = int(threadIdx.x);
    own = sum_of_lanes(own, 32);
    if (thread % 32 == 0) shared[thread / 32] = own;
    __syncthreads();
    if (thread == 0) {
        T sum = 0;
        for (int w = 0; w < int(blockDim.x) / 32; ++w) sum += shared[w];
        *log_det = sum;
    }
    __syncthreads();
}

// Computes stretches: run(first, n, log) computes n elements from `first` on and writes their log-derivatives to log[0,
// n), aligned as the values are; then rows are summed. A stretch is several rows, or a row is several stretches. `run`
// is called at one place of the code, because it contains all maps.
template <class T, class Run>
__device__ __forceinline__ void run_stretches(const Stretches& s, const T* in, T* log_det, T* shared, const Run& run) {
    constexpr int W = numbers_of_16<T>;
    const bool is_short = s.active <= coupling_stretch;
    const int64_t units = is_short ? s.count : s.rows, rows_of_unit = is_short ? s.rows_of_stretch : 1;
    for (int64_t k = blockIdx.x; k < units; k += gridDim.x) {
        const int64_t row = k * rows_of_unit, left = s.rows - row, rows = left < rows_of_unit ? left : rows_of_unit;
        T own = 0;
        const int64_t end = rows * s.active;
        for (int64_t c = 0; c == 0 || c < end; c += coupling_stretch) {  // one iteration where rows are empty
            const int64_t first = row * s.active + c;
            const int n = int(end - c < coupling_stretch ? end - c : coupling_stretch);
            T* const log = shared + (W - numbers_to_16(in + first)) % W;
            run(first, n, log);
            __syncthreads();
            if (is_short) {
                sum_short_rows(s, log, int(rows), log_det + row);
            } else {
                for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) own += log[i];
            }
            __syncthreads();
        }
        if (!is_short) sum_long_row(own, shared, log_det + row);
    }
}

template <int P, class T>
__global__ void __launch_bounds__(direct_threads)
    coupling_rows_direct(AnyMap map, MapOptions<T> options, Stretches s, const T* in, const T* params, T* value,
                         T* log_det) {
    HR_DYNAMIC_SHARED(T, shared);
    run_stretches(s, in, log_det, shared, [&](int64_t first, int n, T* log) {
        run_direct<P>(map, options, in + first, params + first * P, value + first, n, log);
    });
}

template <class T>
__global__ void __launch_bounds__(staged_threads, staged_blocks<T>)
    coupling_rows_staged(AnyMap map, MapOptions<T> options, Stretches s, const T* in, const T* params, T* value,
                         T* log_det) {
    constexpr int W = numbers_of_16<T>;
    HR_DYNAMIC_SHARED(T, shared);
    const int64_t stretch = s.active < coupling_stretch ? s.active * s.rows_of_stretch : coupling_stretch;
    T* const tile = shared + (stretch + W - 1) / W * W + W;
    run_stretches(s, in, log_det, shared, [&](int64_t first, int n, T* log) {
        run_staged(map, options, s, in + first, params + first * map.n_params, value + first, n, log, tile);
    });
}

// The row of element i of a piece of at most coupling_stretch elements.
class RowOf {
  public:
    __device__ __forceinline__ RowOf(int64_t first, int64_t active)
        : row_(first / active), offset_(first - row_ * active), active_(active) {}
    __device__ __forceinline__ int64_t operator()(int i) const {
        const int64_t place = offset_ + i;
        if (active_ >= coupling_stretch) return row_ + (place >= active_ ? 1 : 0);
        return row_ + uint32_t(place) / uint32_t(active_);
    }

  private:
    int64_t row_, offset_, active_;
};

template <int P, class T>
__global__ void __launch_bounds__(direct_threads)
    coupling_backward_direct(AnyMap map, MapOptions<T> options, int64_t elements, int64_t active, const T* in,
                             const T* params, const T* grad_value, const T* grad_log_det, T* grad_in, T* grad_params) {
    constexpr int N = numbers_of_16<T>, piece = direct_threads * N;
    for (int64_t first = int64_t(blockIdx.x) * piece; first < elements; first += int64_t(gridDim.x) * piece) {
        const int n = int(elements - first < piece ? elements - first : piece);
        const RowOf row(first, active);
        const T *const x_at = in + first, *const p_at = params + first * P, *const g_at = grad_value + first;
        T *const by_x_at = grad_in + first, *const by_p_at = grad_params + first * P;
        const auto aligned_at = [&](int i) {
            return is_aligned_16(p_at + i * P) && is_aligned_16(g_at + i) && is_aligned_16(by_x_at + i) &&
                   is_aligned_16(by_p_at + i * P);
        };
        for_elements(x_at, n, aligned_at, [&](const Elements& some) {
            T x[N] = {}, g[N] = {}, p[N * P] = {}, by_log[N] = {};
            load_elements<1>(some, x_at, x);
            load_elements<1>(some, g_at, g);
            load_elements<P>(some, p_at, p);
            HR_UNROLL for (int j = 0; j < N; ++j) if (j < some.count) by_log[j] = grad_log_det[row(some(j))];
            map.run<T, P>([&]<class Map>() {
                HR_UNROLL for (int j = 0; j < N; ++j) g[j] =
                    apply_vjp<Map>(map.inverse, x[j], PlainParams<T>{p + j * P}, options, g[j], by_log[j],
                                   [&](int k, T by) { p[j * P + k] = by; });
            });
            store_elements<1>(some, by_x_at, g);
            store_elements<P>(some, by_p_at, p);
        });
    }
}

template <class T>
__global__ void __launch_bounds__(staged_threads, staged_blocks<T>)
    coupling_backward_staged(AnyMap map, MapOptions<T> options, int64_t elements, int64_t active, TilePlaces places,
                             int stride, int room_stride, const T* in, const T* params, const T* grad_value,
                             const T* grad_log_det, T* grad_in, T* grad_params) {
    HR_DYNAMIC_SHARED(T, tile);
    const int n_params = map.n_params, threads = int(blockDim.x), thread = int(threadIdx.x);
    T* const own = tile + thread * stride;
    T* const room = tile + threads * stride + thread * room_stride;
    for (int64_t first = int64_t(blockIdx.x) * threads; first < elements; first += int64_t(gridDim.x) * threads) {
        const int n = int(elements - first < threads ? elements - first : threads);
        rows_to_tile(params + first * n_params, n * n_params, places, tile);
        __syncthreads();
        if (thread < n) {
            const int64_t i = first + thread;
            const T grad_log = grad_log_det[RowOf(first, active)(thread)];
            map.run<T, 0>([&]<class Map>() {
                grad_in[i] = apply_vjp<Map>(map.inverse, in[i], StagedParams<T>{own, room}, options, grad_value[i],
                                            grad_log, [&](int k, T by) { own[k] = by; });
            });
        }
        __syncthreads();
        tile_to_rows(tile, n * n_params, places, grad_params + first * n_params);
        __syncthreads();
    }
}

unsigned grid_for(int64_t blocks) {
    return unsigned(std::min(blocks, most_blocks));
}

// The number of threads of a block, each of which stages `bytes` bytes.
int staged_threads_for(int64_t bytes, int64_t others) {
    int threads = staged_threads;
    while (threads > fewest_staged_threads && threads * bytes + others > staged_bytes) threads /= 2;
    return threads;
}

}  // namespace

template <class T>
void coupling(int map, bool inverse, const MapOptions<T>& options, const T* in, const T* params, T* value, T* log_det,
              int64_t rows, int64_t active, cudaStream_t stream) {
    if (rows == 0) return;
    with_map(map, [&]<class Map>() {
        constexpr int64_t W = numbers_of_16<T>;
        constexpr int P = direct_params<Map, T>;
        constexpr bool direct = P > 0;
        const int n_params = n_params_with<Map>(options);
        const AnyMap any{map, inverse, n_params};
        const int64_t most = std::max<int64_t>(1, coupling_stretch / std::max<int64_t>(1, active));
        Stretches s{rows, active, 0, 0, 1, {}, odd(n_params)};
        s.places = TilePlaces(std::max(2, n_params), std::max(2, s.stride));
        const int64_t fewest = (direct ? direct_threads * W : staged_threads) / std::max<int64_t>(1, active);
        s.rows_of_stretch =
            int(std::min(most, std::max({fewest, (rows + enough_stretches - 1) / enough_stretches, int64_t(1)})));
        s.count = (rows + s.rows_of_stretch - 1) / s.rows_of_stretch;
        while (s.lanes_of_row < 32 && 4 * s.lanes_of_row < active) s.lanes_of_row *= 2;
        // The size of a stretch's log-derivatives, and 16 bytes more, so that log-derivatives can have the alignment of
        // values.
        const int64_t stretch = std::min<int64_t>(coupling_stretch, active * s.rows_of_stretch);
        const int64_t logs = ((stretch + W - 1) / W * W + W) * int64_t(sizeof(T));
        const int64_t bytes = s.stride * int64_t(sizeof(T));
        const int threads = direct ? direct_threads : staged_threads_for(bytes, logs);
        const size_t shared = size_t(std::max<int64_t>(logs, 256) + (direct ? 0 : threads * bytes));
        if constexpr (direct) {
            auto* const kernel = coupling_rows_direct<P, T>;
            allow_shared(kernel);
            HR_LAUNCH(kernel, grid_for(s.count), threads, shared, stream, any, options, s, in, params, value, log_det);
        } else {
            auto* const kernel = coupling_rows_staged<T>;
            allow_shared(kernel);
            HR_LAUNCH(kernel, grid_for(s.count), threads, shared, stream, any, options, s, in, params, value, log_det);
        }
        check_launch("coupling");
    });
}

template <class T>
void coupling_backward(int map, bool inverse, const MapOptions<T>& options, const T* in, const T* params,
                       const T* grad_value, const T* grad_log_det, T* grad_in, T* grad_params, int64_t rows,
                       int64_t active, cudaStream_t stream) {
    const int64_t elements = rows * active;
    if (elements == 0) return;
    with_map(map, [&]<class Map>() {
        constexpr int P = direct_params<Map, T>;
        const int n_params = n_params_with<Map>(options);
        const AnyMap any{map, inverse, n_params};
        if constexpr (P > 0) {
            constexpr int64_t piece = direct_threads * numbers_of_16<T>;
            auto* const kernel = coupling_backward_direct<P, T>;
            HR_LAUNCH(kernel, grid_for((elements + piece - 1) / piece), direct_threads, 0, stream, any, options,
                      elements, active, in, params, grad_value, grad_log_det, grad_in, grad_params);
        } else {
            const int stride = odd(n_params);
            const int room = room_of<Map>(options.bins), room_stride = room > 0 ? odd(room) : 0;
            const int64_t bytes = (stride + room_stride) * int64_t(sizeof(T));
            const int threads = staged_threads_for(bytes, 0);
            auto* const kernel = coupling_backward_staged<T>;
            allow_shared(kernel);
            HR_LAUNCH(kernel, grid_for((elements + threads - 1) / threads), threads, size_t(threads * bytes), stream,
                      any, options, elements, active, TilePlaces(n_params, stride), stride, room_stride, in, params,
                      grad_value, grad_log_det, grad_in, grad_params);
        }
        check_launch("coupling_backward");
    });
}

#define HR_INSTANTIATE(T)                                                                                            \
    template void coupling(int, bool, const MapOptions<T>&, const T*, const T*, T*, T*, int64_t, int64_t,            \
                           cudaStream_t);                                                                            \
    template void coupling_backward(int, bool, const MapOptions<T>&, const T*, const T*, const T*, const T*, T*, T*, \
                                    int64_t, int64_t, cudaStream_t);
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
