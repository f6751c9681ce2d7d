// Test-only stand-in for the CUDA device language: the same kernel source is
// compiled by the host compiler and a block's threads run as fibers, one at a
// time, so that __syncthreads, warp shuffles, votes, shared memory and atomics
// keep their meaning. Blocks run one after the other. Not a performance tool.
#pragma once
#include <setjmp.h>
#include <ucontext.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __constant__ static
// One block at a time, so one copy is right; the section lets a block start on NaNs.
#define HR_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(emu::block().dynamic.data())
#define HR_LAUNCH(kernel, grid, threads, bytes, stream, ...) \
    ((void)(stream), emu::launch(grid, threads, bytes, [&] { kernel(__VA_ARGS__); }))

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
using cudaStream_t = void*;
inline float4 make_float4(float a, float b, float c, float d) {
    return {a, b, c, d};
}
inline float2 make_float2(float a, float b) {
    return {a, b};
}

extern "C" {
extern char __start_emu_shared[] __attribute__((weak));
extern char __stop_emu_shared[] __attribute__((weak));
}

namespace emu {
enum class Wait { none, block, warp, done };
struct Fiber {
    ucontext_t boot;
    jmp_buf at;
    std::unique_ptr<char[]> stack;
    bool started = false;
    uint3 tid{};
    unsigned lane = 0, warp = 0;
    Wait wait = Wait::none;
    unsigned mask = 0;
    unsigned phase = 0;
};
struct alignas(16) Chunk {
    unsigned char b[16];
};
struct Warp {
    uint64_t slot[2][32];
    unsigned arrived = 0, expect = 0;
};
struct Block {
    std::vector<Fiber> f;
    std::vector<Warp> w;
    std::vector<Chunk> dynamic;
    std::function<void()> body;
    jmp_buf home;
    Fiber* cur = nullptr;
    size_t live = 0, at_barrier = 0;
    uint64_t moves = 0;
    size_t next = 0;
};
inline Block& block() {
    static Block b;
    return b;
}
inline int& schedule() {
    static int s = 0;
    return s;
}  // 0 ascending, 1 descending, n > 1: seed of a shuffle
inline dim3 g_block, g_grid;
inline uint3 g_bid;
constexpr size_t kStack = 64 * 1024;

[[noreturn]] inline void fail(const char* what) {
    Fiber* c = block().cur;
    std::fprintf(stderr, "cuda_emu: %s (block %u,%u thread %u)\n", what, g_bid.x, g_bid.y, c ? c->tid.x : 0u);
    std::abort();
}
inline void yield() {
    Block& b = block();
    if (!_setjmp(b.cur->at)) _longjmp(b.home, 1);
}
inline void entry() {
    Block& b = block();
    b.body();
    b.cur->wait = Wait::done;
    _longjmp(b.home, 1);
}
inline void open_barrier_if_full() {
    Block& b = block();
    if (!b.live || b.at_barrier < b.live) return;
    for (Fiber& f : b.f)
        if (f.wait == Wait::block) f.wait = Wait::none;
    b.at_barrier = 0;
    ++b.moves;
}
inline void sync_block() {
    Block& b = block();
    b.cur->wait = Wait::block;
    ++b.at_barrier;
    ++b.moves;
    open_barrier_if_full();
    while (b.cur->wait == Wait::block) yield();
}
inline void sync_warp(unsigned mask) {
    Block& b = block();
    Fiber& me = *b.cur;
    Warp& w = b.w[me.warp];
    if (!(mask >> me.lane & 1u)) fail("a thread is missing from its own warp mask");
    if (w.arrived == 0)
        w.expect = mask;
    else if (w.expect != mask)
        fail("threads of a warp disagree about the mask");
    w.arrived |= 1u << me.lane;
    ++b.moves;
    me.wait = Wait::warp;
    if (w.arrived == mask) {
        for (Fiber& f : b.f)
            if (f.warp == me.warp && f.wait == Wait::warp) f.wait = Wait::none;
        w.arrived = 0;
        return;
    }
    while (me.wait == Wait::warp) yield();
}
template <class T>
T exchange(unsigned mask, T v, int from) {
    static_assert(sizeof(T) <= 8);
    Block& b = block();
    Fiber& me = *b.cur;
    Warp& w = b.w[me.warp];
    unsigned p = me.phase++ & 1u;
    std::memcpy(&w.slot[p][me.lane], &v, sizeof(T));
    sync_warp(mask);
    if (from < 0 || from > 31) return v;
    if (!(mask >> from & 1u)) fail("a shuffle reads a lane outside the mask");
    T r;
    std::memcpy(&r, &w.slot[p][from], sizeof(T));
    return r;
}
inline void run_block() {
    Block& b = block();
    size_t n = b.f.size();
    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), size_t(0));
    if (schedule() == 1) std::reverse(order.begin(), order.end());
    if (schedule() > 1) std::shuffle(order.begin(), order.end(), std::mt19937(unsigned(schedule()) + g_bid.x));
    for (Fiber& f : b.f) {
        f.started = false;
        f.wait = Wait::none;
        f.phase = 0;
    }
    for (Warp& w : b.w) w.arrived = 0;
    b.live = n;
    b.at_barrier = 0;
    while (b.live) {
        uint64_t before = b.moves;
        for (b.next = 0; b.next < n; ++b.next) {  // a member: locals may be lost over a jump
            Fiber& f = b.f[order[b.next]];
            if (f.wait != Wait::none) continue;
            b.cur = &f;
            ++b.moves;
            if (!_setjmp(b.home)) {
                if (f.started) _longjmp(f.at, 1);
                f.started = true;
                getcontext(&f.boot);
                f.boot.uc_stack.ss_sp = f.stack.get();
                f.boot.uc_stack.ss_size = kStack;
                f.boot.uc_link = nullptr;
                makecontext(&f.boot, entry, 0);
                setcontext(&f.boot);
            }
            if (b.cur->wait == Wait::done) {
                --b.live;
                open_barrier_if_full();
            }
        }
        if (b.live && b.moves == before)
            fail("deadlock: a barrier or a warp operation is not reached by all its threads");
    }
}
template <class F>
void launch(dim3 grid, dim3 threads, size_t bytes, F body) {
    Block& b = block();
    size_t n = size_t(threads.x) * threads.y * threads.z;
    if (n == 0 || n > 1024) fail("bad block size");
    if (b.f.size() != n) {
        b.f = std::vector<Fiber>(n);
        for (Fiber& f : b.f) f.stack.reset(new char[kStack]);
    }
    b.w.assign((n + 31) / 32, Warp{});
    g_block = threads;
    g_grid = grid;
    b.body = body;
    for (size_t i = 0; i < n; ++i) {
        b.f[i].tid = {unsigned(i % threads.x), unsigned(i / threads.x % threads.y),
                      unsigned(i / threads.x / threads.y)};
        b.f[i].lane = unsigned(i % 32);
        b.f[i].warp = unsigned(i / 32);
    }
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                g_bid = {x, y, z};
                b.dynamic.resize((bytes + sizeof(Chunk) - 1) / sizeof(Chunk));
                if (!b.dynamic.empty()) std::memset(b.dynamic.data(), 0xff, bytes);  // NaNs: reads before writes show
                if (__start_emu_shared)
                    std::memset(__start_emu_shared, 0xff, size_t(__stop_emu_shared - __start_emu_shared));
                run_block();
            }
}
}  // namespace emu

#define threadIdx (emu::block().cur->tid)
#define blockIdx (emu::g_bid)
#define blockDim (emu::g_block)
#define gridDim (emu::g_grid)
inline void __syncthreads() {
    emu::sync_block();
}
inline void __syncwarp(unsigned m = ~0u) {
    emu::sync_warp(m);
}
inline void __threadfence() {}
template <class T>
T __shfl_sync(unsigned m, T v, int lane, int w = 32) {
    int l = int(emu::block().cur->lane);
    return emu::exchange(m, v, l / w * w + (lane & (w - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned m, T v, int x, int w = 32) {
    int l = int(emu::block().cur->lane), s = l ^ x;
    return emu::exchange(m, v, s < l / w * w + w ? s : l);
}
template <class T>
T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32) {
    int l = int(emu::block().cur->lane), s = l + int(d);
    return emu::exchange(m, v, s < l / w * w + w ? s : l);
}
template <class T>
T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32) {
    int l = int(emu::block().cur->lane), s = l - int(d);
    return emu::exchange(m, v, s >= l / w * w ? s : l);
}
inline unsigned __ballot_sync(unsigned m, int p) {
    unsigned r = 0;
    for (int i = 0; i < 32; ++i)
        if (m >> i & 1u) r |= (emu::exchange(m, p != 0, i) ? 1u : 0u) << i;
    return r;
}
inline int __any_sync(unsigned m, int p) {
    return __ballot_sync(m, p) != 0;
}
inline int __all_sync(unsigned m, int p) {
    return __ballot_sync(m, p) == m;
}
template <class T>
T atomicAdd(T* p, T v) {
    T o = *p;
    *p = o + v;
    return o;
}
template <class T>
T atomicMax(T* p, T v) {
    T o = *p;
    *p = std::max(o, v);
    return o;
}
template <class T>
T __ldg(const T* p) {
    return *p;
}
inline float __expf(float x) {
    return std::exp(x);
}
inline float __logf(float x) {
    return std::log(x);
}
inline float __fdividef(float a, float b) {
    return a / b;
}
inline float rsqrtf(float x) {
    return 1.f / std::sqrt(x);
}
inline float __fmaf_rn(float a, float b, float c) {
    return std::fma(a, b, c);
}

using cudaError_t = int;
enum { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
using cudaEvent_t = void*;
enum {
    cudaEventDisableTiming = 2,
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
    cudaDevAttrMultiProcessorCount = 16
};
inline cudaError_t cudaMallocAsync(void** p, size_t n, cudaStream_t) {
    *p = std::aligned_alloc(256, (n + 255) / 256 * 256);
    if (!*p) return cudaErrorMemoryAllocation;
    std::memset(*p, 0xff, n);
    return cudaSuccess;
}
inline cudaError_t cudaFreeAsync(void* p, cudaStream_t) {
    std::free(p);
    return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind, cudaStream_t) {
    std::memcpy(to, from, n);
    return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* p, int v, size_t n, cudaStream_t) {
    std::memset(p, v, n);
    return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
    return cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
    *e = nullptr;
    return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) {
    return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t) {
    return cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned = 0) {
    return cudaSuccess;
}
inline cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t) {
    return "out of memory";
}
inline cudaError_t cudaGetDevice(int* d) {
    *d = 0;
    return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) {
    return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* n) {
    *n = 1;
    return cudaSuccess;
}
struct cudaDeviceProp {
    char name[256];
};
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    std::strcpy(properties->name, "emulation");
    return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* v, int a, int) {
    *v = a == cudaDevAttrMultiProcessorCount ? 4 : 232448;
    return cudaSuccess;
}
template <class F>
cudaError_t cudaFuncSetAttribute(F, int, int) {
    return cudaSuccess;
}

template <class F>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* n, F, int, size_t) {
    *n = 2;
    return cudaSuccess;
}
