// The backward pass through a program: tiles of rows and sums over them, ordered without barriers.
//
// Rows are computed in groups, and training needs only the memory of one group's tapes. A group is a sequence of
// phases:
//   forth through the whole chain and back through the last network   tasks: tiles
//   back through network t, beside the weights of network t + 1       tasks: tiles, blocks of weights
//   the weights of network 0                                          tasks: blocks of weights
// A task starts once all tasks of earlier phases are done, which a counter records. Each gradient entry belongs to one
// task of a phase. The task sums sum_rows rows in registers, adds these sums in the order of the rows, and after every
// fold_rows rows adds the total to a float64 sum, so that no bit depends on threads, tiles or groups.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "compiled.hpp"
#include "isa.hpp"
#include "program.hpp"
#include "threads.hpp"

namespace headrace {
namespace {

// The size of a block of the weights' gradient, large enough to be worth a task and small enough that its inputs stay
// in cache.
constexpr int task_units = 128, task_inputs = 48;

// Limits for the tapes of one thread's tiles, which should fit in the L2 cache.
constexpr int64_t group_cache_bytes = 1 << 20, most_tiles_of_thread = 4;

template <class T>
std::vector<WeightTask> tasks_of(const Step<T>& step, int network) {
    std::vector<WeightTask> tasks;
    for (int i = 0; i < step.n_summed; ++i) {
        const Summed& s = step.summed[i];
        for (int u = 0; u < s.units; u += task_units) {
            const int end = std::min(s.units, u + task_units);
            for (int k = 0; k == 0 || k < inputs_before(s, end); k += task_inputs)
                tasks.push_back({network, i, u, end, k, k + task_inputs});
        }
    }
    return tasks;
}

// The tasks of a phase of a group of rows: its tiles, then blocks of the weights of the following network.
struct GroupPhase {
    int64_t first_task, tiles;
    int network;  // the network whose backward pass the tiles run; -1: none
};

// Tapes of a group, which the thread keeps from call to call. A call removes the kept tapes from the thread while it
// uses the tapes, because between two tasks a signal's handler may start another call.
template <class T>
class Tapes {
  public:
    explicit Tapes(size_t n) : memory_(std::exchange(kept(), {})) {
        if (memory_.size < n) {
            memory_ = {};
            memory_ = {aligned_zeros<T>(n), n};
        }
    }
    ~Tapes() { kept() = std::move(memory_); }
    Tapes(const Tapes&) = delete;
    Tapes& operator=(const Tapes&) = delete;
    T* get() { return memory_.numbers.get(); }

  private:
    struct Memory {
        Aligned<T> numbers;
        size_t size = 0;
    };
    static Memory& kept() {
        thread_local Memory memory;
        return memory;
    }
    Memory memory_;
};

using Tasks = std::vector<std::vector<WeightTask>>;  // tasks of each network

std::vector<GroupPhase> phases_of(const Tasks& tasks, int64_t tiles, int64_t& count) {
    std::vector<GroupPhase> phases;
    count = 0;
    for (int n = int(tasks.size()) - 1; n >= -1; --n) {
        phases.push_back({count, n < 0 ? 0 : tiles, n});
        count += phases.back().tiles + (n + 1 < int(tasks.size()) ? int64_t(tasks[size_t(n) + 1].size()) : 0);
    }
    return phases;
}

// The number of rows of a tile, a divisor of sum_rows: at least `least`, and otherwise so small that every thread has a
// tile.
int tile_height(int64_t rows, int width, int least, int64_t threads) {
    int height = sum_rows / 2;
    while (height > least && height % 2 == 0 && height / 2 % width == 0 && (rows + height - 1) / height < threads)
        height /= 2;
    return height;
}

// Runs every tile forward and backward on a tape of its thread. Without gradients of weights, tiles are independent.
template <class T>
void run_apart(const KernelsOf<T>& kernels, const Chain<T>& chain, const Call<T>& call, const Back<T>& back,
               int64_t all_rows, int64_t tape) {
    std::atomic<bool> out_of_memory{false};
    thread_scratch<T>(size_t(tape));  // allocates here, where an error can be reported
    parallel_for((all_rows + back.height - 1) / back.height, [&](int64_t tile) {
        const int64_t row = tile * back.height;
        const int rows = int(std::min<int64_t>(back.height, all_rows - row));
        T* scratch;
        try {
            scratch = thread_scratch<T>(size_t(tape));
        } catch (const std::bad_alloc&) {
            out_of_memory = true;
            return;
        }
        const Bf16Session session(call.bf16);
        kernels.record_tile(chain, call, back, row, rows, scratch);
        for (int network = std::max(0, chain.n_networks - 1); network >= 0; --network)
            kernels.backward_tile(chain, call, back, row, rows, network, scratch);
    });
    if (out_of_memory) throw std::bad_alloc();
}

}  // namespace

template <class T>
void Program<T>::run_gradient(const Request<T>& request, const GradientRequest<T>& gradient,
                              const Weights& weights) const {
    const KernelsOf<T>& kernels = kernels_of<T>(*active_isa().table);
    const Compiled<T>& compiled = compiled_for(request);
    const Chain<T>& chain = compiled.chain;
    if (gradient.weights && (request.rows == 0 || chain.n_networks == 0 || !request.with_base))
        std::fill_n(gradient.weights, n_weights(), T(0));  // zeros, because the loops below may skip the base's weights
    if (request.rows == 0) return;
    Call<T> call = call_with(compiled, request, weights);
    Back<T> back = gradient.back();
    if constexpr (std::is_same_v<T, float>)
        if (call.bf16) {
            back.bf16 = call.bf16;
            call.rounded_back = weights->rounded(true, [&] { return rounded(weights->numbers(), true); });
        }

    const int64_t threads = threads_for(request.rows);
    // In bf16, sums over rows consist of whole steps of rows.
    const int least = std::max(2 * kernels.width, back.bf16 ? back.bf16->layout.step : 0);
    const int height = tile_height(request.rows, kernels.width, least, threads);
    back.height = height;
    const int64_t tape = (chain.tape.lines * height + 15) / 16 * 16;
    if (!gradient.weights || chain.n_networks == 0) return run_apart(kernels, chain, call, back, request.rows, tape);

    // A group has tiles for every thread, several where their tapes are small, because threads wait at the end of each
    // phase.
    const int64_t most = std::clamp<int64_t>(group_cache_bytes / (tape * int64_t(sizeof(T))), 1, most_tiles_of_thread);
    const int64_t group = std::max<int64_t>(1, (height * most * threads + sum_rows - 1) / sum_rows) * sum_rows;
    const int64_t tapes = std::min<int64_t>(group / height, (request.rows + height - 1) / height);
    Tapes<T> memory(size_t(tape * tapes));
    T* const scratch = memory.get();

    Tasks tasks;
    for (int n = 0; n < chain.n_networks; ++n) tasks.push_back(tasks_of(chain.steps[chain.networks[n]], n));
    // All groups except the last have the same size.
    const int64_t groups = (request.rows + group - 1) / group, last_rows = request.rows - (groups - 1) * group;
    int64_t group_tasks, last_tasks;
    const std::vector<GroupPhase> full = phases_of(tasks, group / height, group_tasks);
    const std::vector<GroupPhase> last = phases_of(tasks, (last_rows + height - 1) / height, last_tasks);

    std::vector<double> finished;
    if (sizeof(T) < sizeof(double) && request.rows > fold_rows) {
        finished.resize(n_weights());
        back.finished = finished.data();
        std::fill_n(gradient.weights, n_weights(), T(0));  // zeros, because code below also adds sums without a task
    }

    std::atomic<bool> finite{true};
    std::atomic<uint32_t> done{0};
    parallel_for((groups - 1) * group_tasks + last_tasks, [&](int64_t i) {
        const int64_t g = std::min(i / group_tasks, groups - 1), first = g * group_tasks;
        const std::vector<GroupPhase>& phases = g + 1 < groups ? full : last;
        const auto after = std::find_if(phases.begin() + 1, phases.end(),
                                        [&](const GroupPhase& p) { return first + p.first_task > i; });
        const GroupPhase& phase = *(after - 1);
        wait_for(done, uint32_t(first + phase.first_task));
        const int64_t begin = g * group, end = std::min(request.rows, begin + group);
        const int64_t tile = i - first - phase.first_task;
        const Bf16Session session(back.bf16);
        if (tile < phase.tiles) {
            const int64_t row = begin + tile * height;
            const int rows = int(std::min<int64_t>(height, end - row));
            if (phase.network + 1 == chain.n_networks &&
                !kernels.record_tile(chain, call, back, row, rows, scratch + tile * tape))
                finite = false;
            kernels.backward_tile(chain, call, back, row, rows, phase.network, scratch + tile * tape);
        } else {
            const TapeGroup<T> tiles{scratch, tape, end - begin, begin};
            kernels.sum_weights(chain, back, tasks[phase.network + 1][size_t(tile - phase.tiles)], tiles);
        }
        done.fetch_add(1, std::memory_order_release);
        done.notify_all();
    });

    for (size_t i = 0; i < finished.size(); ++i) gradient.weights[i] = T(finished[i] + double(gradient.weights[i]));
    if (!finite) {
        std::fill_n(gradient.weights, n_weights(), std::numeric_limits<T>::quiet_NaN());
    } else {
        finish(chain, weights->numbers(), gradient.weights);
        structure_.clear_dead(gradient.weights);
    }
    structure_.clear_masked(gradient.weights);
}

template void Program<float>::run_gradient(const Request<float>&, const GradientRequest<float>&, const Weights&) const;
template void Program<double>::run_gradient(const Request<double>&, const GradientRequest<double>&,
                                            const Weights&) const;

}  // namespace headrace
