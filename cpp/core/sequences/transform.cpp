#include "transform.hpp"

#include <algorithm>
#include <atomic>
#include <new>
#include <optional>
#include <stdexcept>
#include <utility>

#include "../isa.hpp"
#include "../request.hpp"
#include "../threads.hpp"
#include "calls.hpp"
#include "step_map.hpp"

namespace headrace {
namespace {

// The number of multiply-adds of a thread's task: few enough that a long call is interrupted soon. A task that is a
// chunk of a row has more multiply-adds, because each chunk needs a warm-up.
constexpr int64_t task_work = 500'000'000, chunk_work = 10'000'000'000;
// The least numbers of steps for which windows are used. A window computes whole vectors of positions, and moves all
// values before it, so that a few steps are computed one by one.
constexpr int64_t least_window_stream = 8, least_window_panel = 64;
// Lengths of chunks of a long row, in multiples of the warm-up and a window: the least length where rows are divided
// among threads, and a length up to which a chunk is not divided further for interrupts.
constexpr int64_t least_overheads = 4, usual_overheads = 32;
// The number of vectors of streams that each thread computes at a time, with a temporary state, in a call without a
// state.
constexpr int64_t vectors_at_once = 3;

// Computes the inputs of a network from values [steps][values].
template <class T>
void read_values(const CausalNetwork& n, const T* values, int64_t steps, T* to) {
    for (int64_t t = 0; t < steps; ++t)
        for (int c = 0; c < n.inputs; ++c) *to++ = causal_input(n, values + t * n.values, c);
}

// The scratch of a task: the scratch of its thread, unless an inner flow uses that scratch.
template <class T>
class TaskScratch {
  public:
    TaskScratch(bool is_own, int64_t n) {
        if (is_own) own_ = aligned_zeros<T>(size_t(n));
        numbers_ = is_own ? own_.get() : thread_scratch<T>(size_t(n));
    }
    T* numbers() const { return numbers_; }

  private:
    Aligned<T> own_;
    T* numbers_;
};

// The first exception of tasks, which must not throw.
class Failure {
  public:
    template <class F>
    void guard(F&& work) noexcept {
        try {
            work();
        } catch (...) {
            if (!failed_.exchange(true)) error_ = std::current_exception();
        }
    }
    void rethrow() const {
        if (error_) std::rethrow_exception(error_);
    }

  private:
    std::atomic<bool> failed_{false};
    std::exception_ptr error_;
};

}  // namespace

// A call that is running.
template <class T>
class CausalTransform<T>::Work {
  public:
    Work(const CausalTransform& of, const SequenceCall<T>& call, bool in_parallel)
        : of_(of),
          network_(of.network_->network()),
          call_(call),
          kernels_(kernels_of<T>(*active_isa().table)),
          sequences_(sequence_kernels_of<T>(*active_isa().sequences)),
          to_data_(of.reads_data_ != in_parallel) {
        if (of.map_) map_.emplace(kernels_, *of.map_, of.has_level_, network_.values);
        fold();
    }

    void windows();
    void steps(CausalStreams<T>& streams, bool in_parallel);

  private:
    int64_t inputs() const { return network_.inputs; }
    int64_t values() const { return network_.values; }
    bool has_map() const { return of_.map_ || of_.inner_; }

    void fold();
    CausalSide<T> side_of(int64_t row) const;
    void chunk(int64_t row, int64_t begin, int64_t end, int most);
    void panel(CausalStreams<T>& streams, const typename CausalStreams<T>::Panel& panel, int64_t begin, int64_t end,
               bool in_parallel) const;
    void past_inputs(int64_t row, int64_t step, T* to) const;
    void keep_inputs(int64_t row) const;
    int64_t map_scratch(int64_t n) const;
    void map(const T* given, const T* raw, T* value, T* log_det, int64_t n, T* scratch) const;

    const CausalTransform& of_;
    const CausalNetwork& network_;
    const SequenceCall<T>& call_;
    const KernelsOf<T>& kernels_;
    const SequenceKernelsOf<T>& sequences_;
    bool to_data_;
    std::optional<StepMap<T>> map_;
    Aligned<T> folded_;  // gate biases for each row of the context: [layer][gate_units]
    size_t of_row_ = 0;
};

template <class T>
void CausalTransform<T>::Work::fold() {
    if (network_.context == 0) return;
    const int64_t rows = call_.one_context_row ? 1 : call_.rows;
    of_row_ = size_t(network_.n_layers) * size_t(gate_units(network_));
    folded_ = aligned_memory<T>(of_row_ * size_t(rows));
    parallel_for(rows, [&](int64_t row) {
        sequences_.fold(network_, call_.weights, call_.context + row * network_.context,
                        folded_.get() + size_t(row) * of_row_);
    });
}

template <class T>
CausalSide<T> CausalTransform<T>::Work::side_of(int64_t row) const {
    CausalSide<T> side{};
    if (folded_) {
        side.stream_bias = call_.one_context_row ? 0 : int64_t(of_row_);
        side.gate_bias = folded_.get() + row * side.stream_bias;
    }
    if (network_.covariates > 0) {
        const int64_t numbers = call_.frames * network_.covariates;
        side.stream_frames = call_.one_covariate_row ? 0 : numbers;
        side.frames = call_.covariates + row * side.stream_frames;
        side.first_frame = call_.first_frame;
        side.n_frames = call_.frames;
    }
    return side;
}

template <class T>
int64_t CausalTransform<T>::Work::map_scratch(int64_t n) const {
    return map_ ? StepMap<T>::scratch(n, values(), map_->outputs(), of_.has_level_) : 0;
}

// Applies the map or the inner flow to n positions.
template <class T>
void CausalTransform<T>::Work::map(const T* given, const T* raw, T* value, T* log_det, int64_t n, T* scratch) const {
    if (map_) {
        map_->run(to_data_, given, raw, value, log_det, n, scratch);
        return;
    }
    constexpr int64_t size = sizeof(T);
    constexpr bool is_double = std::is_same_v<T, double>;
    const auto bytes = [](const T* numbers) { return reinterpret_cast<const char*>(numbers); };
    const ArrayView input{bytes(given), values() * size, size, is_double, nullptr};
    const ArrayView context{bytes(raw), network_.outputs * size, size, is_double, nullptr};
    Request<T> request;
    request.inverse = !to_data_;
    request.with_base = false;
    request.rows = n;
    request.input = &input;
    request.context = &context;
    request.tiles_only = true;  // so that results do not depend on the number of positions
    request.value = value;
    request.log_det = log_det;
    of_.inner_->run(request, call_.inner);
}

// Copies the inputs of the `kernel` positions before a step of the call.
template <class T>
void CausalTransform<T>::Work::past_inputs(int64_t row, int64_t step, T* to) const {
    const int64_t k = network_.kernel, known = std::min(step, k);
    const int64_t older = k - known;
    std::fill_n(to, older * inputs(), T(0));
    std::vector<T> given(size_t(known * values()));
    load_steps(call_.given, row, step - known, step, network_.values, given.data());
    read_values(network_, given.data(), known, to + older * inputs());
    if (!call_.state || older == 0) return;
    const auto& panel = call_.state->panel_of(row);
    const CausalState<T> state = call_.state->state(panel);
    const T* const numbers = stream_numbers(network_, state, row - panel.first);
    for (int64_t i = 0; i < older; ++i) {
        const int64_t slot = (state.position + step + i) % k;
        for (int64_t c = 0; c < inputs(); ++c)
            to[i * inputs() + c] = numbers[(network_.past + slot * inputs() + c) * state.lanes];
    }
}

// Copies the last inputs of a call that was computed by windows to the state.
template <class T>
void CausalTransform<T>::Work::keep_inputs(int64_t row) const {
    const auto& panel = call_.state->panel_of(row);
    const CausalState<T> state = call_.state->state(panel);
    T* const numbers = stream_numbers(network_, state, row - panel.first);
    std::vector<T> given(static_cast<size_t>(values()));
    for (int64_t step = std::max<int64_t>(0, call_.steps - network_.kernel); step < call_.steps; ++step) {
        load_steps(call_.given, row, step, step + 1, network_.values, given.data());
        const int64_t slot = (state.position + step) % network_.kernel;
        for (int64_t c = 0; c < inputs(); ++c)
            numbers[(network_.past + slot * inputs() + c) * state.lanes] = causal_input(network_, given.data(), int(c));
    }
}

// Computes steps [begin, end) of a row by windows, after a warm-up, so that layers have the values of the whole row.
template <class T>
void CausalTransform<T>::Work::chunk(int64_t row, int64_t begin, int64_t end, int most) {
    const int64_t k = network_.kernel, n_outputs = network_.outputs;
    const int64_t start = std::max<int64_t>(0, begin - (begin > 0 ? of_.network_->warm_up() : 0));
    const int64_t lines = causal_window_scratch(network_, most), v_size = round_up((k + most) * inputs(), 16);
    const int64_t raw_size = round_up(most * n_outputs, 16), value_size = round_up(most * values(), 16);
    const TaskScratch<T> memory(of_.inner_ != nullptr,
                                lines + v_size + raw_size + 2 * value_size + round_up(most, 16) + map_scratch(most));
    T* const scratch = memory.numbers();
    T *const v = scratch + lines, *const raw = v + v_size, *const value = raw + raw_size;
    T *const given = value + value_size, *const log_det = given + value_size;
    T* const of_map = log_det + round_up(most, 16);
    const CausalWindow<T> window{&network_, call_.weights, side_of(row), most, scratch};
    const int64_t position = call_.state ? call_.state->position() : 0;
    CausalState<T> state{};
    if (call_.state) {
        const auto& panel = call_.state->panel_of(row);
        state = call_.state->state(panel);
        state.numbers = stream_numbers(network_, state, row - panel.first);
    }
    sequences_.window_begin(window, call_.state && start == 0 ? &state : nullptr);
    past_inputs(row, start, v);
    for (int64_t t = start; t < end;) {
        const int64_t n = std::min<int64_t>(most, (t < begin ? begin : end) - t), at = row * call_.steps + t;
        load_steps(call_.given, row, t, t + n, network_.values, given);
        read_values(network_, given, n, v + k * inputs());
        const bool is_wanted = t >= begin;
        T* const outputs = call_.raw ? call_.raw + at * n_outputs : raw;
        sequences_.window(window, v, position + t, int(n), is_wanted ? outputs : nullptr);
        if (is_wanted && has_map() && (call_.value || call_.log_det))
            map(given, outputs, call_.value ? call_.value + at * values() : value,
                call_.log_det ? call_.log_det + at : log_det, n, of_map);
        std::memmove(v, v + n * inputs(), size_t(k * inputs()) * sizeof(T));
        t += n;
    }
    if (call_.state && end == call_.steps) {
        state.position += call_.steps;
        sequences_.window_end(window, state);
    }
}

template <class T>
void CausalTransform<T>::Work::windows() {
    const int64_t steps = call_.steps;
    const int most = int(std::min<int64_t>(causal_window_positions(network_), round_up(steps, most_block_lanes)));
    // A long row is divided into chunks if there are more threads than rows.
    const int64_t overhead = of_.network_->warm_up() + causal_window_positions(network_);
    const int64_t threads = num_threads(), wanted = (threads + call_.rows - 1) / call_.rows;
    const int64_t chunks = std::clamp<int64_t>(steps / (least_overheads * overhead), 1, std::max<int64_t>(1, wanted));
    const int64_t weights = of_.network_->n_weights();
    const int64_t longest = std::max(usual_overheads * overhead, chunk_work / weights);
    const int64_t all = std::max(chunks, (steps + longest - 1) / longest);
    Failure failure;
    parallel_for(call_.rows * all, [&](int64_t task) {
        const int64_t row = task / all, i = task % all;
        failure.guard([&] { chunk(row, steps * i / all, steps * (i + 1) / all, most); });
    });
    failure.rethrow();
    if (!call_.state) return;
    for (int64_t row = 0; row < call_.rows; ++row) keep_inputs(row);
    call_.state->go_on(steps);
}

// Computes steps [begin, end) of the call for a panel, one step after another.
template <class T>
void CausalTransform<T>::Work::panel(CausalStreams<T>& streams, const typename CausalStreams<T>::Panel& panel,
                                     int64_t begin, int64_t end, bool in_parallel) const {
    const int64_t n = panel.streams, lanes = panel.lanes, n_outputs = network_.outputs;
    const int64_t lines = causal_steps_scratch(network_, panel.lanes) * (lanes == 1 ? n : 1);
    const int64_t raw_size = round_up(n * n_outputs, 16);
    const int64_t v_size = round_up(n * values(), 16);
    const int64_t bias_size = folded_ && lanes > 1 ? int64_t(of_row_) * lanes : 0;
    const TaskScratch<T> memory(of_.inner_ != nullptr,
                                lines + raw_size + 2 * v_size + round_up(n, 16) + bias_size + map_scratch(n));
    T* const scratch = memory.numbers();
    T *const raw = scratch + lines, *const given = raw + raw_size, *const value = given + v_size;
    T *const log_det = value + v_size, *const bias = log_det + round_up(n, 16), *const of_map = bias + bias_size;
    CausalSteps<T> s{};
    s.network = &network_;
    s.weights = call_.weights;
    s.pairs = call_.pairs;
    s.side = side_of(panel.first);
    if (bias_size > 0) {
        for (int64_t lane = 0; lane < lanes; ++lane) {
            const T* const from = side_of(panel.first + std::min(lane, n - 1)).gate_bias;
            for (size_t i = 0; i < of_row_; ++i) bias[int64_t(i) * lanes + lane] = from[i];
        }
        s.side.gate_bias = bias;
    }
    s.state = streams.state(panel);
    s.state.position += begin;
    s.streams = int(n);
    s.steps = end - begin;
    std::vector<int> slots(size_t(network_.n_layers));
    for (int l = 0; l < network_.n_layers; ++l)
        slots[size_t(l)] = int(s.state.position % ring_slots(network_, network_.layers[l]));
    s.slots = slots.data();
    s.scratch = scratch;
    for (int64_t t = begin; t < end; ++t) {
        for (int64_t i = 0; i < n; ++i)
            load_steps(call_.given, panel.first + i, t, t + 1, network_.values, given + i * values());
        sequences_.step(s, raw);
        if (has_map()) map(given, raw, value, log_det, n, of_map);
        causal_push(s, in_parallel ? given : value);
        for (int64_t i = 0; i < n; ++i) {
            const int64_t at = (panel.first + i) * call_.steps + t;
            if (call_.raw) std::copy_n(raw + i * n_outputs, n_outputs, call_.raw + at * n_outputs);
            if (call_.value) std::copy_n(value + i * values(), values(), call_.value + at * values());
            if (call_.log_det) call_.log_det[at] = log_det[i];
        }
    }
}

template <class T>
void CausalTransform<T>::Work::steps(CausalStreams<T>& streams, bool in_parallel) {
    const auto& panels = streams.panels();
    int64_t lanes = 1;
    for (const auto& panel : panels) lanes = std::max<int64_t>(lanes, panel.lanes);
    const int64_t work = int64_t(of_.network_->n_weights()) * lanes;
    const int64_t at_once = std::max<int64_t>(causal_ahead, task_work / work / causal_ahead * causal_ahead);
    Failure failure;
    for (int64_t begin = 0; begin < call_.steps; begin += at_once) {
        const int64_t end = std::min(call_.steps, begin + at_once);
        parallel_for(int64_t(panels.size()), [&](int64_t p) {
            failure.guard([&] { panel(streams, panels[size_t(p)], begin, end, in_parallel); });
        });
        failure.rethrow();
        // parallel_for checks for cancellation only between tasks.
        Cancellable* const cancellable = Cancellable::of_this_thread();
        if (cancellable && end < call_.steps && cancellable->should_stop(Cancellable::Clock::now())) throw Cancelled();
    }
    streams.go_on(call_.steps);
}

template <class T>
CausalTransform<T>::CausalTransform(std::shared_ptr<const CausalConvolution> network,
                                    std::shared_ptr<const TransformMap> map, std::shared_ptr<const Program<T>> inner,
                                    bool reads_data, bool has_level)
    : network_(std::move(network)),
      map_(std::move(map)),
      inner_(std::move(inner)),
      reads_data_(reads_data),
      has_level_(has_level) {
    const CausalOptions& o = network_->options();
    active_isa();  // refuses a bad HEADRACE_ISA here, not in a call
    if (map_ && inner_) throw std::invalid_argument("map, inner: expected one of them, or neither");
    if (map_ && map_->is_vector()) throw std::invalid_argument("map: expected one of single coordinates");
    if (has_level_ && !map_) throw std::invalid_argument("has_level: expected a map beside it");
    const int of_value = map_ ? int(map_->n_params(o.inputs)) + (has_level_ ? 1 : 0) : 0;
    if (map_ && of_value * o.inputs != o.outputs)
        throw std::invalid_argument("outputs: expected " + std::to_string(of_value * o.inputs) +
                                    ", the parameters of the map for each value, got " + std::to_string(o.outputs));
    if (inner_ && (inner_->features() != o.inputs || inner_->context() != o.outputs))
        throw std::invalid_argument(
            "inner: expected a program whose features are the inputs and whose context is the "
            "outputs of the network");
}

template <class T>
CausalStreams<T> CausalTransform<T>::streams(int64_t rows) const {
    return CausalStreams<T>(network_->network(), rows, kernels_of<T>(*active_isa().table).width);
}

template <class T>
void CausalTransform<T>::parallel(const SequenceCall<T>& call) const {
    if (call.rows == 0 || call.steps == 0) return;
    const bool has_panels = call.rows >= least_panel_streams;
    if (call.state && call.steps < (has_panels ? least_window_panel : least_window_stream)) {
        Work(*this, call, true).steps(*call.state, true);
    } else if (!call.state && has_panels && call.steps < kernels_of<T>(*active_isa().table).width) {
        from_first_step(call, true);
    } else {
        Work(*this, call, true).windows();
    }
}

template <class T>
void CausalTransform<T>::sequential(const SequenceCall<T>& call) const {
    if (!map_ && !inner_) throw std::invalid_argument("sequential: expected a transform with a map or an inner flow");
    if (call.rows == 0 || call.steps == 0) return;
    if (call.state) {
        Work(*this, call, false).steps(*call.state, false);
    } else {
        from_first_step(call, false);
    }
}

// Computes a call without a state: some rows at a time, with states for the duration of the call.
template <class T>
void CausalTransform<T>::from_first_step(const SequenceCall<T>& call, bool in_parallel) const {
    const int64_t at_once = vectors_at_once * kernels_of<T>(*active_isa().table).width * num_threads();
    for (int64_t first = 0; first < call.rows; first += at_once) {
        const SequenceCall<T> some = rows_of(call, first, std::min(at_once, call.rows - first));
        CausalStreams<T> begun = streams(some.rows);
        Work(*this, some, in_parallel).steps(begun, in_parallel);
    }
}

// The part of a call without a state that belongs to some rows.
template <class T>
SequenceCall<T> CausalTransform<T>::rows_of(const SequenceCall<T>& call, int64_t first, int64_t rows) const {
    const CausalNetwork& n = network_->network();
    SequenceCall<T> some = call;
    some.rows = rows;
    some.given.data += first * call.given.row_stride;
    if (call.context && !call.one_context_row) some.context += first * n.context;
    if (call.covariates && !call.one_covariate_row) some.covariates += first * call.frames * n.covariates;
    if (call.value) some.value += first * call.steps * n.values;
    if (call.log_det) some.log_det += first * call.steps;
    if (call.raw) some.raw += first * call.steps * n.outputs;
    return some;
}

template class CausalTransform<float>;
template class CausalTransform<double>;

}  // namespace headrace
