#include "threads.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace headrace {
namespace {

// Long enough to bridge the gap between the calls of a loop in Python, short enough to leave the core to others.
constexpr int spins_before_sleep = 2000;
constexpr int spins_before_yield = 1000;

int cores() {
    return int(std::max(1u, std::thread::hardware_concurrency()));
}

// A worker sleeps on a word of its own, so that a call wakes and awaits as many workers as it has use for and no more.
struct alignas(64) Worker {
    std::atomic<uint32_t> calls{0};
};

class Pool {
  public:
    void set_wanted(int n) { wanted_.store(std::max(1, n)); }
    int wanted() const { return wanted_.load(); }

    void run(int64_t n, void (*body)(void*, int64_t), void* context) {
        int helpers = int(std::min<int64_t>(wanted(), n)) - 1;
        if (helpers <= 0 || inside_ || !busy_.try_lock()) {
            for (int64_t i = 0; i < n; ++i) body(context, i);
            return;
        }
        helpers = hire(helpers);
        body_ = body;
        context_ = context;
        n_ = n;
        next_.store(0, std::memory_order_relaxed);
        pending_.store(helpers, std::memory_order_relaxed);
        for (int i = 0; i < helpers; ++i) {
            workers_[i]->calls.fetch_add(1, std::memory_order_release);
            workers_[i]->calls.notify_one();
        }
        work();
        for (int spin = 0; pending_.load(std::memory_order_acquire) != 0; ++spin)
            spin < spins_before_yield ? pause() : std::this_thread::yield();
        busy_.unlock();
    }

    // In a forked child the workers do not exist (their words stay: nothing says when they are out of use), and the
    // lock may have been held.
    void forget_workers() {
        new (&workers_) std::vector<std::unique_ptr<Worker>>;  // unread: the fork may have come in the middle of hire()
        inside_ = false;
        new (&busy_) std::mutex;
    }

  private:
    // Starts workers until there are `helpers`, or as many as can be had: fewer hands do the work then.
    int hire(int helpers) {
        try {
            while (int(workers_.size()) < helpers) {
                auto worker = std::make_unique<Worker>();
                workers_.reserve(workers_.size() + 1);
                std::thread(&Pool::work_loop, this, worker.get()).detach();
                workers_.push_back(std::move(worker));
            }
        } catch (const std::exception&) {
            helpers = int(workers_.size());  // no more threads, or no memory for one
        }
        return helpers;
    }

    void work() {
        inside_ = true;
        for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < n_;) body_(context_, i);
        inside_ = false;
    }

    void work_loop(Worker* worker) {
        for (uint32_t seen = 0;; ++seen) {
            for (int spin = 0; spin < spins_before_sleep && worker->calls.load(std::memory_order_acquire) == seen;
                 ++spin)
                pause();
            worker->calls.wait(seen, std::memory_order_acquire);
            work();
            pending_.fetch_sub(1, std::memory_order_release);
        }
    }

    static thread_local bool inside_;  // this thread is running somebody's body
    std::mutex busy_;
    std::atomic<int> wanted_{cores()};
    std::atomic<int64_t> next_{0};
    std::atomic<int> pending_{0};
    std::vector<std::unique_ptr<Worker>> workers_;
    int64_t n_ = 0;
    void (*body_)(void*, int64_t) = nullptr;
    void* context_ = nullptr;
};

thread_local bool Pool::inside_ = false;

// Never destroyed: workers may outlive main.
Pool& pool() {
    static Pool* instance = [] {
        static Pool* made = new Pool;
        pthread_atfork(nullptr, nullptr, [] { made->forget_workers(); });
        return made;
    }();
    return *instance;
}

}  // namespace

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
}

int num_threads() {
    return pool().wanted();
}
void set_num_threads(int n) {
    pool().set_wanted(n);
}

void read_thread_environment() {
    const char* text = std::getenv("HEADRACE_NUM_THREADS");
    if (!text || !*text) return;
    char* end = nullptr;
    const long n = std::strtol(text, &end, 10);
    if (*end != '\0' || n < 1 || n > max_threads)
        throw std::runtime_error("HEADRACE_NUM_THREADS: expected a number from 1 to " + std::to_string(max_threads) +
                                 ", got " + text);
    set_num_threads(int(n));
}

void parallel_for_raw(int64_t n, void (*body)(void*, int64_t), void* context) {
    pool().run(n, body, context);
}

}  // namespace headrace
