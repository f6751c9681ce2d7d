// timed() returns the processor seconds of the current thread for one of `count` calls, or -1 after a failed call.
#pragma once

#include <ctime>

inline double now() {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

template <class F>
double timed(long count, const F& call) {
    const double start = now();
    for (long i = 0; i < count; ++i)
        if (!call()) return -1.0;
    return (now() - start) / static_cast<double>(count);
}
