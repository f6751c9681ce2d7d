// The number of bytes that must be moved for a row of F features in float32 is 8 F + 4 with one set of parameters; a
// row with its own parameters has n_raw more values (planar 2 F + 1, radial F + 2). The backward pass moves 12 F + 4
// bytes for a row, and 2 n_raw more values for its own parameters.
//
// A block computes tiles of rows. Rows are copied to shared memory 16 bytes at a time, a group of lanes of one warp
// computes each row (one lane for few features), and results are copied back in the same way. Rows that are too long
// for shared memory are read from global memory, by one warp each, and so are rows in float64, which is used for
// checks. The order of a group's additions depends only on the number of features.
//
// A kernel serves all maps in both directions, with one set of parameters or parameters for each row, because each
// kernel adds to the module's size, all maps share the copies to and from shared memory, and a row selects its map
// once.
//
// One set of parameters is made ready in float64 by a separate kernel, and its gradient follows from sums over rows in
// float64: each block sums its tiles in order, and two further kernels sum the blocks and compute gradients by raw
// parameters. No result of these kernels is copied to the host.
#define HR_SMALL_CODE
#include "vector_rows.cuh"

#include <algorithm>
#include <array>

#include "../include/launch.cuh"
#include "../include/memory.cuh"
#include "vector_long_rows.hpp"
#include "vector_row.cuh"

namespace headrace {
namespace {

// ---- tiles ----------------------------------------------------------------------------------------------------------

// An array of a tile in shared memory, whose rows are `stride` elements apart.
struct TileArray {
    int start, stride;
    TilePlaces places;
};

// Whether rows of a type may be in shared memory.
template <class T>
constexpr bool has_row_tiles = sizeof(T) == 4;

// The partition of a call's rows into tiles, computed on the host.
template <int arrays>
struct RowTiles {
    int64_t rows, count;
    int rows_of_tile, lanes;
    bool in_shared;
    int bytes;  // size of shared memory
    TileArray array[arrays] = {};

    // A partition of rows. `lengths` has the number of elements of a row in each array, 0 for no array; only types of
    // four bytes are in shared memory (has_row_tiles).
    RowTiles(int64_t all, const std::array<int, arrays>& lengths, int number_bytes) : rows(all) {
        for (lanes = 1;; lanes *= 2) {
            rows_of_tile = vector_threads / lanes;
            int64_t numbers = 0;
            for (int n : lengths) numbers += n > 0 ? padded(n) * rows_of_tile : 0;
            const int64_t needed = numbers * number_bytes;
            in_shared = number_bytes == 4 && needed <= (lanes < 32 ? small_tile_bytes : large_tile_bytes);
            bytes = in_shared ? int(needed) : 0;
            if (in_shared || lanes == 32) break;
        }
        count = (rows + rows_of_tile - 1) / rows_of_tile;
        int start = 0;
        for (int i = 0; in_shared && i < arrays && lengths[size_t(i)] > 0; ++i) {
            const int stride = int(padded(lengths[size_t(i)]));
            array[i] = {start, stride, TilePlaces(lengths[size_t(i)], stride)};
            start += stride * rows_of_tile;
        }
    }

  private:
    // Rounds n up to an odd multiple of the lanes, so that adjacent groups, each of which reads one value for each of
    // its lanes at a time, do not conflict in banks.
    int64_t padded(int64_t n) const { return (n + lanes - 1) / (2 * lanes) * (2 * lanes) + lanes; }
};

template <class T>
__device__ __forceinline__ T* tile_row(T* shared, const TileArray& array, int row) {
    return shared + array.start + row * array.stride;
}

// Copies the first `rows` rows of the array, and sets the other rows of the tile, which groups without a row read, to
// zero.
template <class T>
__device__ __forceinline__ void array_to_tile(const T* array, int length, int64_t row, int rows, int rows_of_tile,
                                              const TileArray& tile, T* shared) {
    rows_to_tile(array + row * length, rows * length, tile.places, shared + tile.start);
    for (int i = rows * length + int(threadIdx.x); i < rows_of_tile * length; i += int(blockDim.x))
        shared[tile.start + tile.places(i)] = T(0);
}

template <class T>
__device__ __forceinline__ void tile_to_array(const T* shared, const TileArray& tile, int length, int64_t row, int rows,
                                              T* array) {
    tile_to_rows(shared + tile.start, rows * length, tile.places, array + row * length);
}

// Computes tiles of rows in shared memory. A tile has values and, where each row has parameters, raw parameters, which
// ready parameters replace.
template <class T>
__global__ void __launch_bounds__(vector_threads, row_blocks) vector_rows_forth(VectorRows<T> a, RowTiles<2> tiles) {
    HR_DYNAMIC_SHARED(T, shared);
    const bool shared_set = a.ready != nullptr;
    const RowLanes lanes{int(threadIdx.x) % tiles.lanes, tiles.lanes};
    const int own = int(threadIdx.x) / tiles.lanes, features = a.features;
    for (int64_t tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
        const int64_t row = tile * tiles.rows_of_tile, left = tiles.rows - row;
        const int n = int(left < tiles.rows_of_tile ? left : tiles.rows_of_tile);
        array_to_tile(a.value, features, row, n, tiles.rows_of_tile, tiles.array[0], shared);
        if (!shared_set) array_to_tile(a.params, a.n_raw, row, n, tiles.rows_of_tile, tiles.array[1], shared);
        __syncthreads();
        // Groups behind the last row take part with zeros, because shuffles need whole warps.
        T* const z = tile_row(shared, tiles.array[0], own);
        const T* ready = a.ready;
        if (!shared_set) {
            T* const p = tile_row(shared, tiles.array[1], own);
            prepare_row_of<T>(a, RowParams<T, const T*>{lanes, p}, p);
            ready = p;
        }
        const T log_det = run_row_of(a, z, RowParams<T, const T*>{lanes, ready}, z);
        if (own < n && lanes.first == 0) a.log_det[row + own] = log_det;
        __syncthreads();
        tile_to_array(shared, tiles.array[0], features, row, n, a.result);
        __syncthreads();
    }
}

// The backward pass for tiles of rows in shared memory. A tile has values, gradients, and either each row's gradients
// by one set of ready parameters, or the raw and the ready parameters of each row.
template <class T>
__global__ void __launch_bounds__(vector_threads, row_blocks)
    vector_rows_back(VectorRows<T> a, VectorRowsBack<T> back, RowTiles<4> tiles, double* sums) {
    HR_DYNAMIC_SHARED(T, shared);
    const bool shared_set = a.ready != nullptr;
    const RowLanes lanes{int(threadIdx.x) % tiles.lanes, tiles.lanes};
    const int own = int(threadIdx.x) / tiles.lanes, features = a.features;
    T* const ready_rows = shared + tiles.array[2].start;
    T* const of_ready = tile_row(shared, tiles.array[2], own);
    for (int64_t tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
        const int64_t row = tile * tiles.rows_of_tile, left = tiles.rows - row;
        const int n = int(left < tiles.rows_of_tile ? left : tiles.rows_of_tile);
        const T grad_log_det = own < n ? back.grad_log_det[row + own] : T(0);
        array_to_tile(a.value, features, row, n, tiles.rows_of_tile, tiles.array[0], shared);
        array_to_tile(back.grad_value, features, row, n, tiles.rows_of_tile, tiles.array[1], shared);
        if (!shared_set) array_to_tile(a.params, a.n_raw, row, n, tiles.rows_of_tile, tiles.array[3], shared);
        __syncthreads();
        const T* const given = tile_row(shared, tiles.array[0], own);
        T* const gradient = tile_row(shared, tiles.array[1], own);
        T* const raw = shared_set ? of_ready : tile_row(shared, tiles.array[3], own);
        const RowParams<T, const T*> raw_params{lanes, raw}, ready{lanes, shared_set ? a.ready : of_ready};
        if (!shared_set) prepare_row_of<T>(a, raw_params, of_ready);
        run_row_vjp_of(a, given, ready, gradient, grad_log_det, gradient, of_ready);
        if (!shared_set) prepare_row_vjp_of<T>(a, raw_params, ready, raw);
        __syncthreads();
        tile_to_array(shared, tiles.array[1], features, row, n, back.grad_input);
        if (!shared_set) tile_to_array(shared, tiles.array[3], a.n_raw, row, n, back.grad_params);
        if (shared_set)
            BlockSums(sums, a.n_ready).add(ready_rows, tiles.array[2].stride, n, tile == int64_t(blockIdx.x));
        __syncthreads();
    }
    if (shared_set) BlockSums(sums, a.n_ready).finish();
}

// Computes the ready parameters of one set.
template <class T>
const T* prepare(const VectorRows<T>& a, DeviceBuffer<T>& ready, cudaStream_t stream) {
    ready = DeviceBuffer<T>(size_t(a.n_ready), stream);
    launch_prepare_set(a, ready.get(), stream);
    return ready.get();
}

template <class T>
void run_forth(VectorRows<T> a, bool shared_set, int64_t rows, cudaStream_t stream) {
    DeviceBuffer<T> ready;
    a.ready = shared_set ? prepare(a, ready, stream) : nullptr;
    RowTiles<2> tiles(rows, {a.features, shared_set ? 0 : a.n_ready}, int(sizeof(T)));
    if (!tiles.in_shared) {
        const int64_t blocks = std::min(tiles.count, shared_set ? most_blocks : row_sum_blocks);  // one buffer each
        const DeviceBuffer<T> room(shared_set ? 0 : size_t(blocks) * size_t(tiles.rows_of_tile) * size_t(a.n_ready),
                                   stream);
        return launch_long_rows(a, rows, unsigned(blocks), room.get(), stream);
    }
    if constexpr (has_row_tiles<T>) {
        if (!shared_set)  // raw parameters are loaded, and ready parameters replace them
            tiles.array[1].places = TilePlaces(a.n_raw, tiles.array[1].stride);
        auto* const kernel = vector_rows_forth<T>;
        HR_LAUNCH(kernel, unsigned(std::min(tiles.count, most_blocks)), vector_threads, size_t(tiles.bytes), stream, a,
                  tiles);
        check_launch("vector_map");
    }
}

template <class T>
void run_back(VectorRows<T> a, bool shared_set, const VectorRowsBack<T>& back, int64_t rows, cudaStream_t stream) {
    DeviceBuffer<T> ready, room;
    DeviceBuffer<double> sums, total;
    a.ready = shared_set ? prepare(a, ready, stream) : nullptr;
    const RowTiles<4> tiles(rows, {a.features, a.features, a.n_ready, shared_set ? 0 : a.n_raw}, int(sizeof(T)));
    // The order of additions depends on the number of blocks, which depends only on shapes.
    const int64_t sums_of_block = int64_t(parts_of_sums(a.n_ready)) * a.n_ready;
    int64_t blocks = std::min(tiles.count, row_sum_blocks);
    if (shared_set) {
        blocks = std::min(blocks, std::max<int64_t>(1, most_row_sums / sums_of_block));
        sums = DeviceBuffer<double>(size_t(blocks) * size_t(sums_of_block), stream);
    } else if (tiles.in_shared) {
        blocks = std::min(tiles.count, most_blocks);
    }
    if (!tiles.in_shared)
        room = DeviceBuffer<T>(size_t(blocks) * size_t(tiles.rows_of_tile) * size_t(a.n_ready), stream);
    if (shared_set) total = DeviceBuffer<double>(size_t(a.n_ready), stream);
    if (blocks > 0 && tiles.in_shared) {
        if constexpr (has_row_tiles<T>) {
            auto* const kernel = vector_rows_back<T>;
            HR_LAUNCH(kernel, unsigned(blocks), vector_threads, size_t(tiles.bytes), stream, a, back, tiles,
                      sums.get());
            check_launch("vector_map_backward");
        }
    } else if (blocks > 0) {
        launch_long_rows_back(a, back, rows, unsigned(blocks), room.get(), sums.get(), stream);
    }
    if (shared_set)
        launch_prepare_set_vjp(a, sums.get(), sums_of_block, int(blocks), total.get(), back.grad_params, stream);
}

template <class T>
VectorRows<T> sized(VectorRows<T> a) {
    with_vector_map(a.map, [&]<class Map>() {
        a.n_raw = Map::n_raw(a.features);
        a.n_ready = Map::n_ready(a.features);
    });
    return a;
}

}  // namespace

template <class T>
void vector_map(const VectorRows<T>& a, bool shared, int64_t rows, cudaStream_t stream) {
    if (rows == 0) return;
    run_forth(sized(a), shared, rows, stream);
}

template <class T>
void vector_map_backward(const VectorRows<T>& a, bool shared, const VectorRowsBack<T>& back, int64_t rows,
                         cudaStream_t stream) {
    if (rows == 0 && !shared) return;  // with `shared`, the gradient without rows is 0, and has to be written
    run_back(sized(a), shared, back, rows, stream);
}

#define HR_INSTANTIATE(T)                                                        \
    template void vector_map(const VectorRows<T>&, bool, int64_t, cudaStream_t); \
    template void vector_map_backward(const VectorRows<T>&, bool, const VectorRowsBack<T>&, int64_t, cudaStream_t);
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
