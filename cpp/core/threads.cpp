#include "threads.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "platform.hpp"

namespace headrace {
namespace {

using Clock = Cancellable::Clock;

// Spins of a worker before it sleeps: enough to bridge the gap between the calls of a loop in Python, and few enough to
// leave the core to other threads.
constexpr int spins_of_worker = 2000;
// Spins of a waiting thread before it sleeps: enough for the end of a short call, where threads that run wait for each
// other only briefly.
constexpr int spins_of_waiting = 2000;

// The largest number of rows of a short call; a longer call uses workers again as soon as the workers' rest is over.
constexpr int64_t rows_of_short_call = 4096;

constexpr auto time_between_asks = std::chrono::milliseconds(40);

int cores() {
    return int(std::max(1u, std::thread::hardware_concurrency()));
}

// The end of the workers' rest, during which calls do not wake workers. Where other processes occupy the cores,
// workers come too late, or stop in the middle of a task, and a call must wait for them.
class Rest {
  public:
    bool is_over(Clock::time_point now) const {
        return now.time_since_epoch().count() >= until_.load(std::memory_order_relaxed);
    }

    // Records a call with workers: its duration, the time for which it slept waiting for the results of workers, and
    // whether any worker took part.
    void learn(Clock::time_point end, Clock::duration took, Clock::duration slept, bool came) {
        if (slept * 2 > took) {
            begin(end, slept * calls_lost_in_sleep);
        } else if (came) {
            late_ = 0;
            calls_ = fewest_calls;
        } else if (++late_ == most_late) {  // a sleeping worker misses the first call, and is awake for the second
            late_ = 0;
            begin(end, took * calls_);
            calls_ = std::min(2 * calls_, most_calls);
        }
    }
    void forget() {
        late_ = 0;
        calls_ = fewest_calls;
        until_.store(0, std::memory_order_relaxed);
    }

  private:
    static constexpr int calls_lost_in_sleep = 16;  // limits the time lost in sleep to a sixteenth
    static constexpr int most_late = 3, fewest_calls = 4, most_calls = 64;
    static constexpr Clock::duration longest = std::chrono::milliseconds(100);

    void begin(Clock::time_point now, Clock::duration rest) {
        until_.store((now + std::min(rest, longest)).time_since_epoch().count(), std::memory_order_relaxed);
    }

    std::atomic<Clock::rep> until_{0};
    int late_ = 0, calls_ = fewest_calls;
};

using Body = void (*)(void*, int64_t);

// The duration of a task in the last call of each body, which is the estimate for the body's next call. Only the thread
// that holds the workers reads and writes these durations.
class Pace {
  public:
    // Whether a call of `count` tasks will be long; bodies without an estimate are assumed to be long.
    bool is_long(Body body, int64_t count) const {
        const Entry& entry = entries_[place_of(body)];
        return entry.body != body || entry.nanoseconds_of_task * double(count) >= least_nanoseconds;
    }
    void learn(Body body, int64_t count, Clock::duration took) {
        const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(took).count();
        entries_[place_of(body)] = {body, double(nanoseconds) / double(count)};
    }

  private:
    struct Entry {
        Body body = nullptr;
        double nanoseconds_of_task = 0;
    };
    // The least duration of a long call: about ten times the time that a call waits for a sleeping team to wake.
    static constexpr double least_nanoseconds = 500e3;

    static constexpr size_t places = 16;
    static size_t place_of(Body body) { return (reinterpret_cast<uintptr_t>(body) >> 4) % places; }
    Entry entries_[places];
};

// A worker thread. Each worker sleeps on a separate word, so that a call wakes only as many workers as it can use.
struct alignas(64) Worker {
    static constexpr uint32_t dismissed = 1;
    std::atomic<uint32_t> word{0};  // twice the number of offers, plus 1 when the worker must end

    void offer() {
        word.fetch_add(2, std::memory_order_release);
        word.notify_one();
    }
    void dismiss() {
        word.fetch_or(dismissed, std::memory_order_release);
        word.notify_one();
    }
};

class Pool {
  public:
    int process_threads() const { return wanted_.load(std::memory_order_relaxed); }
    int threads() const { return limit_ > 0 ? limit_ : process_threads(); }
    int threads_for(int64_t rows) const {
        return rows <= rows_of_short_call && (inside_ || !rest_.is_over(Clock::now())) ? 1 : threads();
    }

    void set_process_threads(int n) {
        wanted_.store(std::max(1, n));
        dismiss_surplus();
    }
    int limit_thread(int n) {
        const int before = std::exchange(limit_, std::max(0, n));
        if (before > process_threads()) dismiss_surplus();
        return before;
    }

    void run(int64_t n, Body body, void* context) {
        if (n <= 1 || inside_ || threads() == 1 || busy_.exchange(true)) {
            run_alone(n, body, context);
            return;
        }
        const uint64_t forks = forks_;
        bool stopped = false;
        for (int64_t first = 0; first < n && !stopped; first += most_tasks)
            stopped = run_together(first, std::min(n - first, most_tasks), body, context);
        if (forks == forks_) leave();
        if (stopped) throw Cancelled();
    }

    // Resets the pool in a forked child, in which workers do not exist and a call of another thread may have been
    // interrupted. The words of the workers stay allocated.
    void forget_workers() {
        new (&workers_) std::vector<std::shared_ptr<Worker>>;  // replaced without being read, because the fork may have
                                                               // come inside hire()
        open_.store(open_.load() & ~task_mask);
        surplus_ = false;
        inside_ = false;
        rest_.forget();
        ++forks_;
        run_team_.store(nullptr);
        busy_.store(false);
    }

    void borrow_team(RunTeam run, TeamSize size) {
        run_team_.store(nullptr);
        team_size_.store(size);
        borrower_.store(std::this_thread::get_id());
        run_team_.store(size ? run : nullptr);
    }

  private:
    static constexpr uint64_t task_mask = UINT32_MAX;
    static constexpr int64_t most_tasks = INT32_MAX;

    static void run_alone(int64_t n, Body body, void* context) {
        Cancellable* const cancellable = inside_ ? nullptr : Cancellable::of_this_thread();
        for (int64_t i = 0; i < n; ++i) {
            body(context, i);
            if (cancellable && i + 1 < n && cancellable->should_stop(Clock::now())) throw Cancelled();
        }
    }

    // Runs `count` tasks from `first` on, together with workers. Returns whether the call was stopped.
    bool run_together(int64_t first, int64_t count, Body body, void* context) {
        body_.store(body, std::memory_order_relaxed);
        context_.store(context, std::memory_order_relaxed);
        end_.store(first + count, std::memory_order_relaxed);
        done_.store(0, std::memory_order_relaxed);
        open_.store((++calls_ << 32) | uint64_t(count), std::memory_order_release);

        const auto start = Clock::now();
        const RunTeam run_team = run_team_.load();
        const auto here = std::this_thread::get_id();
        if (run_team && here == borrower_.load() && rest_.is_over(start) && team_size_.load()() == threads() &&
            pace_.is_long(body, count)) {
            Lead lead{this, count, here};
            run_team(
                [](void* data) {
                    Lead& one = *static_cast<Lead*>(data);
                    if (std::this_thread::get_id() == one.caller)
                        one.stopped = one.pool->lead(one.count, false);
                    else
                        one.pool->help();
                },
                &lead, unsigned(threads()), 0);
            if (!lead.stopped) pace_.learn(body, count, Clock::now() - start);
            return lead.stopped;
        }
        const bool stopped = lead(count, true);
        if (!stopped) pace_.learn(body, count, Clock::now() - start);
        return stopped;
    }

    // The data that a call passes to a team.
    struct Lead {
        Pool* pool;
        int64_t count;
        std::thread::id caller;
        bool stopped = false;
    };

    // Runs the caller's share of a call, and waits for tasks that other threads have begun. Returns whether the call
    // was stopped.
    bool lead(int64_t count, bool may_offer) {
        Cancellable* const cancellable = Cancellable::of_this_thread();
        const uint64_t forks = forks_;
        const auto start = Clock::now();
        const auto slept_before = slept_;
        int64_t others = count;  // tasks that this thread has not run
        bool stopped = false, offered = false;
        for (auto now = start;;) {
            if (may_offer && !offered && rest_.is_over(now)) {
                offer(int(std::min<int64_t>(threads(), others)) - 1);
                offered = true;
            }
            inside_ = true;
            const bool ran = run_one();
            inside_ = false;
            if (!ran) break;
            --others;
            if ((offered || !may_offer) && !cancellable) continue;
            now = Clock::now();
            if (!cancellable || !cancellable->should_stop(now)) {
                if (forks != forks_) throw std::runtime_error("forked in a signal's handler, in the middle of a call");
                continue;
            }
            stopped = true;
            if (forks != forks_) throw Cancelled();  // a forked child lacks the threads that took other tasks
            others -= withdraw();
            break;
        }
        wait_for(done_, uint32_t(others));
        const auto end = Clock::now();
        if (offered) rest_.learn(end, end - start, slept_ - slept_before, others > 0);
        return stopped;
    }

    // Runs tasks in a thread other than the caller's, until all are taken.
    void help() {
        inside_ = true;
        while (run_one()) {
            done_.fetch_add(1, std::memory_order_release);
            done_.notify_one();
        }
        inside_ = false;
    }

    // Takes the next task of any open call, and runs it. The body, the context and the task that are read belong to one
    // call: the next call, which has another number, begins only when all tasks of this call are done.
    bool run_one() {
        uint64_t open = open_.load(std::memory_order_acquire);
        Body body;
        void* context;
        int64_t end;
        do {
            if ((open & task_mask) == 0) return false;
            body = body_.load(std::memory_order_relaxed);
            context = context_.load(std::memory_order_relaxed);
            end = end_.load(std::memory_order_relaxed);
        } while (!open_.compare_exchange_weak(open, open - 1, std::memory_order_acquire));
        body(context, end - int64_t(open & task_mask));
        return true;
    }

    // Withdraws the tasks that no thread has begun, and returns the number of these tasks.
    int64_t withdraw() { return int64_t(open_.fetch_and(~task_mask, std::memory_order_relaxed) & task_mask); }

    // Wakes `helpers` workers, or all existing workers if no more can be made.
    void offer(int helpers) {
        try {
            while (int(workers_.size()) < helpers) {
                auto worker = std::make_shared<Worker>();
                workers_.reserve(workers_.size() + 1);
                std::thread(&Pool::work, this, worker).detach();
                workers_.push_back(std::move(worker));
            }
        } catch (const std::exception&) {
            helpers = int(workers_.size());  // no further threads could be made, or memory is exhausted
        }
        for (int i = 0; i < helpers; ++i) workers_[size_t(i)]->offer();
    }

    void work(const std::shared_ptr<Worker>& self) {
        for (uint32_t seen = 0; !(seen & Worker::dismissed);) {
            for (int spin = 0; spin < spins_of_worker && self->word.load(std::memory_order_acquire) == seen; ++spin)
                pause();
            self->word.wait(seen, std::memory_order_acquire);
            seen = self->word.load(std::memory_order_acquire);
            help();
        }
    }

    // Releases busy_. A thread that reduces the number of workers does not wait for busy_; the thread that holds busy_
    // dismisses surplus workers when it releases busy_.
    void leave() {
        do {
            if (surplus_.exchange(false))
                for (; int(workers_.size()) > process_threads() - 1; workers_.pop_back()) workers_.back()->dismiss();
            busy_.store(false);
        } while (surplus_.load() && !busy_.exchange(true));
    }
    void dismiss_surplus() {
        surplus_ = true;
        if (!busy_.exchange(true)) leave();
    }

    friend void headrace::wait_for(const std::atomic<uint32_t>&, uint32_t);

    static thread_local bool inside_;  // whether this thread runs a body
    static thread_local int limit_;
    static thread_local Clock::duration slept_;
    std::atomic<bool> busy_{false};  // whether a call holds the workers; no mutex, because the handler of a signal may
                                     // start a call
    std::atomic<int> wanted_{cores()};
    std::atomic<bool> surplus_{false};
    std::atomic<uint64_t> open_{0};  // the number of the call, and the number of its tasks that no thread has begun
    std::atomic<uint32_t> done_{0};  // the number of tasks of the call that workers have done
    std::atomic<Body> body_{nullptr};
    std::atomic<void*> context_{nullptr};
    std::atomic<int64_t> end_{0};
    uint64_t calls_ = 0, forks_ = 0;
    Rest rest_;
    Pace pace_;
    std::atomic<RunTeam> run_team_{nullptr};
    std::atomic<TeamSize> team_size_{nullptr};
    std::atomic<std::thread::id> borrower_{};
    std::vector<std::shared_ptr<Worker>> workers_;
};

thread_local bool Pool::inside_ = false;
thread_local int Pool::limit_ = 0;
thread_local Clock::duration Pool::slept_{};

// The pool of the process, which is never destroyed, because workers may outlive main.
Pool& pool() {
    static Pool* instance = [] {
        static Pool* made = new Pool;
        call_in_forked_children([] { made->forget_workers(); });
        return made;
    }();
    return *instance;
}

thread_local Cancellable* innermost = nullptr;

}  // namespace

Cancellable::Cancellable(Ask ask, void* context)
    : ask_(ask), context_(context), outer_(std::exchange(innermost, this)) {}

Cancellable::~Cancellable() {
    innermost = outer_;
}

Cancellable* Cancellable::of_this_thread() {
    return innermost;
}

bool Cancellable::should_stop(Clock::time_point now) {
    if (now < next_) return false;
    const bool is_first = next_ == Clock::time_point{};
    next_ = now + time_between_asks;
    if (is_first) return false;
    const bool stop = ask_(context_);
    next_ = Clock::now() + time_between_asks;
    return stop;
}

void wait_for(const std::atomic<uint32_t>& counter, uint32_t least) {
    const auto is_short = [&](uint32_t seen) { return int32_t(seen - least) < 0; };
    uint32_t seen = counter.load(std::memory_order_acquire);
    for (int spin = 0; is_short(seen) && spin < spins_of_waiting; ++spin) {
        pause();
        seen = counter.load(std::memory_order_acquire);
    }
    if (!is_short(seen)) return;
    const auto start = Clock::now();
    for (; is_short(seen); seen = counter.load(std::memory_order_acquire))
        counter.wait(seen, std::memory_order_acquire);
    Pool::slept_ += Clock::now() - start;
}

int num_threads() {
    return pool().threads();
}
int process_threads() {
    return pool().process_threads();
}
void set_num_threads(int n) {
    pool().set_process_threads(n);
}
int limit_thread(int n) {
    return pool().limit_thread(n);
}
void borrow_team(RunTeam run, TeamSize size) {
    pool().borrow_team(run, size);
}
int threads_for(int64_t rows) {
    return pool().threads_for(rows);
}

void parallel_for_raw(int64_t n, void (*body)(void*, int64_t), void* context) {
    pool().run(n, body, context);
}

}  // namespace headrace
