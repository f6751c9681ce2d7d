// Memory of the kernels, aligned and kept from call to call.
#pragma once

#include <algorithm>
#include <memory>

#include "platform.hpp"

namespace headrace {

template <class T>
struct FreeAligned {
    void operator()(T* p) const { free_aligned(p); }
};

template <class T>
using Aligned = std::unique_ptr<T[], FreeAligned<T>>;

// n uninitialised values, aligned to a cache line.
template <class T>
Aligned<T> aligned_memory(size_t n) {
    return Aligned<T>(static_cast<T*>(allocate_aligned(n, sizeof(T))));
}

template <class T>
Aligned<T> aligned_zeros(size_t n) {
    Aligned<T> p = aligned_memory<T>(n);
    std::fill_n(p.get(), n, T(0));
    return p;
}

// Scratch of one thread, kept because a new allocation would cost page faults in every call. The scratch has arbitrary
// contents, which earlier calls wrote. Newly allocated scratch is not cleared, so that valgrind reports a read before
// the first write.
template <class T>
T* thread_scratch(size_t n) {
    thread_local Aligned<T> buffer;
    thread_local size_t size = 0;
    if (size < n) {
        buffer.reset();
        size = 0;
        buffer = aligned_memory<T>(n);
        size = n;
    }
    return buffer.get();
}

}  // namespace headrace
