#include "threads.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <new>
#include <string>
#include <thread>

namespace headrace {
namespace {

// Long enough to bridge the gap between the calls of a loop in Python, short enough to leave the core to others.
constexpr int spins_before_sleep = 2000;
constexpr int spins_before_yield = 1000;

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
}

int default_threads() {
    const int cores = int(std::max(1u, std::thread::hardware_concurrency()));
    const char* text = std::getenv("HEADRACE_NUM_THREADS");
    if (!text || !*text) return cores;
    char* end = nullptr;
    const long n = std::strtol(text, &end, 10);
    return *end == '\0' && n >= 1 && n <= 4096 ? int(n) : cores;
}

class Pool {
  public:
    void set_wanted(int n) { wanted_.store(std::max(1, n)); }
    int wanted() const { return wanted_.load(); }

    void run(int64_t n, void (*body)(void*, int64_t), void* context) {
        const int helpers = int(std::min<int64_t>(wanted(), n)) - 1;
        if (helpers <= 0 || inside_ || !busy_.try_lock()) {
            for (int64_t i = 0; i < n; ++i) body(context, i);
            return;
        }
        body_ = body;
        context_ = context;
        n_ = n;
        helpers_ = helpers;
        next_.store(0, std::memory_order_relaxed);
        const uint32_t generation = generation_.load(std::memory_order_relaxed);
        while (workers_ < helpers) {
            try {
                std::thread(&Pool::work_loop, this, workers_, generation).detach();
            } catch (const std::system_error&) {
                break;  // no more threads to be had: fewer hands do the work
            }
            ++workers_;
        }
        pending_.store(workers_, std::memory_order_relaxed);
        generation_.fetch_add(1, std::memory_order_release);
        generation_.notify_all();
        work();
        for (int spin = 0; pending_.load(std::memory_order_acquire) != 0; ++spin)
            spin < spins_before_yield ? pause() : std::this_thread::yield();
        busy_.unlock();
    }

    // In a forked child the workers do not exist, and the lock may have been held.
    void forget_workers() {
        workers_ = 0;
        inside_ = false;
        pending_.store(0);
        generation_.store(0);
        new (&busy_) std::mutex;
    }

  private:
    void work() {
        inside_ = true;
        for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < n_;) body_(context_, i);
        inside_ = false;
    }

    void work_loop(int id, uint32_t seen) {
        for (;;) {
            for (int spin = 0; spin < spins_before_sleep; ++spin) {
                if (generation_.load(std::memory_order_acquire) != seen) break;
                pause();
            }
            generation_.wait(seen, std::memory_order_acquire);
            const uint32_t now = generation_.load(std::memory_order_acquire);
            if (now == seen) continue;
            seen = now;
            if (id < helpers_) work();
            pending_.fetch_sub(1, std::memory_order_release);
        }
    }

    static thread_local bool inside_;  // this thread is running somebody's body
    std::mutex busy_;
    std::atomic<int> wanted_{default_threads()};
    std::atomic<uint32_t> generation_{0};
    std::atomic<int64_t> next_{0};
    std::atomic<int> pending_{0};
    int workers_ = 0, helpers_ = 0;
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

int num_threads() {
    return pool().wanted();
}
void set_num_threads(int n) {
    pool().set_wanted(n);
}

void parallel_for_raw(int64_t n, void (*body)(void*, int64_t), void* context) {
    pool().run(n, body, context);
}

}  // namespace headrace
