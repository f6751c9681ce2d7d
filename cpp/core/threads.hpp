// The thread pool behind parallel_for. Workers are made on first use, spin briefly and then sleep; a forked child
// starts without workers and makes new ones.
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

// The number of threads, including the calling one, for calls from this thread: this thread's limit if there is one,
// otherwise the number set for the process (at first the number of cores).
int num_threads();
int process_threads();
void set_num_threads(int n);  // sets the number of threads of the process, at least 1; surplus workers end
int limit_thread(int n);      // sets the limit for calls of this thread only, 0: none; returns the previous limit

// The threads of another library can serve as workers, by two functions of every OpenMP library: one runs fn(data) on a
// team and returns when all members have finished, the other returns the size of a team. Threads of a team spin for
// milliseconds after their last use, and would take that time from workers. Teams serve as workers in long calls, if a
// team has as many threads as the call. Each caller has a separate team, so that only calls of the borrowing thread use
// a team. A forked child has no team. With null functions, no team is used from now on.
using RunTeam = void (*)(void (*fn)(void*), void* data, unsigned threads, unsigned flags);  // GOMP_parallel
using TeamSize = int (*)();                                                                 // omp_get_max_threads
void borrow_team(RunTeam run, TeamSize size);

// The number of threads among which a call for `rows` rows is divided. The number is 1 for a short call while workers
// rest, and otherwise num_threads(). Workers rest after they came too late, or after calls waited for workers too long,
// for example where other processes occupy the cores.
int threads_for(int64_t rows);

// Waits until `counter`, which only rises and is notified, has reached `least`: the thread spins for some time, then
// sleeps. The counter may wrap around.
void wait_for(const std::atomic<uint32_t>& counter, uint32_t least);

// The error that parallel_for throws when its caller was stopped; the output of its tasks is then partly written.
struct Cancelled : std::exception {
    const char* what() const noexcept override { return "cancelled"; }
};

// While a Cancellable exists, every parallel_for of its thread checks from time to time, between two tasks, whether to
// stop. The check may run a computation, which may overwrite the thread's scratch.
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

// Calls body(context, i) for every i in [0, n), by the calling thread and by workers; indices i are begun in ascending
// order. Bodies must not throw. Where a call comes from inside a body, or while another thread's call is running, the
// calling thread runs all tasks.
void parallel_for_raw(int64_t n, void (*body)(void*, int64_t), void* context);

template <class F>
void parallel_for(int64_t n, F&& body) {
    parallel_for_raw(
        n, [](void* context, int64_t i) { (*static_cast<std::remove_reference_t<F>*>(context))(i); }, &body);
}

}  // namespace headrace
