// The thread pool behind one function. Workers are made on first use, spin briefly and then sleep; a forked child
// starts without workers and makes its own.
#pragma once

#include <cstdint>
#include <type_traits>

namespace headrace {

constexpr int max_threads = 4096;

// The number of cores, until it is set.
int num_threads();
void set_num_threads(int n);  // at least 1

// Tells the processor that this is a loop that waits.
void pause();

// Sets it from HEADRACE_NUM_THREADS, if that is set; throws std::runtime_error if it is no number in range.
void read_thread_environment();

// Calls body(context, i) for every i in [0, n), by the calling thread and by workers. A call from inside a body, or
// while another thread's call is running, is run by its caller alone.
void parallel_for_raw(int64_t n, void (*body)(void*, int64_t), void* context);

template <class F>
void parallel_for(int64_t n, F&& body) {
    parallel_for_raw(
        n, [](void* context, int64_t i) { (*static_cast<std::remove_reference_t<F>*>(context))(i); }, &body);
}

}  // namespace headrace
