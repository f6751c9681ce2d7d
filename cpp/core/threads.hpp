// The thread pool behind one function. Workers are made on first use, spin briefly and then sleep; a forked child
// starts without workers and makes its own.
//
// A call never waits for a worker that the system has not scheduled: a free thread takes the next task, and the caller
// runs all tasks that no worker has begun. A call waits only for tasks that a worker has begun.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <type_traits>

namespace headrace {

// Number of threads for a call of this thread, itself among them: the process's (at first the number of cores), unless
// this thread has a limit of its own.
int num_threads();
int process_threads();
void set_num_threads(int n);  // the process's, at least 1; workers beyond it end
int limit_thread(int n);      // limit for calls of this thread only, 0: none; returns the limit before

// Another library's threads, by two functions of every OpenMP library: one runs fn(data) on a team and returns when all
// members have, one returns the size of a team. Such threads spin for milliseconds after their last use, and take that
// time from workers: in long calls, where both have the same number of threads, they serve as the workers. Each caller
// has a team of its own, so that only calls of the borrowing thread use one. A forked child has none. Null functions:
// no team from now on.
using RunTeam = void (*)(void (*fn)(void*), void* data, unsigned threads, unsigned flags);  // GOMP_parallel
using TeamSize = int (*)();                                                                 // omp_get_max_threads
void borrow_team(RunTeam run, TeamSize size);

// Number of threads to divide a call for this many rows among: 1 for a short one while workers are not used, because
// they came too late or were waited for too long, for example where other processes occupy the cores; else
// num_threads().
int threads_for(int64_t rows);

// Waits until `counter`, which only rises and is notified, has reached `least`: spins for some time, then sleeps. The
// counter may wrap around.
void wait_for(const std::atomic<uint32_t>& counter, uint32_t least);

// Thrown by parallel_for when its caller was stopped. The output of the tasks is then partly written.
struct Cancelled : std::exception {
    const char* what() const noexcept override { return "cancelled"; }
};

// While one exists, every parallel_for of this thread checks from time to time, between two tasks, whether to stop. The
// check may involve a computation: afterwards a task's thread_scratch may be another's.
class Cancellable {
  public:
    using Clock = std::chrono::steady_clock;
    using Ask = bool (*)(void*);

    Cancellable(Ask ask, void* context);
    ~Cancellable();
    Cancellable(const Cancellable&) = delete;
    Cancellable& operator=(const Cancellable&) = delete;

    bool should_stop(Clock::time_point now);
    static Cancellable* of_this_thread();

  private:
    Ask ask_;
    void* context_;
    Cancellable* outer_;
    Clock::time_point next_{};
};

// Calls body(context, i) for every i in [0, n), by the calling thread and by workers; i are begun in ascending order.
// Bodies must not throw. A call from inside a body, or while another thread's call is running, is run by only its
// caller.
void parallel_for_raw(int64_t n, void (*body)(void*, int64_t), void* context);

template <class F>
void parallel_for(int64_t n, F&& body) {
    parallel_for_raw(
        n, [](void* context, int64_t i) { (*static_cast<std::remove_reference_t<F>*>(context))(i); }, &body);
}

}  // namespace headrace
