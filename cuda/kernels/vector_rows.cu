// Bytes that must be moved, float32, of a row of F features: 8 F + 4 with one set of parameters, and n_raw more numbers
// (planar 2 F + 1, radial F + 2) if it has its own. On the way back 12 F + 4, and 2 n_raw numbers more.
//
// A block takes tiles of rows. They come to shared memory 16 bytes at a time, each row goes to a group of lanes of one
// warp, a single one where features are few, and results go back as they came. Rows too long for that are read where
// they are, by a warp each, and so are those in float64, which is for checking. What a group sums it sums in an order
// that depends on the number of features alone.
//
// One set of parameters is made ready in float64 by a kernel before, and its gradient comes from sums over rows in
// float64: each block keeps its own, the tiles of a block in their order, and two more kernels sum the blocks and go
// back from ready to raw parameters. Nothing comes to the host.
#include "vector_rows.cuh"

#include <algorithm>
#include <array>

#include "../../cpp/math/vector_maps.hpp"
#include "../include/launch.cuh"
#include "../include/memory.cuh"
#include "rows.cuh"

namespace headrace {
namespace {

// The lanes that share a row (cpp/math/coordinates.hpp).
struct RowLanes {
    int first, step;

    template <class T>
    __device__ __forceinline__ T sum(T own) const {
        return sum_of_lanes(own, step);
    }
    template <class T>
    __device__ __forceinline__ T largest(T own) const {
        return largest_of_lanes(own, step);
    }
};

// Parameters of a row, or of all rows, in V.
template <class V, class T>
struct RowParams {
    RowLanes lanes;
    const T* p;
    __device__ __forceinline__ V operator()(int k, int = 0) const { return V(p[k]); }
};

// Ready parameters that do not belong to a coordinate, and raw ones at most.
constexpr int others = 2;

// Receives numbers for parameters: those of coordinates where they belong at once, as each is for one lane, and the
// others when all lanes have read what was there before.
template <class T>
struct Receiver {
    T* to;
    int of_coordinates;
    T other[others];

    template <class V>
    __device__ __forceinline__ void put(int k, V value) {
        if (k < of_coordinates) {
            to[k] = T(value);
        } else if (k == of_coordinates) {
            other[0] = T(value);
        } else {
            other[1] = T(value);
        }
    }
    __device__ __forceinline__ void finish(const RowLanes& lanes, int count) {
        __syncwarp();
        if (lanes.first == 0)
            for (int i = 0; i < others; ++i)
                if (of_coordinates + i < count) to[of_coordinates + i] = other[i];
        __syncwarp();
    }
};

// Raw parameters to ready ones, in V; `ready` may be where the raw ones are.
template <class Map, class V, class P, class T>
__device__ __forceinline__ void prepare_row(const P& raw, int features, T* ready) {
    static_assert(Map::n_ready(1) - Map::vectors == others && Map::n_raw(1) - Map::vectors <= others);
    Receiver<T> to{ready, Map::vectors * features, {}};
    Map::template prepare<V>(raw, features, [&](int k, V value) { to.put(k, value); });
    to.finish(raw.lanes, Map::n_ready(features));
}

// Gradients by ready parameters to those by raw ones; `grad_raw` may be where the raw ones are.
template <class Map, class V, class P, class G, class T>
__device__ __forceinline__ void prepare_row_vjp(const P& raw, const G& grad_ready, int features, T* grad_raw) {
    Receiver<T> to{grad_raw, Map::vectors * features, {}};
    Map::template prepare_vjp<V>(raw, grad_ready, features, [&](int k, V g) { to.put(k, g); });
    to.finish(raw.lanes, Map::n_raw(features));
}

template <class Map, class T, class P>
__device__ __forceinline__ T start_of_lane(const P& p, int features) {
    const T start = Map::template start<T>(p, features);
    return p.lanes.first == 0 ? start : T(0);
}

// How far a row moves, and the factors of its determinant.
template <class Map, bool inverse, class T, class P>
__device__ __forceinline__ void amount_of(const T* given, const P& p, int features, const MapOptions<T>& options,
                                          T (&amount)[1], T (&factor)[1][Map::factors]) {
    T sum[1] = {start_of_lane<Map, T>(p, features)};
    for (int c = p.lanes.first; c < features; c += p.lanes.step)
        sum[0] = Map::accumulate(sum[0], given[c], p, c, features);
    sum[0] = p.lanes.sum(sum[0]);
    if constexpr (inverse) {
        Map::inverse(sum, p, features, options, amount, factor);
    } else {
        Map::forward(sum, p, features, options, amount, factor);
    }
}

// A row, by its lanes; `built` may be `given`. Gives the log-determinant.
template <class Map, bool inverse, class T, class P>
__device__ __forceinline__ T run_row(const T* given, const P& p, int features, const MapOptions<T>& options, T* built) {
    T amount[1], factor[1][Map::factors];
    amount_of<Map, inverse>(given, p, features, options, amount, factor);
    for (int c = p.lanes.first; c < features; c += p.lanes.step)
        built[c] = Map::move(given[c], amount[0], p, c, features);
    T total = 0;
    for (int f = 0; f < Map::factors; ++f) total += log(factor[0][f]) * T(Map::power(f, features));
    return inverse ? -total : total;
}

// The gradient by what was given, which may lie where that by what was built is, and by the ready parameters, which may
// lie where these are.
template <class Map, bool inverse, class T, class P>
__device__ __forceinline__ void run_row_vjp(const T* given, const P& p, int features, const MapOptions<T>& options,
                                            const T* grad_built, T grad_log_det, T* grad_given, T* grad_ready) {
    T amount[1] = {0};
    if constexpr (inverse) {
        T factor[1][Map::factors];
        amount_of<Map, inverse>(given, p, features, options, amount, factor);
    }
    auto sums = Map::reduced(start_of_lane<Map, T>(p, features));
    for (int c = p.lanes.first; c < features; c += p.lanes.step) {
        const T latent = inverse ? Map::move(given[c], amount[0], p, c, features) : given[c];
        Map::reduce(sums, given[c], latent, grad_built[c], p, c, features);
    }
    sums.each([&](T& sum) { sum = p.lanes.sum(sum); });
    Receiver<T> to{grad_ready, Map::vectors * features, {}};
    const auto put = [&](int k, T g) { to.put(k, g); };
    const auto of_row = Map::template backward<inverse>(sums, grad_log_det, p, features, options, put);
    for (int c = p.lanes.first; c < features; c += p.lanes.step)
        grad_given[c] = Map::spread(of_row, given[c], grad_built[c], p, c, features, put);
    to.finish(p.lanes, Map::n_ready(features));
}

// ---- tiles ----------------------------------------------------------------------------------------------------------

// An array of a tile in shared memory: `stride` numbers from row to row.
struct TileArray {
    int start, stride;
    TilePlaces places;
};

// Numbers whose rows may be in shared memory.
template <class T>
constexpr bool has_row_tiles = sizeof(T) == 4;

// How a call is cut; known to the host.
template <int arrays>
struct RowTiles {
    int64_t rows, count;
    int rows_of_tile, lanes;
    bool in_shared;
    int bytes;  // of shared memory
    TileArray array[arrays];

    // `lengths`: numbers of a row in each array. Only those of four bytes are in shared memory (has_row_tiles).
    RowTiles(int64_t all, const std::array<int, arrays>& lengths, int number_bytes) : rows(all) {
        for (lanes = 1;; lanes *= 2) {
            rows_of_tile = vector_threads / lanes;
            int64_t numbers = 0;
            for (int n : lengths) numbers += padded(n) * rows_of_tile;
            const int64_t needed = numbers * number_bytes;
            in_shared = number_bytes == 4 && needed <= (lanes < 32 ? small_tile_bytes : large_tile_bytes);
            bytes = in_shared ? int(needed) : 0;
            if (in_shared || lanes == 32) break;
        }
        count = (rows + rows_of_tile - 1) / rows_of_tile;
        int start = 0;
        for (int i = 0; in_shared && i < arrays; ++i) {
            const int stride = int(padded(lengths[size_t(i)]));
            array[i] = {start, stride, TilePlaces(lengths[size_t(i)], stride)};
            start += stride * rows_of_tile;
        }
    }

  private:
    // Up to an odd multiple of the lanes: then groups next to each other, which read as many numbers as they have lanes
    // at the same time, do not meet in the same banks.
    int64_t padded(int64_t n) const { return (n + lanes - 1) / (2 * lanes) * (2 * lanes) + lanes; }
};

template <class T>
__device__ __forceinline__ T* tile_row(T* shared, const TileArray& array, int row) {
    return shared + array.start + row * array.stride;
}

template <class T>
__device__ __forceinline__ void array_to_tile(const T* array, int length, int64_t row, int rows, const TileArray& tile,
                                              T* shared) {
    rows_to_tile(array + row * length, rows * length, tile.places, shared + tile.start);
}

template <class T>
__device__ __forceinline__ void tile_to_array(const T* shared, const TileArray& tile, int length, int64_t row, int rows,
                                              T* array) {
    tile_to_rows(shared + tile.start, rows * length, tile.places, array + row * length);
}

// Values, and each row's parameters: raw, then ready.
template <class Map, bool inverse, bool shared_set, class T>
__global__ void __launch_bounds__(vector_threads)
    vector_rows_forth(VectorRows<T> a, RowTiles<shared_set ? 1 : 2> tiles) {
    HR_DYNAMIC_SHARED(T, shared);
    const RowLanes lanes{int(threadIdx.x) % tiles.lanes, tiles.lanes};
    const int own = int(threadIdx.x) / tiles.lanes, features = a.features;
    for (int64_t tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
        const int64_t row = tile * tiles.rows_of_tile, left = tiles.rows - row;
        const int n = int(left < tiles.rows_of_tile ? left : tiles.rows_of_tile);
        array_to_tile(a.value, features, row, n, tiles.array[0], shared);
        if constexpr (!shared_set) array_to_tile(a.params, a.n_raw, row, n, tiles.array[1], shared);
        __syncthreads();
        // Groups beyond the last row take part with what lies there: shuffles are for whole warps.
        T* const z = tile_row(shared, tiles.array[0], own);
        const T* ready = a.ready;
        if constexpr (!shared_set) {
            T* const p = tile_row(shared, tiles.array[1], own);
            prepare_row<Map, T>(RowParams<T, T>{lanes, p}, features, p);
            ready = p;
        }
        const T log_det = run_row<Map, inverse>(z, RowParams<T, T>{lanes, ready}, features, a.options, z);
        if (own < n && lanes.first == 0) a.log_det[row + own] = log_det;
        __syncthreads();
        tile_to_array(shared, tiles.array[0], features, row, n, a.result);
        __syncthreads();
    }
}

// Rows that do not fit into shared memory: a warp a row. Few have such, so that one kernel serves both directions, one
// set of parameters (a.ready) and rows' own, whose ready ones are in `room` for each warp of the grid.
template <class Map, class T>
__global__ void __launch_bounds__(vector_threads) long_rows_forth(VectorRows<T> a, int64_t rows, T* room) {
    constexpr int rows_of_block = vector_threads / 32;
    const RowLanes lanes{int(threadIdx.x) % 32, 32};
    const int64_t warp = int64_t(blockIdx.x) * rows_of_block + int(threadIdx.x) / 32;
    for (int64_t row = warp; row < rows; row += int64_t(gridDim.x) * rows_of_block) {
        RowParams<T, T> ready{lanes, a.ready};
        if (!a.ready) {
            T* const p = room + warp * a.n_ready;
            prepare_row<Map, T>(RowParams<T, T>{lanes, a.params + row * a.n_raw}, a.features, p);
            ready.p = p;
        }
        const T* const given = a.value + row * a.features;
        T* const built = a.result + row * a.features;
        const T log_det = a.inverse ? run_row<Map, true>(given, ready, a.features, a.options, built)
                                    : run_row<Map, false>(given, ready, a.features, a.options, built);
        if (lanes.first == 0) a.log_det[row] = log_det;
        __syncwarp();  // the room is the next row's
    }
}

// A block's sums over rows of the gradients by n_ready parameters: some threads for each, with a share of the rows.
struct BlockSums {
    double* sums;  // [part][n_ready] of this block
    int n_ready, parts;

    __device__ __forceinline__ BlockSums(double* all, int n)
        : n_ready(n), parts(int(blockDim.x) / n > 1 ? int(blockDim.x) / n : 1) {
        sums = all + int64_t(blockIdx.x) * parts * n_ready;
    }
    // Rows [0, n) of `gradients`; the first ones, or to be added.
    template <class T>
    __device__ __forceinline__ void add(const T* gradients, int64_t stride, int n, bool first) const {
        const int64_t size = int64_t(parts) * n_ready;
        for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
            const int part = int(i / n_ready);
            const T* const g = gradients + i % n_ready;
            double sum = first ? 0.0 : sums[i];
            for (int r = part; r < n; r += parts) sum += double(g[r * stride]);
            sums[i] = sum;
        }
    }
    // The sum of all parts becomes part 0; after a barrier.
    __device__ __forceinline__ void finish() const {
        if (parts == 1) return;
        for (int k = int(threadIdx.x); k < n_ready; k += int(blockDim.x)) {
            double sum = sums[k];
            for (int part = 1; part < parts; ++part) sum += sums[part * n_ready + k];
            sums[k] = sum;
        }
    }
};

int parts_of_sums(int n_ready) {
    return std::max(1, vector_threads / n_ready);
}

// Values and gradients, and: of one set of parameters the gradients of each row by the ready ones, of rows' own the raw
// ones and the ready ones.
template <class Map, bool inverse, bool shared_set, class T>
__global__ void __launch_bounds__(vector_threads, row_blocks<T, true>)
    vector_rows_back(VectorRows<T> a, VectorRowsBack<T> back, RowTiles<shared_set ? 3 : 4> tiles, double* sums) {
    HR_DYNAMIC_SHARED(T, shared);
    const RowLanes lanes{int(threadIdx.x) % tiles.lanes, tiles.lanes};
    const int own = int(threadIdx.x) / tiles.lanes, features = a.features;
    T* const ready_rows = shared + tiles.array[2].start;
    T* const of_ready = tile_row(shared, tiles.array[2], own);
    for (int64_t tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
        const int64_t row = tile * tiles.rows_of_tile, left = tiles.rows - row;
        const int n = int(left < tiles.rows_of_tile ? left : tiles.rows_of_tile);
        const T grad_log_det = own < n ? back.grad_log_det[row + own] : T(0);
        array_to_tile(a.value, features, row, n, tiles.array[0], shared);
        array_to_tile(back.grad_value, features, row, n, tiles.array[1], shared);
        if constexpr (!shared_set) array_to_tile(a.params, a.n_raw, row, n, tiles.array[3], shared);
        __syncthreads();
        const T* const given = tile_row(shared, tiles.array[0], own);
        T* const gradient = tile_row(shared, tiles.array[1], own);
        if constexpr (shared_set) {
            run_row_vjp<Map, inverse>(given, RowParams<T, T>{lanes, a.ready}, features, a.options, gradient,
                                      grad_log_det, gradient, of_ready);
        } else {
            T* const raw = tile_row(shared, tiles.array[3], own);
            const RowParams<T, T> raw_params{lanes, raw}, ready{lanes, of_ready};
            prepare_row<Map, T>(raw_params, features, of_ready);
            run_row_vjp<Map, inverse>(given, ready, features, a.options, gradient, grad_log_det, gradient, of_ready);
            prepare_row_vjp<Map, T>(raw_params, ready, features, raw);
        }
        __syncthreads();
        tile_to_array(shared, tiles.array[1], features, row, n, back.grad_input);
        if constexpr (!shared_set) tile_to_array(shared, tiles.array[3], a.n_raw, row, n, back.grad_params);
        if constexpr (shared_set)
            BlockSums(sums, a.n_ready).add(ready_rows, tiles.array[2].stride, n, tile == int64_t(blockIdx.x));
        __syncthreads();
    }
    if constexpr (shared_set) BlockSums(sums, a.n_ready).finish();
}

// As long_rows_forth; in `room` are the ready parameters and then the gradients by them. `sums`: null for rows' own.
template <class Map, class T>
__global__ void __launch_bounds__(vector_threads, row_blocks<T, false>)
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
            const RowParams<T, T> raw{lanes, a.params + (a.ready ? 0 : row * a.n_raw)};
            const RowParams<T, T> ready{lanes, a.ready ? a.ready : of_ready};
            if (!a.ready) prepare_row<Map, T>(raw, features, of_ready);
            const T *const given = a.value + row * features, *const grad_built = back.grad_value + row * features;
            T* const grad_given = back.grad_input + row * features;
            const T grad_log_det = back.grad_log_det[row];
            if (a.inverse) {
                run_row_vjp<Map, true>(given, ready, features, a.options, grad_built, grad_log_det, grad_given,
                                       of_ready);
            } else {
                run_row_vjp<Map, false>(given, ready, features, a.options, grad_built, grad_log_det, grad_given,
                                        of_ready);
            }
            if (!a.ready) prepare_row_vjp<Map, T>(raw, ready, features, back.grad_params + row * a.n_raw);
        }
        if (!sums) continue;
        __syncthreads();
        const int n = int(rows - begin < rows_of_block ? rows - begin : rows_of_block);
        BlockSums(sums, a.n_ready).add(ready_rows, a.n_ready, n, tile == int64_t(blockIdx.x));
        __syncthreads();
    }
    if (sums) BlockSums(sums, a.n_ready).finish();
}

// One set of parameters for all rows, by one warp, in float64.
template <class Map, class T>
__global__ void __launch_bounds__(32) prepare_set(int features, const T* raw, T* ready) {
    prepare_row<Map, double>(RowParams<double, T>{{int(threadIdx.x), 32}, raw}, features, ready);
}

template <class Map, class T>
__global__ void __launch_bounds__(32) prepare_set_vjp(int features, const T* raw, const double* by_ready, T* by_raw) {
    const RowLanes lanes{int(threadIdx.x), 32};
    prepare_row_vjp<Map, double>(RowParams<double, T>{lanes, raw}, RowParams<double, double>{lanes, by_ready}, features,
                                 by_raw);
}

// total[k] of the first n numbers of each of `count` blocks of sums, `size` numbers apart: a lane a number, a share of
// the blocks for each warp.
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

// f.operator()<Map, inverse>() for a map and a direction.
template <class F>
void with_vector_map_and_direction(int map, bool inverse, const F& f) {
    with_vector_map(map, [&]<class Map>() {
        if (inverse) {
            f.template operator()<Map, true>();
        } else {
            f.template operator()<Map, false>();
        }
    });
}

template <class Map, class T>
DeviceBuffer<T> ready_set(const VectorRows<T>& a, cudaStream_t stream) {
    DeviceBuffer<T> ready(size_t(Map::n_ready(a.features)), stream);
    auto* const kernel = prepare_set<Map, T>;
    HR_LAUNCH(kernel, 1, 32, 0, stream, a.features, a.params, ready.get());
    check_launch("prepare_set");
    return ready;
}

template <class Map, bool inverse, bool shared_set, class T>
void run_forth(VectorRows<T> a, int64_t rows, cudaStream_t stream) {
    DeviceBuffer<T> ready;
    a.ready = nullptr;
    if constexpr (shared_set) {
        ready = ready_set<Map>(a, stream);
        a.ready = ready.get();
    }
    std::array<int, shared_set ? 1 : 2> lengths{a.features};
    if constexpr (!shared_set) lengths[1] = a.n_ready;
    RowTiles<shared_set ? 1 : 2> tiles(rows, lengths, int(sizeof(T)));
    if (!tiles.in_shared) {
        const int64_t blocks = std::min(tiles.count, shared_set ? most_blocks : row_sum_blocks);  // each has a room
        const DeviceBuffer<T> room(shared_set ? 0 : size_t(blocks) * size_t(tiles.rows_of_tile) * size_t(a.n_ready),
                                   stream);
        auto* const kernel = long_rows_forth<Map, T>;
        HR_LAUNCH(kernel, unsigned(blocks), vector_threads, 0, stream, a, rows, room.get());
        return check_launch("vector_map");
    }
    if constexpr (has_row_tiles<T>) {
        if constexpr (!shared_set)  // raw parameters come in, ready ones replace them
            tiles.array[1].places = TilePlaces(a.n_raw, tiles.array[1].stride);
        auto* const kernel = vector_rows_forth<Map, inverse, shared_set, T>;
        HR_LAUNCH(kernel, unsigned(std::min(tiles.count, most_blocks)), vector_threads, size_t(tiles.bytes), stream, a,
                  tiles);
        check_launch("vector_map");
    }
}

template <class Map, bool inverse, bool shared_set, class T>
void run_back(VectorRows<T> a, const VectorRowsBack<T>& back, int64_t rows, cudaStream_t stream) {
    DeviceBuffer<T> ready, room;
    DeviceBuffer<double> sums, total;
    a.ready = nullptr;
    if constexpr (shared_set) {
        ready = ready_set<Map>(a, stream);
        a.ready = ready.get();
    }
    std::array<int, shared_set ? 3 : 4> lengths{a.features, a.features, a.n_ready};
    if constexpr (!shared_set) lengths[3] = a.n_raw;
    const RowTiles<shared_set ? 3 : 4> tiles(rows, lengths, int(sizeof(T)));
    // The sums' order depends on the number of blocks, and that on shapes alone.
    const int64_t sums_of_block = int64_t(parts_of_sums(a.n_ready)) * a.n_ready;
    int64_t blocks = std::min(tiles.count, row_sum_blocks);
    if constexpr (shared_set) {
        blocks = std::min(blocks, std::max<int64_t>(1, most_row_sums / sums_of_block));
        sums = DeviceBuffer<double>(size_t(blocks) * size_t(sums_of_block), stream);
    } else if (tiles.in_shared) {
        blocks = std::min(tiles.count, most_blocks);
    }
    if (!tiles.in_shared)
        room = DeviceBuffer<T>(size_t(blocks) * size_t(tiles.rows_of_tile) * size_t(a.n_ready), stream);
    if constexpr (shared_set) total = DeviceBuffer<double>(size_t(a.n_ready), stream);
    if (blocks > 0 && tiles.in_shared) {
        if constexpr (has_row_tiles<T>) {
            auto* const kernel = vector_rows_back<Map, inverse, shared_set, T>;
            HR_LAUNCH(kernel, unsigned(blocks), vector_threads, size_t(tiles.bytes), stream, a, back, tiles,
                      sums.get());
            check_launch("vector_map_backward");
        }
    } else if (blocks > 0) {
        auto* const kernel = long_rows_back<Map, T>;
        HR_LAUNCH(kernel, unsigned(blocks), vector_threads, 0, stream, a, back, rows, room.get(), sums.get());
        check_launch("vector_map_backward");
    }
    if constexpr (shared_set) {
        const int64_t warps_of_numbers = (int64_t(a.n_ready) + 31) / 32;
        HR_LAUNCH(sum_blocks_of_rows, unsigned(std::min(warps_of_numbers, most_blocks)), row_sum_threads,
                  row_sum_threads * sizeof(double), stream, sums.get(), sums_of_block, int(blocks), a.n_ready,
                  total.get());
        check_launch("sum_blocks_of_rows");
        auto* const kernel = prepare_set_vjp<Map, T>;
        HR_LAUNCH(kernel, 1, 32, 0, stream, a.features, a.params, total.get(), back.grad_params);
        check_launch("prepare_set_vjp");
    }
}

template <class Map, class T>
VectorRows<T> sized(VectorRows<T> a) {
    a.n_raw = Map::n_raw(a.features);
    a.n_ready = Map::n_ready(a.features);
    return a;
}

}  // namespace

template <class T>
void vector_map(const VectorRows<T>& a, bool shared, int64_t rows, cudaStream_t stream) {
    if (rows == 0) return;
    with_vector_map_and_direction(a.map, a.inverse, [&]<class Map, bool inverse>() {
        if (shared) {
            run_forth<Map, inverse, true>(sized<Map>(a), rows, stream);
        } else {
            run_forth<Map, inverse, false>(sized<Map>(a), rows, stream);
        }
    });
}

template <class T>
void vector_map_backward(const VectorRows<T>& a, bool shared, const VectorRowsBack<T>& back, int64_t rows,
                         cudaStream_t stream) {
    if (rows == 0 && !shared) return;  // one set's gradient is then 0
    with_vector_map_and_direction(a.map, a.inverse, [&]<class Map, bool inverse>() {
        if (shared) {
            run_back<Map, inverse, true>(sized<Map>(a), back, rows, stream);
        } else {
            run_back<Map, inverse, false>(sized<Map>(a), back, rows, stream);
        }
    });
}

#define HR_INSTANTIATE(T)                                                        \
    template void vector_map(const VectorRows<T>&, bool, int64_t, cudaStream_t); \
    template void vector_map_backward(const VectorRows<T>&, bool, const VectorRowsBack<T>&, int64_t, cudaStream_t);
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
