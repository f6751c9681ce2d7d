// Reads and writes of stretches of row-major arrays by the threads of a block: 16 bytes at a time where addresses
// allow, and single elements before and after these groups, and at all other addresses.
#pragma once

#include <cstdint>

#include "../../cpp/math/lane.hpp"
#include "../include/device.cuh"
#include "../include/launch.cuh"

// HR_UNROLL precedes a loop over arrays that must be in registers.
#ifdef __CUDACC__
#define HR_UNROLL _Pragma("unroll")
#else
#define HR_UNROLL
#endif

namespace headrace {
namespace {

template <class T>
constexpr int numbers_of_16 = 16 / int(sizeof(T));

template <class T>
struct alignas(16) Numbers16 {
    T v[numbers_of_16<T>];
};

template <class T>
__device__ __forceinline__ bool is_aligned_16(const T* p) {
    return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

// The number of elements from p on before the next address that is a multiple of 16.
template <class T>
__device__ __forceinline__ int numbers_to_16(const T* p) {
    return int((16 - reinterpret_cast<uintptr_t>(p) % 16) % 16 / sizeof(T));
}

// The elements that a thread takes at a time: an adjacent group of 16 bytes, or `count` elements, `step` apart. Single
// elements skip the `skipped` elements that begin with index `head`.
struct Elements {
    bool together;
    int first, count, step, head, skipped;
    __device__ __forceinline__ int operator()(int j) const {
        const int i = first + j * step;
        return together || i < head ? i : i + skipped;
    }
};

// Loads P adjacent values of each of some elements to registers. store_elements stores them.
template <int P, int N, class T>
__device__ __forceinline__ void load_elements(const Elements& some, const T* p, T (&to)[N]) {
    constexpr int W = numbers_of_16<T>;
    static_assert(N == W * P);
    if (some.together) {
        HR_UNROLL for (int i = 0; i < N; i += W) {
            const Numbers16<T> v = *reinterpret_cast<const Numbers16<T>*>(p + some.first * P + i);
            HR_UNROLL for (int j = 0; j < W; ++j) to[i + j] = v.v[j];
        }
    } else {
        HR_UNROLL for (int j = 0; j < W; ++j) if (j < some.count) HR_UNROLL for (int k = 0; k < P; ++k) to[j * P + k] =
            p[some(j) * P + k];
    }
}
template <int P, int N, class T>
__device__ __forceinline__ void store_elements(const Elements& some, T* p, const T (&from)[N]) {
    constexpr int W = numbers_of_16<T>;
    static_assert(N == W * P);
    if (some.together) {
        HR_UNROLL for (int i = 0; i < N; i += W) {
            Numbers16<T> v;
            HR_UNROLL for (int j = 0; j < W; ++j) v.v[j] = from[i + j];
            *reinterpret_cast<Numbers16<T>*>(p + some.first * P + i) = v;
        }
    } else {
        HR_UNROLL for (int j = 0; j < W; ++j) if (j < some.count) HR_UNROLL for (int k = 0; k < P; ++k)
            p[some(j) * P + k] = from[j * P + k];
    }
}

// Calls body(elements) for all elements [0, n), divided among the block's threads: 16 bytes at a time where `first` and
// the arrays of `aligned_at(i)` are at multiples of 16 bytes. A thread takes the remaining elements, or all elements if
// addresses do not allow 16 bytes at a time, `step` apart. The code calls `body` at one place, because it contains all
// maps.
template <class T, class AlignedAt, class Body>
__device__ __forceinline__ void for_elements(const T* first, int n, const AlignedAt& aligned_at, const Body& body) {
    constexpr int W = numbers_of_16<T>;
    const int to_16 = numbers_to_16(first), head = to_16 < n ? to_16 : n;
    const int together = aligned_at(head) ? (n - head) / W : 0;
    const int others = n - together * W, step = (others + W - 1) / W;
    HR_ROLLED
    for (int i = int(threadIdx.x); i < together + step; i += int(blockDim.x)) {
        const int k = i - together;
        body(k < 0 ? Elements{true, head + i * W, W, 1, 0, 0}
                   : Elements{false, k, (others - k + step - 1) / step, step, head, together * W});
    }
}

// The position of element i of consecutive rows in a tile whose rows start `stride` elements apart.
class TilePlaces {
  public:
    TilePlaces() = default;
    TilePlaces(int length, int stride)
        : inverse_(uint32_t(((uint64_t(1) << 32) + uint64_t(length) - 1) / uint64_t(length))),
          padding_(uint32_t(stride - length)) {}
    __device__ __forceinline__ int operator()(int i) const {
        if (padding_ == 0) return i;
        return i + int((uint64_t(uint32_t(i)) * inverse_) >> 32) * int(padding_);  // the product is i / length
    }

  private:
    // ceil(2^32 / length), by which division is exact while i times the length is below 2^32; for length 1 it exceeds
    // 32 bits.
    uint32_t inverse_ = 0, padding_ = 0;
};

// Rotates W elements: element j of the result is element (j + by) % W of v. The rotation is a sequence of shifts by
// powers of two, because registers have no index.
template <class T>
__device__ __forceinline__ Numbers16<T> rotated(const Numbers16<T>& v, int by) {
    constexpr int W = numbers_of_16<T>;
    Numbers16<T> r = v;
    HR_UNROLL for (int bit = 1; bit < W; bit *= 2) {
        Numbers16<T> shifted;
        HR_UNROLL for (int j = 0; j < W; ++j) shifted.v[j] = by & bit ? r.v[(j + bit) % W] : r.v[j];
        r = shifted;
    }
    return r;
}

// Copies n elements of consecutive rows to a tile, by all threads of a block. The threads of a warp would conflict in
// banks of shared memory if each stored its first element, then its second and so on; therefore each group of eight
// threads starts with another element.
template <class T>
__device__ __forceinline__ void rows_to_tile(const T* rows, int n, const TilePlaces& places, T* tile) {
    constexpr int W = numbers_of_16<T>;
    const int to_16 = numbers_to_16(rows), head = to_16 < n ? to_16 : n, together = (n - head) / W;
    const int threads = int(blockDim.x), thread = int(threadIdx.x), turn = thread / 8;
    for (int first = thread; first < together; first += loads_in_flight * threads) {
        Numbers16<T> v[loads_in_flight];
        HR_UNROLL for (int u = 0; u < loads_in_flight; ++u) {
            const int i = first + u * threads;
            if (i < together) v[u] = *reinterpret_cast<const Numbers16<T>*>(rows + head + i * W);
        }
        HR_UNROLL for (int u = 0; u < loads_in_flight; ++u) {
            const int i = first + u * threads;
            if (i < together) {
                const Numbers16<T> r = rotated(v[u], turn);
                HR_UNROLL for (int j = 0; j < W; ++j) tile[places(head + i * W + ((j + turn) & (W - 1)))] = r.v[j];
            }
        }
    }
    for (int i = thread; i < n - together * W; i += threads) {
        const int k = i < head ? i : i + together * W;
        tile[places(k)] = rows[k];
    }
}

template <class T>
__device__ __forceinline__ void tile_to_rows(const T* tile, int n, const TilePlaces& places, T* rows) {
    constexpr int W = numbers_of_16<T>;
    const int to_16 = numbers_to_16(rows), head = to_16 < n ? to_16 : n, together = (n - head) / W;
    const int threads = int(blockDim.x), thread = int(threadIdx.x), turn = thread / 8;
    for (int i = thread; i < together; i += threads) {
        Numbers16<T> r;
        HR_UNROLL for (int j = 0; j < W; ++j) r.v[j] = tile[places(head + i * W + ((j + turn) & (W - 1)))];
        *reinterpret_cast<Numbers16<T>*>(rows + head + i * W) = rotated(r, -turn);
    }
    for (int i = thread; i < n - together * W; i += threads) {
        const int k = i < head ? i : i + together * W;
        rows[k] = tile[places(k)];
    }
}

// ---- groups of lanes ----

// The sum over a group of `width` lanes, a power of two, with the same bits in each lane; all threads of the warp take
// part.
template <class T>
__device__ __forceinline__ T sum_of_lanes(T x, int width) {
    HR_ROLLED
    for (int d = width / 2; d > 0; d /= 2) x += __shfl_xor_sync(~0u, x, d);
    return x;
}

// The largest value over a group of lanes, where NaN is ignored.
template <class T>
__device__ __forceinline__ T largest_of_lanes(T x, int width) {
    HR_ROLLED
    for (int d = width / 2; d > 0; d /= 2) {
        const T other = __shfl_xor_sync(~0u, x, d);
        x = other > x ? other : x;
    }
    return x;
}

}  // namespace
}  // namespace headrace
