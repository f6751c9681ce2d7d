// The device language of kernels.
#pragma once

#include <cmath>
#include <type_traits>

#include "fibers.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define threadIdx (emu::block().current->index)
#define blockIdx (emu::block().index)
#define blockDim (emu::block().threads)
#define gridDim (emu::block().blocks)

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) double2 {
    double x, y;
};
inline float2 make_float2(float x, float y) {
    return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}
inline double2 make_double2(double x, double y) {
    return {x, y};
}

// ---- barriers ----------------------------------------------------------------------------------------------------

inline void __syncthreads(emu::Where where = emu::Where::current()) {
    emu::sync_block(false, where);
}
inline int __syncthreads_or(int predicate, emu::Where where = emu::Where::current()) {
    emu::sync_block(predicate != 0, where);
    return emu::block().predicates > 0;
}
inline void __syncwarp(unsigned mask = ~0u, emu::Where where = emu::Where::current()) {
    emu::sync_warp(mask, 0, emu::nothing, where);
}
inline void __threadfence() {}

// ---- shuffles and votes ------------------------------------------------------------------------------------------

namespace emu {
// The value of another lane in a part of a warp with `width` lanes, or the calling thread's value if that lane is
// outside of the part.
template <class T>
T shuffle(unsigned mask, T value, int lane, int first, int width, const Where& where) {
    static_assert(std::is_arithmetic_v<T> && sizeof(T) <= sizeof(Bits));
    Bits bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = sync_warp(mask, bits, lane >= first && lane < first + width ? lane : own, where);
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}
inline int lane() {
    return int(block().current->lane);
}
}  // namespace emu

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, emu::Where where = emu::Where::current()) {
    const int first = emu::lane() / width * width;
    return emu::shuffle(mask, value, first + (lane & (width - 1)), first, width, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, emu::Where where = emu::Where::current()) {
    return emu::shuffle(mask, value, emu::lane() ^ bits, emu::lane() / width * width, width, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, emu::Where where = emu::Where::current()) {
    return emu::shuffle(mask, value, emu::lane() + int(by), emu::lane() / width * width, width, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, emu::Where where = emu::Where::current()) {
    return emu::shuffle(mask, value, emu::lane() - int(by), emu::lane() / width * width, width, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, emu::Where where = emu::Where::current()) {
    return unsigned(emu::sync_warp(mask, predicate != 0, emu::ballot, where));
}
inline int __any_sync(unsigned mask, int predicate, emu::Where where = emu::Where::current()) {
    return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, emu::Where where = emu::Where::current()) {
    return __ballot_sync(mask, !predicate, where) == 0;
}

// ---- memory ------------------------------------------------------------------------------------------------------

template <class T>
T __ldg(const T* p) {
    return *p;
}
// Atomic addition of integers; sums of floating-point values would depend on the order.
template <class T>
T atomicAdd(T* p, std::type_identity_t<T> value) {
    static_assert(std::is_integral_v<T>);
    const T before = *p;
    *p = T(before + value);
    return before;
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> value) {
    static_assert(std::is_integral_v<T>);
    const T before = *p;
    *p = std::max(before, value);
    return before;
}
