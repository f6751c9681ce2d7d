// A block of threads as fibers on one thread of the host: a scheduler chooses the thread that runs next, and threads
// wait for each other at barriers and operations of warps.
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <dlfcn.h>
#include <gnu/lib-names.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emu {

// The error for a forbidden action of a kernel.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

using Where = std::source_location;
using Bits = uint64_t;  // operand and result of a thread in an operation of a warp

constexpr unsigned most_threads = 1024, warp_size = 32;
constexpr size_t page = 4096, stack_bytes = 64 * page;

enum class Wait { nothing, block, warp, end };

// The source of a thread's result in an operation of a warp is a lane from 0 to 31, or one of these constants.
constexpr int nothing = -1, own = -2, ballot = -3;

struct Fiber {
    char* stack = nullptr;
    bool started = false;
    jmp_buf at;
    void* fake_stack = nullptr;  // for AddressSanitizer

    uint3 index{};
    unsigned lane = 0, warp = 0;
    Wait wait = Wait::nothing;
    Where where;
    unsigned mask = 0;  // mask of the operation for which the thread waits
    int from = nothing;
    Bits value = 0;
};

struct Warp {
    unsigned living = 0, waiting = 0;  // bit masks of lanes
};

struct Block {
    std::vector<Fiber> pool = std::vector<Fiber>(most_threads);
    char* stacks = nullptr;
    std::vector<unsigned> order;
    std::vector<Warp> warps;
    std::function<void()> kernel;
    jmp_buf home;
    const void* home_stack = nullptr;
    size_t home_bytes = 0;
    void* home_fake_stack = nullptr;
    Fiber* current = nullptr;

    dim3 threads, blocks;
    uint3 index{};
    void* shared = nullptr;
    unsigned size = 0, living = 0, at_barrier = 0, predicates = 0, voters = 0;
    uint64_t moves = 0;
    std::string error;
    int schedule = 0;
    std::minstd_rand random;
};

inline Block& block() {
    static Block only;
    return only;
}

// The order of threads: 0 ascending, 1 descending (of blocks, too), n > 1 shuffled at every round with n as the seed.
inline void schedule(int n) {
    block().schedule = n;
}

inline std::string name_of(uint3 i) {
    return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

inline std::string name_of(const Where& where) {
    const std::string file = where.file_name();
    return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

inline std::string report(const std::string& what, const Fiber& f) {
    return what + ": block " + name_of(block().index) + ", thread " + name_of(f.index) + ", " + name_of(f.where);
}

// ---- from fiber to fiber -----------------------------------------------------------------------------------------

#ifdef __SANITIZE_ADDRESS__
inline void before_switch(void** fake_stack, const void* stack, size_t bytes) {
    __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
}
inline void after_switch(void* fake_stack, const void** stack, size_t* bytes) {
    __sanitizer_finish_switch_fiber(fake_stack, stack, bytes);
}
inline void clear_stack(char* stack) {
    __asan_unpoison_memory_region(stack, stack_bytes);
}
// The jump function of the C library. AddressSanitizer's version assumes that a jump leaves all frames between its
// two ends, forgets their bounds, and queries the position of the stack, which took half the time of the emulated
// tests. A jump between fibers leaves no frame.
using Jump = void (*)(jmp_buf, int);
inline const Jump jump = reinterpret_cast<Jump>(dlsym(dlopen(LIBC_SO, RTLD_LAZY), "_longjmp"));
#else
inline void before_switch(void**, const void*, size_t) {}
inline void after_switch(void*, const void**, size_t*) {}
inline void clear_stack(char*) {}
[[noreturn]] inline void jump(jmp_buf to, int value) {
    _longjmp(to, value);
}
#endif

// Switches from a thread to the scheduler, until the thread is resumed.
[[gnu::noinline]] inline void leave() {
    Block& b = block();
    before_switch(&b.current->fake_stack, b.home_stack, b.home_bytes);
    if (_setjmp(b.current->at) == 0) jump(b.home, 1);
    after_switch(b.current->fake_stack, &b.home_stack, &b.home_bytes);  // another thread of the host may resume the
                                                                        // fiber
}

// The body of a fiber, which runs one thread of a block after another, because starting a fiber costs more than running
// a thread.
inline void live() {
    after_switch(nullptr, &block().home_stack, &block().home_bytes);
    for (;;) {
        block().kernel();
        block().current->wait = Wait::end;
        leave();
    }
}

// Switches from the scheduler to a thread, until the thread waits or ends. The function is not inlined, because a jump
// back would lose the variables of the scheduler's loop.
[[gnu::noinline]] inline void resume(Fiber& f) {
    Block& b = block();
    b.current = &f;
    before_switch(&b.home_fake_stack, f.stack, stack_bytes);
    if (_setjmp(b.home) == 0) {
        if (f.started) jump(f.at, 1);
        f.started = true;
        clear_stack(f.stack);
        ucontext_t start;
        getcontext(&start);
        start.uc_stack.ss_sp = f.stack;
        start.uc_stack.ss_size = stack_bytes;
        start.uc_link = nullptr;
        makecontext(&start, live, 0);
        setcontext(&start);
    }
    after_switch(block().home_fake_stack, nullptr, nullptr);
}

// Allocates stacks for all threads that a block may have, separated by pages that must not be accessed.
inline void map_stacks(Block& b) {
    constexpr size_t step = page + stack_bytes;
    void* p =
        mmap(nullptr, step * most_threads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    b.stacks = static_cast<char*>(p);
    for (unsigned i = 0; i < most_threads; ++i) {
        mprotect(b.stacks + i * step, page, PROT_NONE);
        b.pool[i].stack = b.stacks + i * step + page;
    }
}

// Ends the launch with an error; called by a thread.
inline void fail(const std::string& what) {
    block().error = report(what, *block().current);
    leave();
}

// ---- waits of threads for each other -----------------------------------------------------------------------------

inline Fiber& thread_of(unsigned warp, unsigned lane) {
    return block().pool[warp * warp_size + lane];
}

// Opens a barrier when the last thread has reached it. As on a device, the barrier does not wait for threads that have
// ended.
inline void open_barrier() {
    Block& b = block();
    if (b.living == 0 || b.at_barrier < b.living) return;
    const Fiber* first = nullptr;
    for (unsigned i = 0; i < b.size; ++i) {
        Fiber& f = b.pool[i];
        if (f.wait != Wait::block) continue;
        if (!first) first = &f;
        if (f.where.line() != first->where.line() && b.error.empty())
            b.error = report("threads wait at different barriers, another at " + name_of(first->where), f);
        f.wait = Wait::nothing;
    }
    b.predicates = b.voters;
    b.voters = b.at_barrier = 0;
    ++b.moves;
}

// Sets the result of every thread of an operation when all participating threads have reached the operation.
inline void complete(unsigned warp, unsigned mask) {
    Block& b = block();
    Warp& w = b.warps[warp];
    const unsigned part = mask & w.living;
    if ((w.waiting & part) != part) return;
    Bits votes = 0, values[warp_size] = {};
    for (unsigned lane = 0; lane < warp_size; ++lane) {
        if (!(part >> lane & 1)) continue;
        const Fiber& f = thread_of(warp, lane);
        const Fiber& first = thread_of(warp, unsigned(__builtin_ctz(part)));
        if (f.mask != mask) {
            b.error = report("threads of a warp disagree about the mask", f);
        } else if (f.where.line() != first.where.line()) {
            b.error =
                report("a warp's threads take part in different operations, another in " + name_of(first.where), f);
        } else if (f.from >= 0 && !(part >> f.from & 1)) {
            b.error = report("a shuffle reads lane " + std::to_string(f.from) + ", which takes no part", f);
        }
        values[lane] = f.value;
        if (f.from == ballot && f.value) votes |= Bits(1) << lane;
    }
    if (!b.error.empty()) return;
    for (unsigned lane = 0; lane < warp_size; ++lane) {
        if (!(part >> lane & 1)) continue;
        Fiber& f = thread_of(warp, lane);
        if (f.from >= 0) f.value = values[f.from];
        if (f.from == ballot) f.value = votes;
        f.wait = Wait::nothing;
    }
    w.waiting &= ~part;
    ++b.moves;
}

// Handles the end of a thread, which completes barriers and operations that waited for this thread alone.
inline void bury(const Fiber& f) {
    Block& b = block();
    Warp& w = b.warps[f.warp];
    --b.living;
    w.living &= ~(1u << f.lane);
    open_barrier();
    for (unsigned lane = 0; lane < warp_size; ++lane)
        if (w.waiting >> lane & 1) complete(f.warp, thread_of(f.warp, lane).mask);
}

inline void sync_block(bool predicate, const Where& where) {
    Block& b = block();
    Fiber& me = *b.current;
    me.wait = Wait::block;
    me.where = where;
    ++b.at_barrier;
    b.voters += predicate;
    open_barrier();
    if (me.wait != Wait::nothing || !b.error.empty()) leave();
}

inline Bits sync_warp(unsigned mask, Bits value, int from, const Where& where) {
    Fiber& me = *block().current;
    me.where = where;
    if (!(mask >> me.lane & 1)) fail("a thread is missing from its own mask");
    me.wait = Wait::warp;
    me.mask = mask;
    me.value = value;
    me.from = from;
    block().warps[me.warp].waiting |= 1u << me.lane;
    complete(me.warp, mask);
    if (me.wait != Wait::nothing || !block().error.empty()) leave();
    return me.value;
}

// ---- the scheduler -----------------------------------------------------------------------------------------------

inline void run_block() {
    Block& b = block();
    b.warps.assign((b.size + warp_size - 1) / warp_size, Warp{});
    for (unsigned i = 0; i < b.size; ++i) {
        b.pool[i].wait = Wait::nothing;
        b.warps[i / warp_size].living |= 1u << i % warp_size;
    }
    b.living = b.size;
    b.at_barrier = b.voters = 0;
    while (b.living > 0 && b.error.empty()) {
        const uint64_t before = b.moves;
        if (b.schedule > 1) std::shuffle(b.order.begin(), b.order.end(), b.random);
        for (unsigned i : b.order) {
            Fiber& f = b.pool[i];
            if (f.wait != Wait::nothing) continue;
            ++b.moves;
            resume(f);
            if (!b.error.empty()) break;
            if (f.wait == Wait::end) bury(f);
        }
        if (b.living > 0 && b.moves == before && b.error.empty()) {
            const auto waits = [](const Fiber& f) { return f.wait == Wait::block || f.wait == Wait::warp; };
            const Fiber& f = *std::find_if(b.pool.begin(), b.pool.begin() + b.size, waits);
            b.error = report("deadlock, not all threads reach a barrier or a warp's operation", f);
        }
    }
}

// Runs all blocks of a grid. Throws Error.
inline void run(dim3 blocks, dim3 threads, void* shared, size_t shared_bytes, std::function<void()> kernel) {
    Block& b = block();
    if (!b.stacks) map_stacks(b);
    b.threads = threads;
    b.blocks = blocks;
    b.shared = shared;
    b.size = threads.x * threads.y * threads.z;
    b.kernel = std::move(kernel);
    b.error.clear();
    b.random.seed(unsigned(b.schedule));
    b.order.resize(b.size);
    std::iota(b.order.begin(), b.order.end(), 0u);
    if (b.schedule == 1) std::reverse(b.order.begin(), b.order.end());
    for (unsigned i = 0; i < b.size; ++i) {
        Fiber& f = b.pool[i];
        f.index = {i % threads.x, i / threads.x % threads.y, i / threads.x / threads.y};
        f.lane = i % warp_size;
        f.warp = i / warp_size;
    }
    const uint64_t n = uint64_t(blocks.x) * blocks.y * blocks.z;
    for (uint64_t k = 0; k < n && b.error.empty(); ++k) {
        const uint64_t i = b.schedule == 1 ? n - 1 - k : k;
        b.index = {unsigned(i % blocks.x), unsigned(i / blocks.x % blocks.y), unsigned(i / blocks.x / blocks.y)};
        if (shared) std::memset(shared, 0xff, shared_bytes);
        run_block();
    }
    b.kernel = nullptr;
    if (b.error.empty()) return;
    for (Fiber& f : b.pool) f.started = false;  // after an error, some fibers have stopped in the middle of a thread
    throw Error(b.error);
}

}  // namespace emu
