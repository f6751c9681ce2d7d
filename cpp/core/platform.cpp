#include "platform.hpp"

#include <cstdlib>
#include <initializer_list>
#include <new>

#if defined(__x86_64__)
#include <cpuid.h>
#elif !defined(__aarch64__)
#include <thread>
#endif
#ifdef _WIN32
#include <malloc.h>
#else
#include <pthread.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace headrace {

void* allocate_aligned(size_t count, size_t size_of_one) {
    if (count > (SIZE_MAX - cache_line) / size_of_one) throw std::bad_alloc();  // the size would wrap around
    const size_t bytes = (count * size_of_one / cache_line + 1) * cache_line;
#ifdef _WIN32  // the C library of Windows lacks aligned_alloc
    void* const memory = _aligned_malloc(bytes, cache_line);
#else
    void* const memory = std::aligned_alloc(cache_line, bytes);
#endif
    if (!memory) throw std::bad_alloc();
    return memory;
}

void free_aligned(void* memory) noexcept {
#ifdef _WIN32
    _aligned_free(memory);
#else
    std::free(memory);
#endif
}

void call_in_forked_children([[maybe_unused]] void (*function)()) {
#ifndef _WIN32
    pthread_atfork(nullptr, nullptr, function);
#endif
}

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");  // takes some tens of cycles; most cores ignore the hint `yield`
#else
    std::this_thread::yield();
#endif
}

namespace {

bool has_all(uint64_t word, std::initializer_list<int> bits) {
    for (const int bit : bits)
        if (!(word >> bit & 1)) return false;
    return true;
}

X86Registers read_registers() {
    X86Registers r;
#ifdef __x86_64__
    const auto read = [](uint32_t leaf, uint32_t part, X86Registers::Leaf& to) {
        if (!__get_cpuid_count(leaf, part, &to.a, &to.b, &to.c, &to.d)) to = {};
    };
    read(0, 0, r.zero);
    read(1, 0, r.one);
    read(7, 0, r.seven);
    if (r.seven.a >= 1) read(7, 1, r.seven_one);
    read(0x80000001, 0, r.extended_one);
    if (has_all(r.one.c, {27})) {  // OSXSAVE: the instruction xgetbv exists
        uint32_t low = 0, high = 0;
        asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        r.enabled_state = uint64_t(high) << 32 | low;
    }
#endif
    return r;
}

}  // namespace

// The sets of a processor from its registers. __builtin_cpu_supports is not used, because compiler-rt's version is
// always false on some systems, and clang-cl lacks it.
X86Sets x86_sets(const X86Registers& r) {
    X86Sets sets{};
    // The bits of SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT; LAHF.
    sets.v2 = has_all(r.one.c, {0, 9, 13, 19, 20, 23}) && has_all(r.extended_one.c, {0});
    // The bits of FMA, MOVBE, OSXSAVE, AVX, F16C; LZCNT; BMI1, AVX2, BMI2; the registers of SSE and AVX.
    sets.v3 = sets.v2 && has_all(r.one.c, {12, 22, 27, 28, 29}) && has_all(r.extended_one.c, {5}) &&
              has_all(r.seven.b, {3, 5, 8}) && has_all(r.enabled_state, {1, 2});
    // The bits of AVX512F, DQ, CD, BW, VL; of mask registers, and of the rest of the wide registers.
    sets.v4 = sets.v3 && has_all(r.seven.b, {16, 17, 28, 30, 31}) && has_all(r.enabled_state, {5, 6, 7});
    sets.avx512_bf16 = sets.v4 && has_all(r.seven_one.a, {5});
    // The bits of AMX_BF16, AMX_TILE; of the registers for the shape of tiles, and for tiles.
    sets.amx_bf16 = has_all(r.seven.d, {22, 24}) && has_all(r.enabled_state, {17, 18});
    sets.intel = r.zero.b == 0x756e6547 && r.zero.d == 0x49656e69 && r.zero.c == 0x6c65746e;  // "GenuineIntel"
    return sets;
}

const X86Sets& x86_sets() {
    static const X86Sets sets = x86_sets(read_registers());
    return sets;
}

bool request_tiles() {
#if defined(__linux__) && defined(__x86_64__)
    constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}

}  // namespace headrace
