// Memory of the kernels: aligned, zeroed, and kept from call to call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace headrace {

constexpr size_t cache_line = 64;

template <class T>
struct FreeAligned {
    void operator()(T* p) const { std::free(p); }
};

template <class T>
using Aligned = std::unique_ptr<T[], FreeAligned<T>>;

// n numbers that are not set yet, aligned to a cache line.
template <class T>
Aligned<T> aligned_memory(size_t n) {
    if (n > (SIZE_MAX - cache_line) / sizeof(T)) throw std::bad_alloc();  // below, the size would wrap around
    const size_t bytes = (n * sizeof(T) / cache_line + 1) * cache_line;
    T* p = static_cast<T*>(std::aligned_alloc(cache_line, bytes));
    if (!p) throw std::bad_alloc();
    return Aligned<T>(p);
}

template <class T>
Aligned<T> aligned_zeros(size_t n) {
    Aligned<T> p = aligned_memory<T>(n);
    std::fill_n(p.get(), n, T(0));
    return p;
}

// Scratch of one thread: allocating it anew would cost page faults in every call.
template <class T>
T* thread_scratch(size_t n) {
    thread_local Aligned<T> buffer;
    thread_local size_t size = 0;
    if (size < n) {
        buffer.reset();
        size = 0;
        buffer = aligned_zeros<T>(n);
        size = n;
    }
    return buffer.get();
}

}  // namespace headrace
