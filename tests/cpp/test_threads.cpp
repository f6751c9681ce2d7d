// Tests of the thread pool, and of programs whose weights change while other threads read them. The tests also run
// under ThreadSanitizer.
//
//   test_threads [threads | fork]
#ifndef _WIN32
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../../cpp/core/conditioners/masked.hpp"
#include "../../cpp/core/muon.hpp"
#include "../../cpp/core/program.hpp"
#include "../../cpp/core/threads.hpp"
#include "check.hpp"

using namespace headrace;
using namespace headrace::tests;

namespace {

// ---- the pool -----------------------------------------------------------------------------------------------------

// Whether a call for n tasks visits every index once.
bool visits_once(int64_t n) {
    std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
    parallel_for(n, [&](int64_t i) { visits.at(size_t(i)).fetch_add(1, std::memory_order_relaxed); });
    for (const auto& v : visits)
        if (v.load(std::memory_order_relaxed) != 1) return false;
    return true;
}

void test_every_index_once() {
    for (const int threads : {1, 2, 3, 5, 8, 2, 1}) {
        set_num_threads(threads);
        CHECK(num_threads() == threads, "num_threads() is %d after set_num_threads(%d)", num_threads(), threads);
        for (const int64_t n : {0, 1, 2, 3, 7, 64, 1000, 30000})
            CHECK(visits_once(n), "parallel_for(%lld) with %d threads", (long long)n, threads);
    }
    set_num_threads(0);
    CHECK(num_threads() == 1, "num_threads() is %d after set_num_threads(0)", num_threads());
}

// Tests that the writes of a body are visible when the call returns, without any other synchronisation.
void test_results_are_visible() {
    set_num_threads(4);
    std::vector<int64_t> squares(5000);
    for (int64_t round = 0; round < 50; ++round) {
        parallel_for(int64_t(squares.size()), [&](int64_t i) { squares[i] = i * i + round; });
        bool good = true;
        for (int64_t i = 0; i < int64_t(squares.size()); ++i) good = good && squares[i] == i * i + round;
        CHECK(good, "results of round %lld", (long long)round);
    }
}

void test_nested_calls_are_inline() {
    set_num_threads(4);
    constexpr int64_t outer = 50, inner = 40;
    std::vector<int> visits(outer * inner);
    std::atomic<int> elsewhere{0};
    parallel_for(outer, [&](int64_t i) {
        const auto here = std::this_thread::get_id();
        parallel_for(inner, [&](int64_t j) {
            if (std::this_thread::get_id() != here) ++elsewhere;
            ++visits[i * inner + j];
            parallel_for(2, [&](int64_t) {
                if (std::this_thread::get_id() != here) ++elsewhere;
            });
        });
    });
    bool once = true;
    for (int v : visits) once = once && v == 1;
    CHECK(once, "nested calls visit every pair of indices once");
    CHECK(elsewhere == 0, "a nested call ran %d bodies on another thread", elsewhere.load());
    CHECK(visits_once(1000), "a call after nested ones");
}

void test_concurrent_callers() {
    set_num_threads(3);
    std::vector<std::thread> callers;
    std::atomic<int> wrong{0};
    for (int caller = 0; caller < 4; ++caller)
        callers.emplace_back([&, caller] {
            for (int64_t round = 0; round < 200; ++round)
                if (!visits_once(1 + (round * 37 + caller * 11) % 300)) ++wrong;
        });
    for (std::thread& c : callers) c.join();
    CHECK(wrong == 0, "%d of 800 concurrent calls missed an index or took one twice", wrong.load());
}

void test_changing_thread_counts() {
    std::atomic<bool> stop{false};
    std::thread changer([&] {
        for (int k = 0; !stop; ++k) {
            set_num_threads(1 + k % 6);
            std::this_thread::yield();
        }
    });
    int wrong = 0;
    for (int round = 0; round < 500; ++round) wrong += !visits_once(1 + round % 100);
    stop = true;
    changer.join();
    CHECK(wrong == 0, "%d of 500 calls went wrong while the number of threads changed", wrong);
}

// Tests that no call waits for workers that come too late, and that such workers never find a finished call, whose
// context was on the stack of its caller and is overwritten.
void test_late_workers_find_nothing() {
    set_num_threads(6);
    int wrong = 0;
    for (int round = 0; round < 3000; ++round) {
        std::vector<int> visits(size_t(2 + round % 5));
        parallel_for(int64_t(visits.size()), [&](int64_t i) { ++visits.at(size_t(i)); });
        for (int& v : visits) wrong += std::exchange(v, -1000000) != 1;
    }
    CHECK(wrong == 0, "%d tasks of short calls were not run once", wrong);
}

// Tests tasks that wait for earlier tasks, also while a thread sleeps in the middle of a task.
void test_tasks_in_order() {
    set_num_threads(4);
    for (int round = 0; round < 20; ++round) {
        std::atomic<uint32_t> done{UINT32_MAX - 20};  // the counter wraps around
        const uint32_t start = done;
        std::vector<int> values(64);
        std::atomic<int> wrong{0};
        parallel_for(64, [&](int64_t i) {
            wait_for(done, start + uint32_t(i / 8 * 8));
            for (int64_t k = 0; k < i / 8 * 8; ++k) wrong += values[size_t(k)] != 1;
            if (i % 8 == 3) std::this_thread::sleep_for(std::chrono::microseconds(300));
            values[size_t(i)] = 1;
            done.fetch_add(1, std::memory_order_release);
            done.notify_all();
        });
        CHECK(wrong == 0, "%d tasks began before those they wait for were done", wrong.load());
    }
}

// Tests that no task runs after its caller was stopped, and that the next call runs all its tasks.
void test_cancelled_calls() {
    for (const int threads : {1, 4}) {
        set_num_threads(threads);
        for (int round = 0; round < 3; ++round) {
            int asked = 0;
            std::atomic<int> running{0}, begun{0};
            bool cancelled = false;
            try {
                const Cancellable cancellable(
                    [](void* count) {
                        const bool good = visits_once(50);  // an interrupt check may start a call
                        return ++*static_cast<int*>(count) == 2 || !good;
                    },
                    &asked);
                parallel_for(1000000, [&](int64_t) {
                    ++running, ++begun;
                    std::this_thread::sleep_for(std::chrono::microseconds(200));
                    --running;
                });
            } catch (const Cancelled&) {
                cancelled = true;
            }
            CHECK(cancelled && asked == 2, "%d threads: asked %d times", threads, asked);
            CHECK(running == 0 && begun < 100000, "%d threads: %d run, %d begun", threads, running.load(),
                  begun.load());
            CHECK(visits_once(1000), "a call after one that was cancelled");
        }
    }
}

void test_a_limit_of_one_thread() {
    set_num_threads(3);
    CHECK(limit_thread(1) == 0 && num_threads() == 1 && process_threads() == 3, "a limit of one");
    std::thread([] { CHECK(num_threads() == 3, "another thread has %d", num_threads()); }).join();
    const auto here = std::this_thread::get_id();
    int elsewhere = 0;
    parallel_for(100, [&](int64_t) { elsewhere += std::this_thread::get_id() != here; });
    CHECK(elsewhere == 0, "%d tasks on other threads", elsewhere);
    CHECK(limit_thread(0) == 1 && num_threads() == 3, "no limit");
}

// A team as in OpenMP: the caller is a member, and a call waits for all members.
std::atomic<int> teams{0}, size_of_team{1};
void run_team(void (*fn)(void*), void* data, unsigned threads, unsigned) {
    ++teams;
    std::vector<std::thread> others;
    for (unsigned i = 1; i < threads; ++i) others.emplace_back(fn, data);
    fn(data);
    for (std::thread& other : others) other.join();
}

// The record of a call whose tasks take a given time: the threads that ran tasks, and whether each task ran once.
struct Ran {
    int tasks = 0, elsewhere = 0;
};
Ran ran_by(int64_t n, std::chrono::microseconds time) {
    const auto here = std::this_thread::get_id();
    std::atomic<int> tasks{0}, elsewhere{0};
    parallel_for(n, [&](int64_t) {
        ++tasks;
        if (std::this_thread::get_id() != here) ++elsewhere;
        if (time.count()) std::this_thread::sleep_for(time);
    });
    return {tasks, elsewhere};
}

void test_long_calls_run_on_a_borrowed_team() {
    using std::chrono::microseconds;
    set_num_threads(3);
    size_of_team = 3;
    borrow_team(run_team, [] { return size_of_team.load(); });
    // If workers come too late, the pool uses neither workers nor teams for a tenth of a second.
    const auto let_them_rest = [] { std::this_thread::sleep_for(std::chrono::milliseconds(150)); };
    let_them_rest();
    teams = 0;
    for (int round = 0; round < 5; ++round) {
        const Ran ran = ran_by(30, microseconds(1000));
        CHECK(ran.tasks == 30 && ran.elsewhere > 0, "%d tasks, %d by the team", ran.tasks, ran.elsewhere);
    }
    CHECK(teams == 5, "%d of 5 long calls on the team", teams.load());

    // After one quick call, the next short call needs no team. On a busy machine several calls may pass before one is
    // quick.
    let_them_rest();
    int calls = 0, before = -1;
    while (calls < 5000 && teams != before) {
        before = teams;
        ran_by(30, microseconds(0));
        ++calls;
    }
#ifdef HR_EMULATED_PROCESSOR
    std::printf("skipped: that a short call is quick, after %d calls\n", calls);
#else
    CHECK(teams == before, "each of %d short calls on the team", calls);
#endif

    teams = 0, size_of_team = 2;
    CHECK(ran_by(30, microseconds(1000)).tasks == 30 && teams == 0, "a team of another size is left alone");
    size_of_team = 3;
    std::thread([] { ran_by(30, microseconds(1000)); }).join();
    CHECK(teams == 0, "another thread would get a team of its own");

    let_them_rest();
    bool cancelled = false;
    int asked = 0;
    try {
        const Cancellable cancellable([](void* count) { return ++*static_cast<int*>(count) == 2; }, &asked);
        for (int round = 0; round < 2; ++round) ran_by(100000, microseconds(1000));
    } catch (const Cancelled&) {
        cancelled = true;
    }
    CHECK(cancelled && teams > 0, "a call on a team is cancelled, %d teams", teams.load());

    borrow_team(nullptr, nullptr);
    teams = 0;
    CHECK(ran_by(30, microseconds(1000)).tasks == 30 && teams == 0, "given back");
}

// ---- programs -----------------------------------------------------------------------------------------------------

constexpr int features = 5, hidden = 16;

// A program of two autoregressive transforms with a permutation between them: coordinate c has level c + 1.
template <class T>
Program<T> small_program() {
    MaskedOptions options;
    options.features = features;
    for (int c = 0; c < features; ++c) {
        options.reads.push_back(c);
        options.active.push_back(c);
    }
    MapSettings affine;
    affine.name = "affine";
    affine.variant = "soft_clamp";
    const auto map = std::make_shared<TransformMap>(affine);
    options.outputs = map->n_params(features);
    options.activation = "tanh";
    std::vector<int> levels, degrees;
    for (int c = 0; c < features; ++c) levels.push_back(c + 1);
    for (int u = 0; u < hidden; ++u) degrees.push_back(u % features);
    const auto masked =
        std::make_shared<MaskedConditioner>(options, levels, std::vector<std::vector<int>>{degrees, degrees});
    const NetworkSpec transform{false, true, map, masked};
    PermutationSpec reversed;
    for (int c = 0; c < features; ++c) reversed.order.push_back(features - 1 - c);
    return Program<T>(features, 0, Base::normal, {transform, reversed, transform});
}

template <class T>
std::vector<T> some_numbers(size_t n, uint32_t seed) {
    std::vector<T> out(n);
    for (T& x : out) {
        seed = seed * 1664525u + 1013904223u;
        x = T(int32_t(seed)) * T(0x1p-31);
    }
    return out;
}

// Values, log-determinants and log-densities of one call, side by side, with the given weights or the present ones.
template <class T>
std::vector<T> run(const Program<T>& program, const std::vector<T>& x, bool inverse,
                   const typename Program<T>::Weights* weights = nullptr) {
    const int64_t rows = int64_t(x.size()) / features;
    std::vector<T> out(size_t(rows) * (features + 2));
    const ArrayView input{reinterpret_cast<const char*>(x.data()), int64_t(features * sizeof(T)), int64_t(sizeof(T)),
                          sizeof(T) == 8, nullptr};
    Request<T> request;
    request.inverse = inverse;
    request.rows = rows;
    request.input = &input;
    request.value = out.data();
    request.log_det = request.value + rows * features;
    request.log_prob = request.log_det + rows;
    weights ? program.run(request, *weights) : program.run(request);
    return out;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
void test_same_bits_for_any_number_of_threads() {
    Program<T> program = small_program<T>();
    program.set_weights(some_numbers<T>(program.n_weights(), 1).data());
    for (const int rows : {1, 7, 8, 300, 1001}) {
        const std::vector<T> x = some_numbers<T>(size_t(rows) * features, 9);
        for (const bool inverse : {false, true}) {
            set_num_threads(1);
            const std::vector<T> want = run(program, x, inverse);
            bool finite = true;
            for (T v : want) finite = finite && std::isfinite(v);
            CHECK(finite, "results of %d rows", rows);
            for (const int threads : {2, 3, 5}) {
                set_num_threads(threads);
                CHECK(same_bits(run(program, x, inverse), want), "%d rows, inverse %d, %d threads", rows, inverse,
                      threads);
            }
        }
    }
}

// Gradients of the mean log-density by inputs and by weights, side by side.
template <class T>
std::vector<T> gradient(const Program<T>& program, const std::vector<T>& x) {
    const int64_t rows = int64_t(x.size()) / features;
    std::vector<T> out(x.size() + program.n_weights());
    const ArrayView input{reinterpret_cast<const char*>(x.data()), int64_t(features * sizeof(T)), int64_t(sizeof(T)),
                          sizeof(T) == 8, nullptr};
    Request<T> request;
    request.inverse = true;
    request.rows = rows;
    request.input = &input;
    GradientRequest<T> wanted;
    wanted.from.of_log_prob = true;
    wanted.from.row_scale = 1.0 / double(rows);
    wanted.input = out.data();
    wanted.weights = out.data() + x.size();
    program.run_gradient(request, wanted, program.snapshot());
    return out;
}

// Tests gradients with several groups of rows, for any number of threads, and by several callers at once, of which only
// one has the pool.
template <class T>
void test_gradients_have_the_same_bits() {
    Program<T> program = small_program<T>();
    program.set_weights(some_numbers<T>(program.n_weights(), 1).data());
    for (const int rows : {1, 100, 1001}) {
        const std::vector<T> x = some_numbers<T>(size_t(rows) * features, 9);
        set_num_threads(1);
        const std::vector<T> want = gradient(program, x);
        for (const int threads : {2, 3, 5}) {
            set_num_threads(threads);
            for (int repeat = 0; repeat < 10; ++repeat)
                CHECK(same_bits(gradient(program, x), want), "gradient of %d rows, %d threads", rows, threads);
        }
        std::atomic<int> wrong{0};
        std::vector<std::thread> callers;
        for (int i = 0; i < 3; ++i)
            callers.emplace_back([&] {
                for (int repeat = 0; repeat < 10; ++repeat) wrong += !same_bits(gradient(program, x), want);
            });
        for (std::thread& caller : callers) caller.join();
        CHECK(wrong == 0, "gradient of %d rows by callers at once: %d wrong", rows, wrong.load());
    }
}

// Tests that the steps of an optimiser do not change a reader's snapshot.
template <class T>
void test_an_update_leaves_snapshots_alone() {
    set_num_threads(2);
    const std::shared_ptr<Program<T>> program(new Program<T>(small_program<T>()));  // a program cannot be moved
    program->set_weights(some_numbers<T>(program->n_weights(), 1).data());
    const std::vector<T> x = some_numbers<T>(100 * features, 9), old_one = run(*program, x, true);
    const typename Program<T>::Weights held = program->snapshot();
    Adam<T> adam(program, AdamOptions{});
    Muon<T> muon(program, 0.95, AdamOptions{});
    for (int step = 0; step < 3; ++step)
        for (Adam<T>* const one : {&adam, static_cast<Adam<T>*>(&muon)})
            one->step(some_numbers<T>(program->n_weights(), 5).data(), 0.1);
    CHECK(same_bits(run(*program, x, true, &held), old_one), "the old weights are what they were");
    CHECK(!same_bits(run(*program, x, true), old_one), "and the program has new ones");
}

// Four threads read while one thread writes: each result must be computed entirely from the old or entirely from the
// new weights.
template <class T>
void test_readers_and_a_writer() {
    set_num_threads(2);
    Program<T> program = small_program<T>();
    const std::vector<T> versions[2] = {some_numbers<T>(program.n_weights(), 1),
                                        some_numbers<T>(program.n_weights(), 2)};
    // The weights as the program returns them, where entries that are no weights are zero.
    std::vector<T> stored[2];
    std::vector<T> x[2] = {some_numbers<T>(3 * features, 5), some_numbers<T>(300 * features, 6)};
    std::vector<T> want[2][2][2];  // indices: version, size, direction
    for (int version = 0; version < 2; ++version) {
        program.set_weights(versions[version].data());
        stored[version].resize(program.n_weights());
        program.weights(stored[version].data());
        for (int size = 0; size < 2; ++size)
            for (const bool inverse : {false, true}) want[version][size][inverse] = run(program, x[size], inverse);
    }
    for (int size = 0; size < 2; ++size)
        CHECK(!same_bits(want[0][size][0], want[1][size][0]), "the two versions of the weights give different results");

    std::atomic<bool> stop{false};
    std::atomic<int> torn{0}, seen[2] = {0, 0};
    std::vector<std::thread> readers;
    for (int reader = 0; reader < 4; ++reader)
        readers.emplace_back([&, reader] {
            std::vector<T> weights(program.n_weights());
            for (int k = reader; !stop; ++k) {
                const int size = k & 1;
                const bool inverse = k & 2;
                const std::vector<T> got = run(program, x[size], inverse);
                int version = 0;
                while (version < 2 && !same_bits(got, want[version][size][inverse])) ++version;
                version < 2 ? ++seen[version] : ++torn;
                if (k % 8 == 0) {
                    program.weights(weights.data());
                    if (!same_bits(weights, stored[0]) && !same_bits(weights, stored[1])) ++torn;
                }
            }
        });
    int writes = 0;
    while (torn == 0 && (writes < 300 || ((seen[0] < 20 || seen[1] < 20) && writes < 100000))) {
        program.set_weights(versions[writes++ & 1].data());
        std::this_thread::yield();
    }
    stop = true;
    for (std::thread& r : readers) r.join();
    CHECK(torn == 0, "%d results belong to neither version, %d and %d to one", torn.load(), seen[0].load(),
          seen[1].load());
    CHECK(seen[0] > 0 && seen[1] > 0, "readers saw %d results of one version and %d of the other in %d writes",
          seen[0].load(), seen[1].load(), writes);
}

#ifndef _WIN32
// ---- fork ---------------------------------------------------------------------------------------------------------

constexpr unsigned patience = 15;  // number of seconds after which a child counts as stuck

// Runs `body` in a forked child, and returns how the child ended; `body` returns true for success.
template <class F>
const char* in_a_child(F&& body) {
    const pid_t child = fork();
    if (child == 0) {
        alarm(patience);
        _exit(body() ? 0 : 1);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) return "could not be made";
    if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGALRM ? "is stuck" : "crashed";
    return WEXITSTATUS(status) == 0 ? nullptr : "got another result";
}

void test_a_forked_child_computes() {
    set_num_threads(4);
    Program<float> program = small_program<float>();
    program.set_weights(some_numbers<float>(program.n_weights(), 1).data());
    const std::vector<float> x = some_numbers<float>(600 * features, 3);
    const std::vector<float> want = run(program, x, false);  // the workers exist after this call
    for (int round = 0; round < 3; ++round) {
        const char* problem = in_a_child([&] {
            if (!visits_once(1000) || !same_bits(run(program, x, false), want)) return false;
            return in_a_child([&] { return visits_once(500) && same_bits(run(program, x, false), want); }) == nullptr;
        });
        CHECK(problem == nullptr, "a forked child %s", problem ? problem : "");
        CHECK(visits_once(1000) && same_bits(run(program, x, false), want), "the parent goes on after a fork");
    }
}

// Tests that a child uses no borrowed team: the team's threads do not exist in the child, which would wait forever.
void test_a_forked_child_has_no_team() {
    set_num_threads(3);
    size_of_team = 3;
    borrow_team(run_team, [] { return size_of_team.load(); });
    teams = 0;
    const char* problem = in_a_child([] { return visits_once(1000) && teams == 0; });
    CHECK(problem == nullptr, "a forked child %s", problem ? problem : "");
    CHECK(visits_once(1000), "the parent goes on");
    borrow_team(nullptr, nullptr);
}

// Tests a fork during calls of other threads, which have taken their weights before the fork.
[[maybe_unused]] void test_a_fork_during_other_threads_calls() {
    set_num_threads(3);
    Program<float> program = small_program<float>();
    const std::vector<float> old_numbers = some_numbers<float>(program.n_weights(), 1);
    const std::vector<float> new_numbers = some_numbers<float>(program.n_weights(), 2);
    const std::vector<float> one = some_numbers<float>(features, 3), many = some_numbers<float>(600 * features, 4);
    program.set_weights(new_numbers.data());
    const std::vector<float> new_one = run(program, one, false), new_many = run(program, many, false);
    program.set_weights(old_numbers.data());
    const std::vector<float> old_one = run(program, one, false), old_many = run(program, many, false);
    const Program<float>::Weights weights = program.snapshot();
    std::atomic<bool> stop{false};
    std::vector<std::thread> others;
    for (const std::vector<float>* x : {&one, &many, &many})
        others.emplace_back([&, x] {
            while (!stop) run(program, *x, false, &weights);
        });
    const char* problem = nullptr;
    int forks = 0;
    while (forks < 300 && !problem) {
        ++forks;
        problem = in_a_child([&] {
            if (!same_bits(run(program, one, false), old_one) || !same_bits(run(program, many, false), old_many))
                return false;
            program.set_weights(new_numbers.data());
            return same_bits(run(program, one, false), new_one) && same_bits(run(program, many, false), new_many) &&
                   visits_once(100);
        });
    }
    stop = true;
    for (std::thread& t : others) t.join();
    CHECK(problem == nullptr, "child %d of a fork during other threads' calls %s", forks, problem ? problem : "");
    CHECK(same_bits(run(program, many, false), old_many), "the parent goes on after %d forks", forks);
}
#endif

}  // namespace

int main(int argc, char** argv) {
    const std::string part = argc > 1 ? argv[1] : "";
    if (!part.empty() && part != "threads" && part != "fork") {
        std::fprintf(stderr, "usage: test_threads [threads | fork]\n");
        return 2;
    }
    if (part != "fork") {
        test_every_index_once();
        test_results_are_visible();
        test_nested_calls_are_inline();
        test_concurrent_callers();
        test_changing_thread_counts();
        test_late_workers_find_nothing();
        test_tasks_in_order();
        test_cancelled_calls();
        test_a_limit_of_one_thread();
        test_long_calls_run_on_a_borrowed_team();
        test_same_bits_for_any_number_of_threads<float>();
        test_same_bits_for_any_number_of_threads<double>();
        test_gradients_have_the_same_bits<float>();
        test_gradients_have_the_same_bits<double>();
        test_an_update_leaves_snapshots_alone<float>();
        test_an_update_leaves_snapshots_alone<double>();
        test_readers_and_a_writer<float>();
        test_readers_and_a_writer<double>();
    }
#ifndef _WIN32
    if (part != "threads") {
        test_a_forked_child_computes();
        test_a_forked_child_has_no_team();
#ifdef __SANITIZE_ADDRESS__
        std::printf(
            "skipped: fork during other threads' calls, as AddressSanitizer's allocator may then stay locked\n");
#else
        test_a_fork_during_other_threads_calls();
#endif
    }
#endif
    return finish();
}
