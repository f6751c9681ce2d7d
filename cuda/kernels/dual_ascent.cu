#define HR_SMALL_CODE
#include "dual_ascent.hpp"

#include <algorithm>

#include "../../cpp/math/ascent.hpp"
#include "../../cpp/math/log_product.hpp"
#include "../include/launch.cuh"

namespace headrace {
namespace {

constexpr int threads = ascent_threads, most_lines = ascent_lines, warp = 32;

// Values of one line for as many rows as fit in 16 bytes: the unit of a thread's reads and writes.
template <class T>
struct alignas(16) Rows {
    static constexpr int count = int(16 / sizeof(T));
    T row[count];
};

template <class T>
__device__ const Rows<T>& rows_at(const T* p) {
    return *reinterpret_cast<const Rows<T>*>(p);
}
template <class T>
__device__ Rows<T>& rows_at(T* p) {
    return *reinterpret_cast<Rows<T>*>(p);
}

// The shape of a block of threads that moves a tile of rows through the affine map: group g of threads computes output
// lines [g Lines, (g + 1) Lines), and each thread of a group computes some of the rows. While a tile is loaded and
// mapped, `lanes` threads share the lines of the same rows.
template <class T_, int Groups, int Lines>
struct Shape {
    using T = T_;
    static constexpr int lines = Lines, width = Groups * Lines;
    static constexpr int row_threads = threads / Groups, packs_each = 2;
    static constexpr int packs = row_threads * packs_each, rows = packs * Rows<T>::count;
    static constexpr int rows_each = packs_each * Rows<T>::count;
    static constexpr int lanes = threads / packs;
    static constexpr int ahead = Lines == 5 ? 5 : 4;  // lines whose loads by a thread are in flight
    // The number of lines whose sums are in shared memory at once. In float64 the sums of all lines would take more
    // memory than the mapped values.
    static constexpr int staged_lines = sizeof(T) == 4 ? Lines : Lines / 2;
    // Whether a tile may have more lines than shared memory holds: only in shapes with 16 threads in a group.
    static constexpr bool may_be_unfused = row_threads == 16;
    // The number of blocks of threads that a multiprocessor should hold.
    static constexpr int resident = Groups < 8 ? (sizeof(T) == 4 ? 4 : 3) : lines * sizeof(T) <= 28 ? 3 : 2;
    static_assert(ahead <= factors_at_once && lanes >= 1);
};

// Calls body with a kernel's shape. With up to ten features, the time of a step is that of its memory accesses, so that
// unused lines cost no time. float64, which is used for checks, has fewer shapes, with more unused lines.
template <class T, class Body>
void with_shape(int features, int width, const Body& body) {
    if constexpr (sizeof(T) == 4) {
        if (features <= 10) return body.template operator()<Shape<T, 2, 5>>();
        if (features > 16 && width == 32) return body.template operator()<Shape<T, 8, 4>>();
        if (features > 16 && width == 48) return body.template operator()<Shape<T, 8, 6>>();
        if (features > 16 && width == 56) return body.template operator()<Shape<T, 8, 7>>();
    }
    features <= 16 ? body.template operator()<Shape<T, 4, 4>>() : body.template operator()<Shape<T, 8, 8>>();
}

// The number of rows of a tile, equal for all shapes of one number of features; tiles of fewer features have more rows.
template <class T>
int tile_rows_of(int features) {
    int rows = 0;
    with_shape<T>(features, ascent_lines, [&]<class S>() { rows = S::rows; });
    return rows;
}

template <class T>
struct LineMap {
    T bend, center, square;
    int coordinate;
};

template <class T>
struct StepArguments {
    AscentNumbers<T> numbers;
    AscentLayout layout;
    int n_tiles, most_kept;  // most_kept: lines of the input that shared memory holds
    bool fused;              // all lines that a tile reads are in shared memory at once, and are mapped when they are
                             // loaded
    T *z, *moved;
    double* log_jacobian;
    const T* weights;
    double* partial;
};

// The shared memory of a block.
template <class S>
struct Shared {
    using T = typename S::T;
    T *moved, *matrix, *shift, *center, *square, *logs;
    LineMap<T>* maps;
    double* sums;  // in the memory of `moved`, which is unused when a chunk is finished
    T* staged;     // sums of threads, behind `sums` in the memory of `moved`

    static constexpr int sum_slots =
        (threads / warp) * (warp / (S::row_threads < warp ? S::row_threads : warp)) * S::lines * ascent_sum_count;
    static constexpr size_t sum_bytes = (sum_slots + threads / warp) * sizeof(double),
                            staged_bytes = size_t(threads) * S::staged_lines * ascent_sum_count * sizeof(T);
    __host__ __device__ static size_t moved_bytes(int lines) {
        const size_t kept = size_t(lines) * S::rows * sizeof(T), of_sums = sum_bytes + staged_bytes;
        return kept > of_sums ? kept : of_sums;
    }
    static size_t bytes(int lines) {
        return moved_bytes(lines) + size_t(lines) * (S::width * sizeof(T) + sizeof(LineMap<T>)) +
               (3 * S::width + S::lanes * S::rows) * sizeof(T);
    }
    __device__ Shared(unsigned char* p, int lines) {
        const auto take = [&p](size_t bytes) { return p += bytes, p - bytes; };
        moved = reinterpret_cast<T*>(take(moved_bytes(lines)));
        sums = reinterpret_cast<double*>(moved);
        staged = reinterpret_cast<T*>(reinterpret_cast<unsigned char*>(moved) + sum_bytes);
        matrix = reinterpret_cast<T*>(take(size_t(lines) * S::width * sizeof(T)));
        maps = reinterpret_cast<LineMap<T>*>(take(size_t(lines) * sizeof(LineMap<T>)));
        logs = reinterpret_cast<T*>(take(size_t(S::lanes) * S::rows * sizeof(T)));
        shift = reinterpret_cast<T*>(take(S::width * sizeof(T)));
        center = reinterpret_cast<T*>(take(S::width * sizeof(T)));
        square = reinterpret_cast<T*>(take(S::width * sizeof(T)));
    }
};

template <class T>
__device__ void keep_maps(const AscentNumbers<T>& s, int first, int lines, LineMap<T>* maps) {
    HR_ROLLED
    for (int k = int(threadIdx.x); k < lines; k += threads) {
        const int c = s.order[first + k];
        maps[k] = {s.bend[c], s.center[c], s.square[c], c};
    }
}

// Maps lines [0, lines) of a tile. put(line, pack, rows) receives the mapped values, and logs[lane][row] the logarithm
// of the product of derivatives of a thread's lines.
template <class S, class Put>
__device__ void map_lines(const typename S::T* z, const LineMap<typename S::T>* maps, int lines, typename S::T* logs,
                          const Put& put) {
    using T = typename S::T;
    const int pack = int(threadIdx.x) % S::packs, lane = int(threadIdx.x) / S::packs;
    LogProduct<T> product[Rows<T>::count];
    for (int first = lane; first < lines; first += S::ahead * S::lanes) {
        Rows<T> x[S::ahead];
        for (int i = 0; i < S::ahead; ++i) {
            const int k = first + i * S::lanes;
            if (k < lines) x[i] = rows_at(z + int64_t(maps[k].coordinate) * S::rows + pack * Rows<T>::count);
        }
        for (int i = 0; i < S::ahead; ++i) {
            const int k = first + i * S::lanes;
            if (k < lines) {
                const LineMap<T> map = maps[k];
                for (int r = 0; r < Rows<T>::count; ++r) {
                    T derivative;
                    x[i].row[r] = ascent_moved(x[i].row[r], map.bend, map.center, map.square, derivative);
                    product[r].mantissa *= derivative;
                }
                put(k, pack, x[i]);
            }
        }
        for (LogProduct<T>& p : product) p.rescale();
    }
    for (int r = 0; r < Rows<T>::count; ++r) logs[lane * S::rows + pack * Rows<T>::count + r] = product[r].log();
}

// Adds the terms of a tile's rows to log-Jacobians; put(row, log-Jacobian) receives the results.
template <class S, class Put>
__device__ void add_logs(const typename S::T* logs, double log_scale, int rows, double* log_jacobian, const Put& put) {
    for (int r = int(threadIdx.x); r < rows; r += threads) {
        double sum = log_scale;
        for (int l = 0; l < S::lanes; ++l) sum += double(logs[l * S::rows + r]);
        put(r, log_jacobian[r] += sum);
    }
}

// Maps all lines in place, for structures in which several tiles read a line.
template <class S>
__global__ void __launch_bounds__(threads) map_rows(StepArguments<typename S::T> a) {
    using T = typename S::T;
    HR_DYNAMIC_SHARED(unsigned char, memory);
    T* const logs = reinterpret_cast<T*>(memory);
    LineMap<T>* const maps = reinterpret_cast<LineMap<T>*>(logs + S::lanes * S::rows);
    const int64_t rows = a.layout.rows;
    const int features = a.layout.features;
    for (int64_t row = int64_t(blockIdx.x) * S::rows; row < rows; row += int64_t(gridDim.x) * S::rows) {
        T* const z = a.z + row * features;
        const int n = int(rows - row < S::rows ? rows - row : S::rows);
        for (int first = 0; first < features; first += most_lines) {
            const int lines = features - first < most_lines ? features - first : most_lines;
            keep_maps(a.numbers, first, lines, maps);
            __syncthreads();
            map_lines<S>(z, maps, lines, logs, [&](int k, int pack, const Rows<T>& x) {
                rows_at(z + int64_t(maps[k].coordinate) * S::rows + pack * Rows<T>::count) = x;
            });
            __syncthreads();
            add_logs<S>(logs, first == 0 ? *a.numbers.log_scale : 0.0, n, a.log_jacobian + row, [](int, double) {});
            __syncthreads();
        }
    }
}

// Reads the values of a thread's lines from shared memory.
template <class S>
__device__ void read_lines(const typename S::T* from, typename S::T (&out)[S::lines]) {
    using T = typename S::T;
    if constexpr (S::lines % Rows<T>::count == 0) {
        for (int j = 0; j < S::lines; j += Rows<T>::count) {
            const Rows<T> some = rows_at(from + j);
            for (int i = 0; i < Rows<T>::count; ++i) out[j + i] = some.row[i];
        }
    } else {
        for (int j = 0; j < S::lines; ++j) out[j] = from[j];
    }
}

// Adds the contribution of input lines [0, lines), in shared memory, to a thread's rows and lines.
template <class S>
__device__ void add_products(const Shared<S>& shared, int lines, typename S::T (&z)[S::lines][S::rows_each]) {
    using T = typename S::T;
    constexpr int P = Rows<T>::count;
    const int group = int(threadIdx.x) / S::row_threads, place = int(threadIdx.x) % S::row_threads;
    HR_ROLLED  // several lines at once would not leave enough registers
    for (int k = 0; k < lines; ++k) {
        T factor[S::lines];
        read_lines<S>(shared.matrix + k * S::width + group * S::lines, factor);
        for (int u = 0; u < S::packs_each; ++u) {
            const Rows<T> x = rows_at(shared.moved + k * S::rows + (u * S::row_threads + place) * P);
            for (int j = 0; j < S::lines; ++j)
                for (int r = 0; r < P; ++r) z[j][u * P + r] += factor[j] * x.row[r];
        }
    }
}

// Stores the sums of a chunk over the threads of a group, in a fixed order, in partial[sum][chunk]. Values pass through
// shared memory, because registers cannot be indexed, and a loop for each value would be a fifth of the kernel.
template <class S>
__device__ void store_sums(const Shared<S>& shared, const AscentTile& tile,
                           typename S::T (&sum)[S::lines][ascent_sum_count], double* partial, int64_t chunks,
                           int64_t chunk) {
    constexpr int span = S::row_threads < warp ? S::row_threads : warp;  // number of threads of a group in one warp
    constexpr int per_line = ascent_sum_count, per_group = S::lines * per_line, at_once = S::staged_lines * per_line;
    static_assert(S::lines % S::staged_lines == 0);
    const int lane = int(threadIdx.x) % warp;
    typename S::T* const own = shared.staged + int(threadIdx.x) / warp * at_once * warp + lane;
    for (int first = 0; first < S::lines; first += S::staged_lines) {
        for (int j = 0; j < S::staged_lines; ++j)
            for (int i = 0; i < per_line; ++i) own[(j * per_line + i) * warp] = sum[first + j][i];
        __syncwarp();
        double* const to = shared.sums + int(threadIdx.x) / span * per_group + first * per_line;
        HR_ROLLED
        for (int i = 0; i < at_once; ++i) {
            double total = double(own[i * warp]);
            for (int step = span / 2; step > 0; step /= 2) total += __shfl_down_sync(~0u, total, unsigned(step), span);
            if (lane % span == 0) to[i] = total;
        }
        __syncwarp();
    }
    __syncthreads();
    constexpr int spans = S::row_threads / span;  // number of spans of a group
    HR_ROLLED
    for (int i = int(threadIdx.x); i < (tile.end - tile.begin) * per_line; i += threads) {
        const int group = i / per_group;
        double total = 0;
        HR_ROLLED
        for (int s = 0; s < spans; ++s) total += shared.sums[(group * spans + s) * per_group + i % per_group];
        partial[(int64_t(tile.begin) * per_line + i) * chunks + chunk] = total;
    }
}

// A step for chunks of rows, in one function, because its parts share registers of a thread: lines of the tile, sums of
// rows, logarithms.
template <class S>
__global__ void __launch_bounds__(threads, S::resident) step_rows(StepArguments<typename S::T> a) {
    using T = typename S::T;
    constexpr int P = Rows<T>::count;
    HR_DYNAMIC_SHARED(unsigned char, memory);
    const Shared<S> shared(memory, a.most_kept);
    const AscentNumbers<T>& s = a.numbers;
    const int features = a.layout.features;
    const bool fused = !S::may_be_unfused || a.fused, wants_sums = a.partial != nullptr;
    const int group = int(threadIdx.x) / S::row_threads, place = int(threadIdx.x) % S::row_threads;
    for (int64_t chunk = blockIdx.x; chunk < a.layout.chunks; chunk += gridDim.x) {
        const int64_t begin = chunk * a.layout.chunk_rows, left = a.layout.rows - begin;
        const int count = int(left < a.layout.chunk_rows ? left : a.layout.chunk_rows);
        double* const log_jacobian = a.log_jacobian + begin;
        double log_jacobians = 0;
        for (int t = 0; t < a.n_tiles; ++t) {
            const AscentTile tile = s.tiles[t];
            const int lines = tile.last - tile.first, width = tile.end - tile.begin;
            const auto keep_lines = [&](int first, int n) {
                keep_maps(s, tile.first + first, n, shared.maps);
                const T* const from = s.matrix + tile.matrix + int64_t(first) * width;
                for (int i = int(threadIdx.x); i < n * S::width; i += threads) {
                    const int k = i / S::width, j = i % S::width;
                    shared.matrix[i] = j < width ? from[k * width + j] : T(0);
                }
            };
            HR_ROLLED
            for (int j = int(threadIdx.x); j < S::width; j += threads) {
                shared.shift[j] = j < width ? s.shift[tile.begin + j] : T(0);
                shared.center[j] = wants_sums && j < width ? s.next_center[tile.begin + j] : T(0);
                shared.square[j] = wants_sums && j < width ? s.next_square[tile.begin + j] : T(1);
            }
            if (fused) keep_lines(0, lines);
            __syncthreads();
            T sum[S::lines][ascent_sum_count] = {};
            for (int row = 0; row < count; row += S::rows) {
                const T* const from = a.z + (begin + row) * features;
                const int rows = count - row < S::rows ? count - row : S::rows;
                const bool counts_logs = wants_sums && t + 1 == a.n_tiles;
                const auto count_log = [&](int r, double log) {
                    if (counts_logs) log_jacobians += log * (a.weights ? double(a.weights[begin + row + r]) : 1.0);
                };
                T z[S::lines][S::rows_each];
                const auto start = [&] {
                    for (int j = 0; j < S::lines; ++j)
                        for (T& one : z[j]) one = shared.shift[group * S::lines + j];
                };
                if (fused) {
                    map_lines<S>(from, shared.maps, lines, shared.logs, [&](int k, int pack, const Rows<T>& x) {
                        rows_at(shared.moved + k * S::rows + pack * P) = x;
                    });
                    __syncthreads();
                    add_logs<S>(shared.logs, t == 0 ? *s.log_scale : 0.0, rows, log_jacobian + row, count_log);
                    start();
                    add_products<S>(shared, lines, z);
                    __syncthreads();
                } else if constexpr (S::may_be_unfused) {
                    HR_ROLLED
                    for (int r = int(threadIdx.x); r < rows; r += threads) count_log(r, log_jacobian[row + r]);
                    start();
                    for (int first = 0; first < lines; first += most_lines) {
                        const int n = lines - first < most_lines ? lines - first : most_lines;
                        keep_lines(first, n);
                        __syncthreads();
                        const int pack = int(threadIdx.x) % S::packs;
                        for (int k = int(threadIdx.x) / S::packs; k < n; k += S::lanes)
                            rows_at(shared.moved + k * S::rows + pack * P) =
                                rows_at(from + int64_t(shared.maps[k].coordinate) * S::rows + pack * P);
                        __syncthreads();
                        add_products<S>(shared, n, z);
                        __syncthreads();
                    }
                }
                // Rows that do not exist have weight 0 and values 0, so that their terms are finite and do not count.
                T one[S::rows_each];
                for (int u = 0; u < S::packs_each; ++u) {
                    const int at = (u * S::row_threads + place) * P;
                    for (int r = 0; r < P; ++r) {
                        const bool is_row = at + r < rows;
                        one[u * P + r] = T(is_row);
                        if (rows < S::rows)
                            for (int j = 0; j < S::lines; ++j)
                                if (!is_row) z[j][u * P + r] = 0;
                    }
                    for (int j = 0; j < S::lines; ++j) {
                        const int line = group * S::lines + j;
                        Rows<T> out;
                        for (int r = 0; r < P; ++r) out.row[r] = z[j][u * P + r];
                        T* const to = a.moved + (begin + row) * features + int64_t(tile.begin + line) * S::rows + at;
                        if (line < width) rows_at(to) = out;
                    }
                    if (a.weights && wants_sums) {
                        const Rows<T> weights = rows_at(a.weights + begin + row + at);
                        for (int r = 0; r < P; ++r) one[u * P + r] = weights.row[r];
                    }
                }
                if (wants_sums)
                    for (int j = 0; j < S::lines; ++j) {
                        const int line = group * S::lines + j;
                        const T center = shared.center[line], square = shared.square[line];
                        if (line < width)
                            for (int r = 0; r < S::rows_each; ++r) ascent_add(z[j][r], one[r], center, square, sum[j]);
                    }
            }
            if (wants_sums) store_sums<S>(shared, tile, sum, a.partial, a.layout.chunks, chunk);
            __syncthreads();  // before the next tile overwrites the values of this tile
        }
        if (wants_sums) {
            for (int step = warp / 2; step > 0; step /= 2)
                log_jacobians += __shfl_down_sync(~0u, log_jacobians, unsigned(step));
            if (threadIdx.x % warp == 0) shared.sums[threadIdx.x / warp] = log_jacobians;
            __syncthreads();
            if (threadIdx.x == 0) {
                double total = 0;
                for (int i = 0; i < threads / warp; ++i) total += shared.sums[i];
                a.partial[int64_t(features) * ascent_sum_count * a.layout.chunks + chunk] = total;
            }
            __syncthreads();
        }
    }
}

__global__ void __launch_bounds__(ascent_sum_threads)
    add_partial_sums(const double* partial, int64_t chunks, double* sums) {
    constexpr int n = ascent_sum_threads;
    HR_DYNAMIC_SHARED(double, of_warp);
    const double* const from = partial + int64_t(blockIdx.x) * chunks;
    double total = 0;
    for (int64_t i = threadIdx.x; i < chunks; i += n) total += from[i];
    for (int step = warp / 2; step > 0; step /= 2) total += __shfl_down_sync(~0u, total, unsigned(step));
    if (threadIdx.x % warp == 0) of_warp[threadIdx.x / warp] = total;
    __syncthreads();
    if (threadIdx.x != 0) return;
    total = 0;
    for (int i = 0; i < n / warp; ++i) total += of_warp[i];
    sums[blockIdx.x] = total;
}

__device__ inline double number_of_row(const ArrayView& a, int64_t row, int column) {
    const char* const p = a.data + row * a.row_stride + int64_t(column) * a.column_stride;
    return a.is_double ? *reinterpret_cast<const double*>(p) : double(*reinterpret_cast<const float*>(p));
}

// The layout of rows is changed in shared memory, in squares of 32 rows and 32 features, whose lines have 33 elements.
constexpr int square_threads = 256, pitch = warp + 1;

template <class T>
struct Squares {
    int64_t rows, n;
    int features, across, tile_rows;

    Squares(const AscentLayout& l, int64_t covered)  // `covered` rows, including rows that do not exist
        : rows(l.rows),
          n((covered + warp - 1) / warp * ((l.features + warp - 1) / warp)),
          features(l.features),
          across((l.features + warp - 1) / warp),
          tile_rows(l.tile_rows) {}
    __device__ T* place(T* z, int64_t row, int feature) const {
        return z + row / tile_rows * tile_rows * features + int64_t(feature) * tile_rows + row % tile_rows;
    }
};

template <class T>
__global__ void __launch_bounds__(square_threads) load_rows(Squares<T> s, ArrayView from, bool by_rows, T* z) {
    HR_DYNAMIC_SHARED(T, square);
    const int lane = int(threadIdx.x) % warp, line = int(threadIdx.x) / warp;
    for (int64_t i = blockIdx.x; i < s.n; i += gridDim.x) {
        const int64_t row = i / s.across * warp;
        const int feature = int(i % s.across) * warp;
        HR_ROLLED
        for (int l = line; l < warp; l += square_threads / warp) {
            const int r = by_rows ? l : lane, c = by_rows ? lane : l;  // neighbours in memory belong to neighbouring
                                                                       // threads
            if (row + r < s.rows && feature + c < s.features)
                square[r * pitch + c] = T(number_of_row(from, row + r, feature + c));
        }
        __syncthreads();
        HR_ROLLED
        for (int c = line; c < warp && feature + c < s.features; c += square_threads / warp)
            *s.place(z, row + lane, feature + c) = row + lane < s.rows ? square[lane * pitch + c] : T(0);
        __syncthreads();
    }
}

template <class T>
__global__ void __launch_bounds__(square_threads) store_rows(Squares<T> s, T* z, T* out) {
    HR_DYNAMIC_SHARED(T, square);
    const int lane = int(threadIdx.x) % warp, line = int(threadIdx.x) / warp;
    for (int64_t i = blockIdx.x; i < s.n; i += gridDim.x) {
        const int64_t row = i / s.across * warp;
        const int feature = int(i % s.across) * warp;
        HR_ROLLED
        for (int c = line; c < warp && feature + c < s.features; c += square_threads / warp)
            square[lane * pitch + c] = *s.place(z, row + lane, feature + c);
        __syncthreads();
        HR_ROLLED
        for (int r = line; r < warp && row + r < s.rows; r += square_threads / warp)
            if (feature + lane < s.features) out[(row + r) * s.features + feature + lane] = square[r * pitch + lane];
        __syncthreads();
    }
}

template <class T>
__global__ void __launch_bounds__(threads) square_rows(AscentLayout l, const T* z, double* out) {
    const int64_t step = int64_t(gridDim.x) * threads;
    for (int64_t row = int64_t(blockIdx.x) * threads + int(threadIdx.x); row < l.rows; row += step) {
        const T* at = z + row / l.tile_rows * l.features * l.tile_rows + row % l.tile_rows;
        double sum = 0;
        HR_ROLLED
        for (int k = 0; k < l.features; ++k, at += l.tile_rows) sum += double(*at) * double(*at);
        out[row] = sum;
    }
}

unsigned grid_of(int64_t blocks) {
    return unsigned(std::min<int64_t>(blocks, INT32_MAX));
}

}  // namespace

template <class T>
AscentLayout ascent_layout(int64_t rows, int features) {
    AscentLayout l{features, tile_rows_of<T>(features), rows, 0, 0};
    const int64_t tiles = (l.tiles() + ascent_chunks - 1) / ascent_chunks;
    l.chunk_rows = l.tile_rows * std::clamp<int64_t>(tiles, 1, ascent_chunk_rows / l.tile_rows);
    l.chunks = (rows + l.chunk_rows - 1) / l.chunk_rows;
    return l;
}

template <class T>
void ascent_step(const AscentLayout& layout, const AscentStructure& structure, const AscentNumbers<T>& numbers, T* z,
                 T* moved, double* log_jacobian, const T* weights, double* partial, cudaStream_t stream) {
    if (layout.rows == 0) return;
    with_shape<T>(layout.features, structure.width, [&]<class S>() {
        const int most_kept = std::min(structure.lines, most_lines);
        const StepArguments<T> a{
            numbers, layout, int(structure.tiles.size()), most_kept, structure.fused, z, moved, log_jacobian,
            weights, partial};
        const auto run = [&](auto* kernel, int64_t blocks, size_t bytes) {
            allow_shared(kernel);
            HR_LAUNCH(kernel, dim3(grid_of(blocks)), dim3(threads), bytes, stream, a);
            check_launch("ascent_step");
        };
        if constexpr (S::may_be_unfused)
            if (!structure.fused) {
                using M = Shape<T, 8, 8>;  // shapes that may be unfused have tiles of equal size, and share map_rows<M>
                static_assert(M::rows == S::rows && M::lanes == S::lanes);
                run(map_rows<M>, layout.tiles(), M::lanes * M::rows * sizeof(T) + most_lines * sizeof(LineMap<T>));
            }
        run(step_rows<S>, layout.chunks, Shared<S>::bytes(most_kept));
    });
}

void ascent_sums(const double* partial, int64_t chunks, int count, double* sums, cudaStream_t stream) {
    constexpr int n = ascent_sum_threads;
    HR_LAUNCH(add_partial_sums, dim3(unsigned(count)), dim3(n), n / warp * sizeof(double), stream, partial, chunks,
              sums);
    check_launch("ascent_sums");
}

template <class T>
void ascent_load(const AscentLayout& layout, const ArrayView& from, T* z, cudaStream_t stream) {
    if (layout.rows == 0) return;
    const Squares<T> squares(layout, layout.tiles() * layout.tile_rows);  // steps read whole tiles
    const bool by_rows = std::abs(from.column_stride) <= std::abs(from.row_stride);
    auto* const kernel = load_rows<T>;
    HR_LAUNCH(kernel, dim3(grid_of(squares.n)), dim3(square_threads), warp * pitch * sizeof(T), stream, squares, from,
              by_rows, z);
    check_launch("ascent_load");
}

template <class T>
void ascent_store(const AscentLayout& layout, const T* z, T* out, cudaStream_t stream) {
    if (layout.rows == 0) return;
    const Squares<T> squares(layout, layout.rows);
    auto* const kernel = store_rows<T>;
    HR_LAUNCH(kernel, dim3(grid_of(squares.n)), dim3(square_threads), warp * pitch * sizeof(T), stream, squares,
              const_cast<T*>(z), out);
    check_launch("ascent_store");
}

template <class T>
void ascent_squares(const AscentLayout& layout, const T* z, double* out, cudaStream_t stream) {
    if (layout.rows == 0) return;
    auto* const kernel = square_rows<T>;
    HR_LAUNCH(kernel, dim3(grid_of((layout.rows + threads - 1) / threads)), dim3(threads), 0, stream, layout, z, out);
    check_launch("ascent_squares");
}

#define HR_INSTANTIATE(T)                                                                                            \
    template AscentLayout ascent_layout<T>(int64_t, int);                                                            \
    template void ascent_step(const AscentLayout&, const AscentStructure&, const AscentNumbers<T>&, T*, T*, double*, \
                              const T*, double*, cudaStream_t);                                                      \
    template void ascent_load(const AscentLayout&, const ArrayView&, T*, cudaStream_t);                              \
    template void ascent_store(const AscentLayout&, const T*, T*, cudaStream_t);                                     \
    template void ascent_squares(const AscentLayout&, const T*, double*, cudaStream_t);
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
