// The backward pass of sequences. A task is one row, or a few rows that are swept together. Gradients by weights are
// sums over positions; they are added row by row in groups of rows, which depend only on the number of rows and on the
// network, and the sums of groups are added in order in float64.
#include "gradient.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <vector>

#include "../isa.hpp"
#include "../threads.hpp"
#include "linearised.hpp"
#include "plan.hpp"
#include "step_map.hpp"

namespace headrace {
namespace {

constexpr int64_t tape_bytes = 32 << 20;  // memory of a segment's tape for each thread, in bytes
constexpr int64_t sums_bytes = 32 << 20;  // limit, in bytes, for the sums of more than least_groups groups
constexpr int64_t least_groups = 8, most_groups = 64;

double number_at(const SequenceView& a, int64_t row, int64_t step, int64_t column) {
    const char* const at = a.data + row * a.row_stride + step * a.step_stride + column * a.column_stride;
    double wide;
    float narrow;
    if (a.is_double) {
        std::memcpy(&wide, at, sizeof wide);
        return wide;
    }
    std::memcpy(&narrow, at, sizeof narrow);
    return narrow;
}

// Offsets in the scratch of one row, in values.
struct RowScratch {
    int64_t tape, window, given, raw, raw_gradient, value, value_gradient, log_det, log_det_gradient, given_gradient;
    int64_t folded, gate_gradient, slopes, sweep, read_gradient, map, numbers;
};

}  // namespace

template <class T>
class SequenceBack {
  public:
    SequenceBack(const CausalTransform<T>& transform, const SequenceCall<T>& call, const SequenceGradient<T>& gradient)
        : transform_(transform),
          call_(call),
          gradient_(gradient),
          net_(transform.network().network()),
          kernels_(kernels_of<T>(*active_isa().table)),
          sequences_(sequence_kernels_of<T>(*active_isa().sequences)),
          together_(gradient.is_sequential ? std::clamp<int64_t>(call.rows / num_threads(), 1, sweep_rows) : 1),
          plan_(net_, call.steps, together_ > 2 ? tape_bytes * 2 / together_ : tape_bytes, sizeof(T)),
          sweep_(net_) {
        int64_t& at = scratch_.numbers;
        const auto take = [&](int64_t numbers) {
            const int64_t begin = at;
            at += round_up(numbers, 16);
            return begin;
        };
        const int64_t n = plan_.tape().positions;
        scratch_.tape = take(plan_.tape().numbers);
        scratch_.window = take(back_scratch(net_).numbers);
        scratch_.raw = take(n * net_.outputs + line_pad);
        scratch_.raw_gradient = take(n * net_.outputs + line_pad);
        for (int64_t* part : {&scratch_.given, &scratch_.value, &scratch_.value_gradient, &scratch_.given_gradient})
            *part = take(n * net_.values);
        if (net_.is_companded) scratch_.read_gradient = take(n * net_.inputs);
        if (transform.map())
            scratch_.map = take(StepMap<T>::scratch(n, net_.values, of_input(), transform.has_level()));
        scratch_.log_det = take(n);
        scratch_.log_det_gradient = take(n);
        scratch_.folded = take(int64_t(net_.n_layers) * gate_units(net_));
        scratch_.gate_gradient = take(int64_t(net_.n_layers) * gate_units(net_));
        if (!gradient.is_sequential) return;
        scratch_.slopes = take(n * net_.values * of_input());
        scratch_.sweep = take(sweep_.shape().numbers);
        turned_ = aligned_zeros<T>(size_t(sweep_.shape().turned));
        sweep_.turn(call.weights, turned_.get());
    }

    void run();

  private:
    struct Row {
        int64_t row;
        T* scratch;
        T* borders;  // values of layers at the borders of segments
        T* sums;     // sums of the row's group, or null
        int* slots;  // slots of the sweep
    };

    void run_groups(int64_t begin, int64_t end, int64_t groups, T* sums) const;
    void run_rows(const std::vector<Row>& rows) const;
    void begin_row(const Row& r) const;
    void record(const Row& r, int64_t segment) const;
    void finish_record(const Row& r, const CausalSegment<T>& s) const;
    void back(const Row& r, int64_t segment) const;
    void raw_gradients(const Row& r, const CausalSegment<T>& s) const;
    void linearise(const Row& r, const CausalSegment<T>& s) const;
    LinearisedMap<T> linearised(const Row& r) const;
    void sweep(const std::vector<Row>& rows, int64_t segment) const;
    void finish_sweep(const Row& r, const CausalSegment<T>& s) const;
    void begin_sweep(const Row& r) const;
    void finish_row(const Row& r) const;
    CausalSegment<T> segment_of(const Row& r, int64_t segment) const;
    void load_given(const Row& r, const CausalSegment<T>& s) const;
    void load_past(const Row& r, const CausalSegment<T>& s, const T* border) const;
    void store_past(const CausalSegment<T>& s, T* border) const;
    void clear_future(const CausalSegment<T>& s) const;
    void move_future(const CausalSegment<T>& s) const;

    // Whether the direction is the one that computes all positions at once.
    bool to_data() const { return !transform_.reads_data(); }
    StepMap<T> map() const { return {kernels_, *transform_.map(), transform_.has_level(), net_.values}; }
    // The number of outputs that belong to one value.
    int of_input() const { return transform_.map() ? net_.outputs / net_.values : net_.outputs; }
    int64_t frames() const { return net_.covariates > 0 ? call_.frames : 0; }
    const T* context_of(int64_t row) const { return call_.context + (call_.one_context_row ? 0 : row * net_.context); }

    const CausalTransform<T>& transform_;
    const SequenceCall<T>& call_;
    const SequenceGradient<T>& gradient_;
    const CausalNetwork& net_;
    const KernelsOf<T>& kernels_;
    const SequenceKernelsOf<T>& sequences_;
    const int64_t together_;  // number of rows of a sweep
    const CausalBackPlan plan_;
    const CausalSweepPlan sweep_;
    Aligned<T> turned_;
    RowScratch scratch_{};
};

// ---- a segment's tape
// -------------------------------------------------------------------------------------------------

template <class T>
CausalSegment<T> SequenceBack<T>::segment_of(const Row& r, int64_t segment) const {
    const int64_t length = plan_.tape().positions, begin = segment * length;
    CausalSide<T> side{};
    if (net_.context > 0) side.gate_bias = r.scratch + scratch_.folded;
    if (net_.covariates > 0) {
        side.frames = call_.covariates + (call_.one_covariate_row ? 0 : r.row * call_.frames * net_.covariates);
        side.n_frames = call_.frames;
    }
    return {&net_,
            &plan_.tape(),
            call_.weights,
            side,
            begin,
            std::min(length, call_.steps - begin),
            r.scratch + scratch_.tape,
            r.scratch + scratch_.window};
}

template <class T>
void SequenceBack<T>::load_given(const Row& r, const CausalSegment<T>& s) const {
    const CausalTapeShape& tape = plan_.tape();
    T* const given = r.scratch + scratch_.given;
    for (int64_t c = 0; c < net_.values; ++c) {
        T* const line = s.tape + tape.read + c * tape.read_stride + tape.read_front;
        for (int64_t t = -tape.read_front; t < s.positions; ++t)
            line[t] = s.begin + t < 0 || t < -net_.kernel ? T(0) : T(number_at(call_.given, r.row, s.begin + t, c));
        std::fill_n(line + s.positions, line_pad, T(0));
        for (int64_t t = 0; t < s.positions; ++t) given[t * net_.values + c] = line[t];
        if (!net_.is_companded) continue;
        T* const second = line + net_.values * tape.read_stride;
        for (int64_t t = -tape.read_front; t < s.positions + line_pad; ++t) second[t] = compand(line[t]);
    }
}

// Loads values of layers before the segment, which `store_past` stored for the segment's border; for the first segment,
// zeros.
template <class T>
void SequenceBack<T>::load_past(const Row&, const CausalSegment<T>& s, const T* border) const {
    for (int l = 0; l < net_.n_layers; ++l) {
        const CausalTapeLayer& layer = plan_.tape().layers[l];
        const int64_t slots = ring_slots(net_, net_.layers[l]);
        for (int64_t u = 0; u < net_.channel_units; ++u) {
            T* const line = s.tape + layer.values + u * layer.value_stride;
            if (u >= net_.channels) {
                std::fill_n(line, layer.value_stride, T(0));
            } else if (border) {
                std::copy_n(border, slots, line + layer.front - slots);
                border += slots;
            } else {
                std::fill_n(line, layer.front, T(0));
            }
        }
    }
}

template <class T>
void SequenceBack<T>::store_past(const CausalSegment<T>& s, T* border) const {
    for (int l = 0; l < net_.n_layers; ++l) {
        const CausalTapeLayer& layer = plan_.tape().layers[l];
        const int64_t slots = ring_slots(net_, net_.layers[l]);
        for (int64_t u = 0; u < net_.channels; ++u, border += slots)
            std::copy_n(s.tape + layer.values + u * layer.value_stride + layer.front + s.positions - slots, slots,
                        border);
    }
}

// Sets gradients by positions after the last segment to zero, because these positions do not exist.
template <class T>
void SequenceBack<T>::clear_future(const CausalSegment<T>& s) const {
    const CausalTapeShape& tape = plan_.tape();
    for (int l = 0; l < net_.n_layers; ++l)
        for (int64_t u = 0; u < gate_units(net_); ++u) {
            T* const line = s.tape + tape.layers[l].gates + u * tape.layers[l].gate_stride;
            const bool is_padding = u % net_.channel_units >= net_.channels;
            const int64_t from = is_padding ? 0 : s.positions;
            std::fill(line + from, line + tape.layers[l].gate_stride, T(0));
        }
    for (int64_t u = 0; u < net_.channels; ++u) {
        T* const line = s.tape + tape.first + u * tape.first_stride;
        std::fill(line + s.positions, line + tape.first_stride, T(0));
    }
}

// Moves gradients at the first positions of a segment to the end of the tape, for the segment before.
template <class T>
void SequenceBack<T>::move_future(const CausalSegment<T>& s) const {
    const CausalTapeShape& tape = plan_.tape();
    const auto move = [&](T* line, int64_t n) { std::memmove(line + tape.positions, line, size_t(n) * sizeof(T)); };
    for (int l = 0; l < net_.n_layers; ++l)
        for (int64_t u = 0; u < gate_units(net_); ++u)
            move(s.tape + tape.layers[l].gates + u * tape.layers[l].gate_stride, ring_slots(net_, net_.layers[l]));
    for (int64_t u = 0; u < net_.channels; ++u) move(s.tape + tape.first + u * tape.first_stride, net_.kernel);
}

// ---- a row
// ------------------------------------------------------------------------------------------------------------

template <class T>
void SequenceBack<T>::record(const Row& r, int64_t segment) const {
    const CausalSegment<T> s = segment_of(r, segment);
    load_given(r, s);
    load_past(r, s, segment > 0 ? r.borders + (segment - 1) * plan_.border() : nullptr);
    sequences_.record(s, r.scratch + scratch_.raw);
}

// Writes the requested results of the forward pass.
template <class T>
void SequenceBack<T>::finish_record(const Row& r, const CausalSegment<T>& s) const {
    const int64_t first = r.row * call_.steps + s.begin;
    const T* const raw = r.scratch + scratch_.raw;
    if (call_.raw) std::copy_n(raw, s.positions * net_.outputs, call_.raw + first * net_.outputs);
    if (!transform_.map()) return;
    T *value = r.scratch + scratch_.value, *log_det = r.scratch + scratch_.log_det;
    if (call_.value) value = call_.value + first * net_.values;
    if (call_.log_det) log_det = call_.log_det + first;
    if (call_.value || call_.log_det)
        map().run(to_data(), r.scratch + scratch_.given, raw, value, log_det, s.positions, r.scratch + scratch_.map);
}

// Computes gradients by the network's outputs, and by the values that are mapped.
template <class T>
void SequenceBack<T>::raw_gradients(const Row& r, const CausalSegment<T>& s) const {
    T* const by_raw = r.scratch + scratch_.raw_gradient;
    T *const by_given = r.scratch + scratch_.given_gradient, *const by_value = r.scratch + scratch_.value_gradient;
    const int64_t numbers = s.positions * net_.outputs, columns = net_.values;
    const bool through_map = gradient_.value.data || gradient_.log_det.data || gradient_.log_prob.data;
    if (through_map) {
        const T *const given = r.scratch + scratch_.given, *const raw = r.scratch + scratch_.raw;
        T *const value = r.scratch + scratch_.value, *const by_log_det = r.scratch + scratch_.log_det_gradient;
        const StepMap<T> map = this->map();
        T* const of_map = r.scratch + scratch_.map;
        if (gradient_.log_prob.data)
            map.run(to_data(), given, raw, value, r.scratch + scratch_.log_det, s.positions, of_map);
        for (int64_t t = 0; t < s.positions; ++t) {
            const int64_t step = s.begin + t;
            T of_step = 0;
            if (gradient_.log_prob.data) of_step = T(number_at(gradient_.log_prob, r.row, step, 0));
            for (int64_t c = 0; c < columns; ++c) {
                T by = 0;
                if (gradient_.value.data) by = T(number_at(gradient_.value, r.row, step, c));
                if (gradient_.log_prob.data) by += base_slope(gradient_.base, value[t * columns + c]) * of_step;
                by_value[t * columns + c] = by;
            }
            by_log_det[t] = of_step;
            if (gradient_.log_det.data) by_log_det[t] += T(number_at(gradient_.log_det, r.row, step, 0));
        }
        map.back(to_data(), given, raw, by_value, by_log_det, by_given, by_raw, s.positions, of_map);
    } else {
        std::fill_n(by_raw, numbers, T(0));
        std::fill_n(by_given, s.positions * columns, T(0));
    }
    if (!gradient_.raw.data) return;
    for (int64_t t = 0; t < s.positions; ++t)
        for (int64_t k = 0; k < net_.outputs; ++k)
            by_raw[t * net_.outputs + k] += T(number_at(gradient_.raw, r.row, s.begin + t, k));
}

// ---- the direction that computes one position after another
// -----------------------------------------------------------

template <class T>
void SequenceBack<T>::begin_sweep(const Row& r) const {
    std::fill_n(r.scratch + scratch_.sweep, sweep_.shape().numbers, T(0));
    for (int l = 0; l < net_.n_layers; ++l) r.slots[l] = int((call_.steps - 1) % ring_slots(net_, net_.layers[l]));
}

template <class T>
LinearisedMap<T> SequenceBack<T>::linearised(const Row& r) const {
    T* const scratch = r.scratch;
    return {scratch + scratch_.value,        scratch + scratch_.given_gradient, scratch + scratch_.slopes,
            scratch + scratch_.raw_gradient, scratch + scratch_.value_gradient, scratch + scratch_.log_det_gradient};
}

// Computes the derivatives of the map or of the inner flow that the sweep needs.
template <class T>
void SequenceBack<T>::linearise(const Row& r, const CausalSegment<T>& s) const {
    const int64_t columns = net_.values, of_step = columns * net_.outputs;
    const LinearisedMap<T> own = linearised(r);
    const auto number = [&](const SequenceView& a, int64_t t, int64_t column) {
        return a.data ? T(number_at(a, r.row, s.begin + t, column)) : T(0);
    };
    if (transform_.map()) {
        for (int64_t t = 0; t < s.positions; ++t) own.by_log_det[t] = -number(gradient_.log_det, t, 0);
        linearise_map(map(), to_data(), r.scratch + scratch_.given, r.scratch + scratch_.raw, s.positions, columns, own,
                      r.scratch + scratch_.map);
    }
    for (int64_t t = 0; t < s.positions; ++t) {
        for (int64_t c = 0; c < columns; ++c) own.by_value[t * columns + c] = number(gradient_.value, t, c);
        if (transform_.map()) continue;
        for (int64_t i = 0; i < of_step; ++i) own.slopes[t * of_step + i] = number(gradient_.slopes, t, i);
        for (int64_t k = 0; k < net_.outputs; ++k) own.starts[t * net_.outputs + k] = number(gradient_.raw, t, k);
    }
}

template <class T>
void SequenceBack<T>::sweep(const std::vector<Row>& rows, int64_t segment) const {
    CausalSegment<T> segments[sweep_rows];
    CausalSweep<T> sweeps[sweep_rows];
    for (size_t i = 0; i < rows.size(); ++i) {
        const LinearisedMap<T> own = linearised(rows[i]);
        segments[i] = segment_of(rows[i], segment);
        sweeps[i] = {&sweep_.shape(), turned_.get(), rows[i].scratch + scratch_.sweep,
                     rows[i].slots,   call_.steps,   own.slopes,
                     of_input(),      own.starts,    own.by_value};
    }
    sequences_.sweep(segments, sweeps, int(rows.size()));
    for (size_t i = 0; gradient_.given && i < rows.size(); ++i) finish_sweep(rows[i], segments[i]);
}

// Writes gradients by the arguments of the call, or by its values if there is no map.
template <class T>
void SequenceBack<T>::finish_sweep(const Row& r, const CausalSegment<T>& s) const {
    T* const by_given = gradient_.given + (r.row * call_.steps + s.begin) * net_.values;
    const LinearisedMap<T> own = linearised(r);
    for (int64_t i = 0; i < s.positions * net_.values; ++i)
        by_given[i] = transform_.map() ? own.by_given(i, own.by_value[i]) : own.by_value[i];
}

template <class T>
void SequenceBack<T>::back(const Row& r, int64_t segment) const {
    const CausalSegment<T> s = segment_of(r, segment);
    CausalBack<T> b{};
    b.shape = &plan_.sums();
    b.outputs = r.scratch + scratch_.raw_gradient;
    const bool is_read = gradient_.given && !gradient_.is_sequential;
    T* const by_values = is_read ? gradient_.given + (r.row * call_.steps + s.begin) * net_.values : nullptr;
    if (is_read) b.read = net_.is_companded ? r.scratch + scratch_.read_gradient : by_values;
    b.gate_bias = r.scratch + scratch_.gate_gradient;
    if (gradient_.covariates) b.covariates = gradient_.covariates + r.row * call_.frames * net_.covariates;
    b.sums = r.sums;
    sequences_.back(s, b);
    if (!is_read) return;
    const T *const by_map = r.scratch + scratch_.given_gradient, *const given = r.scratch + scratch_.given;
    for (int64_t i = 0; i < s.positions * net_.values; ++i) {
        if (net_.is_companded) {
            const T* const own = b.read + i / net_.values * net_.inputs + i % net_.values;
            by_values[i] = own[0] + own[net_.values] * compand_slope(given[i]);
        }
        by_values[i] += by_map[i];
    }
}

// Converts the gradient by a row's folded biases to gradients by biases, by the context and by the weights of the
// context.
template <class T>
void SequenceBack<T>::finish_row(const Row& r) const {
    const int64_t units = gate_units(net_);
    for (int l = 0; l < net_.n_layers; ++l) {
        const T* const by_start = r.scratch + scratch_.gate_gradient + l * units;
        const CausalSumsLayer& to = plan_.sums().layers[l];
        const T* const weights = call_.weights + net_.layers[l].context;
        for (int64_t u = 0; r.sums && u < units; ++u) r.sums[to.gate_bias + u] += by_start[u];
        for (int64_t k = 0; k < net_.context; ++k) {
            const T given = context_of(r.row)[k];
            for (int64_t u = 0; r.sums && u < units; ++u) r.sums[to.context + k * units + u] += given * by_start[u];
            if (!gradient_.context) continue;
            T sum = 0;
            for (int64_t u = 0; u < units; ++u) sum += weights[k * units + u] * by_start[u];
            gradient_.context[r.row * net_.context + k] += sum;
        }
    }
}

// Runs a row forward, segment by segment; afterwards the tape holds the last segment.
template <class T>
void SequenceBack<T>::begin_row(const Row& r) const {
    std::fill_n(r.scratch + scratch_.gate_gradient, int64_t(net_.n_layers) * gate_units(net_), T(0));
    if (gradient_.context) std::fill_n(gradient_.context + r.row * net_.context, net_.context, T(0));
    if (gradient_.covariates) {
        const int64_t numbers = call_.frames * net_.covariates;
        std::fill_n(gradient_.covariates + r.row * numbers, numbers, T(0));
    }
    if (net_.context > 0) sequences_.fold(net_, call_.weights, context_of(r.row), r.scratch + scratch_.folded);
    const int64_t last = plan_.segments() - 1;
    for (int64_t i = 0; i <= last; ++i) {
        record(r, i);
        const CausalSegment<T> s = segment_of(r, i);
        finish_record(r, s);
        if (i < last) store_past(s, r.borders + i * plan_.border());
    }
    clear_future(segment_of(r, last));
    if (gradient_.is_sequential) begin_sweep(r);
}

template <class T>
void SequenceBack<T>::run_rows(const std::vector<Row>& rows) const {
    const int64_t last = plan_.segments() - 1;
    for (const Row& r : rows) begin_row(r);
    for (int64_t i = last; i >= 0; --i) {
        for (const Row& r : rows) {
            if (i < last) record(r, i);
            gradient_.is_sequential ? linearise(r, segment_of(r, i)) : raw_gradients(r, segment_of(r, i));
        }
        if (gradient_.is_sequential) sweep(rows, i);
        for (const Row& r : rows) {
            back(r, i);
            if (i > 0) move_future(segment_of(r, i));
        }
    }
    for (const Row& r : rows) finish_row(r);
}

// Processes the groups [begin, end), one row of each group at a time.
template <class T>
void SequenceBack<T>::run_groups(int64_t begin, int64_t end, int64_t groups, T* sums) const {
    T* const scratch = thread_scratch<T>(size_t(together_ * scratch_.numbers));
    // Border values are allocated for each call and not kept by the thread, because their size grows with the number of
    // steps.
    const int64_t border = (plan_.segments() - 1) * plan_.border();
    const Aligned<T> borders = aligned_memory<T>(size_t(together_ * border));
    std::vector<int> slots(size_t(together_) * size_t(net_.n_layers));
    std::vector<Row> rows;
    for (int64_t round = 0; round == 0 || !rows.empty(); ++round) {
        rows.clear();
        for (int64_t g = begin; g < end; ++g) {
            const int64_t row = call_.rows * g / groups + round, i = g - begin;
            if (row >= call_.rows * (g + 1) / groups) continue;
            rows.push_back({row, scratch + i * scratch_.numbers, borders.get() + i * border,
                            sums ? sums + g * int64_t(plan_.sums().numbers) : nullptr,
                            slots.data() + i * net_.n_layers});
        }
        if (!rows.empty()) run_rows(rows);
    }
}

template <class T>
void SequenceBack<T>::run() {
    const int64_t n_weights = transform_.network().n_weights();
    if (gradient_.weights) std::fill_n(gradient_.weights, n_weights, T(0));
    if (call_.rows == 0 || call_.steps == 0) return;
    const size_t numbers = plan_.sums().numbers;
    int64_t groups = call_.rows;
    Aligned<T> sums;
    if (gradient_.weights) {
        const int64_t fit = sums_bytes / int64_t(numbers * sizeof(T));
        groups = std::min(groups, std::clamp(fit, least_groups, most_groups));
        sums = aligned_zeros<T>(size_t(groups) * numbers);
    }
    // The scratch is allocated here, where an error can be reported.
    thread_scratch<T>(size_t(together_ * scratch_.numbers));
    std::atomic<bool> out_of_memory{false};
    const int64_t tasks = (groups + together_ - 1) / together_;
    parallel_for(tasks, [&](int64_t task) {
        try {
            run_groups(groups * task / tasks, groups * (task + 1) / tasks, groups, sums.get());
        } catch (const std::bad_alloc&) {
            out_of_memory = true;
        }
    });
    if (out_of_memory) throw std::bad_alloc();
    if (!gradient_.weights) return;
    const Aligned<double> total = aligned_zeros<double>(numbers);
    for (int64_t g = 0; g < groups; ++g)
        for (size_t i = 0; i < numbers; ++i) total[i] += double(sums[size_t(g) * numbers + i]);
    plan_.gradient_of(total.get(), gradient_.weights);
}

template <class T>
void sequence_vjp(const CausalTransform<T>& transform, const SequenceCall<T>& call,
                  const SequenceGradient<T>& gradient) {
    SequenceBack<T>(transform, call, gradient).run();
}

template void sequence_vjp(const CausalTransform<float>&, const SequenceCall<float>&, const SequenceGradient<float>&);
template void sequence_vjp(const CausalTransform<double>&, const SequenceCall<double>&,
                           const SequenceGradient<double>&);

}  // namespace headrace
