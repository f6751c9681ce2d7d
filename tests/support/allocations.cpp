// Allocations of C++ that can be counted and made to fail, for a process that loads this library first (LD_PRELOAD).
#include <dlfcn.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

std::atomic<bool> is_counting{false};
std::atomic<int64_t> count{0}, failing{-1}, failed{0}, live{0};

// Whether this allocation may be a node of pybind11's table of objects. Without memory for a node, pybind11 frees the
// object by a pointer that was not allocated, or ends the process, which is no error of the core.
bool is_spared(size_t size, const void* caller) {
    Dl_info where;
    return size == 24 && dladdr(caller, &where) && std::strstr(where.dli_fname, "/_cpu.");
}

// Whether this allocation has to fail: only the allocation of the chosen index fails.
bool fails(size_t size, const void* caller) {
    if (!is_counting.load(std::memory_order_relaxed)) return false;
    if (is_spared(size, caller)) return false;
    if (count.fetch_add(1) != failing.load()) return false;
    failed.fetch_add(1);
    return true;
}

void* allocated(size_t size, const void* caller) {
    if (fails(size, caller)) throw std::bad_alloc();
    void* const memory = std::malloc(size ? size : 1);
    if (!memory) throw std::bad_alloc();
    live.fetch_add(1);
    return memory;
}

void* allocated(size_t size, size_t alignment, const void* caller) {
    if (fails(size, caller)) throw std::bad_alloc();
    void* memory = nullptr;
    if (posix_memalign(&memory, alignment < sizeof(void*) ? sizeof(void*) : alignment, size ? size : 1)) {
        throw std::bad_alloc();
    }
    live.fetch_add(1);
    return memory;
}

void freed(void* memory) {
    if (!memory) return;
    live.fetch_sub(1);
    std::free(memory);
}

}  // namespace

void* operator new(size_t size) {
    return allocated(size, __builtin_return_address(0));
}
void* operator new[](size_t size) {
    return allocated(size, __builtin_return_address(0));
}
void* operator new(size_t size, std::align_val_t alignment) {
    return allocated(size, size_t(alignment), __builtin_return_address(0));
}
void* operator new[](size_t size, std::align_val_t alignment) {
    return allocated(size, size_t(alignment), __builtin_return_address(0));
}
void operator delete(void* memory) noexcept {
    freed(memory);
}
void operator delete[](void* memory) noexcept {
    freed(memory);
}
void operator delete(void* memory, size_t) noexcept {
    freed(memory);
}
void operator delete[](void* memory, size_t) noexcept {
    freed(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
    freed(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
    freed(memory);
}
void operator delete(void* memory, size_t, std::align_val_t) noexcept {
    freed(memory);
}
void operator delete[](void* memory, size_t, std::align_val_t) noexcept {
    freed(memory);
}

// Allocates the core's scratch memory, or fails. The C library's `free`, which is not replaced, frees the memory.
extern "C" void* aligned_alloc(size_t alignment, size_t size) {
    if (fails(size, __builtin_return_address(0))) return nullptr;
    void* memory = nullptr;
    return posix_memalign(&memory, alignment, size) ? nullptr : memory;
}

// Makes the allocation of index `number`, counted from now on, fail; with -1 none fails, and all are counted.
extern "C" void allocations_begin(int64_t number) {
    count = 0;
    failed = 0;
    failing = number;
    is_counting = true;
}

// Ends the counting. Returns the number n of allocations, or -n - 1 if an allocation has failed.
extern "C" int64_t allocations_end() {
    is_counting = false;
    return failed ? -count - 1 : count.load();
}

// The number of blocks of `operator new` that are not freed yet.
extern "C" int64_t allocations_live() {
    return live;
}
