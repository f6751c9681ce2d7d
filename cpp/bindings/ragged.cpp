// Calls of chains over time on sequences of any lengths.
#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "../core/sequences/ragged.hpp"
#include "../core/sequences/reflections.hpp"
#include "chains.hpp"

namespace headrace {

// Sequences from Python: a list of arrays (steps, columns), or an array (rows, steps, columns), of float32 or float64
// with any strides. `name` is the name of the argument, empty for values that are not checked.
struct HeldSequences {
    std::string name;
    py::object arrays;  // keeps the memory of the arrays
    GivenSequences given;

    HeldSequences(std::string given_name, py::object given_arrays, int64_t columns, const Array<int64_t>& lengths)
        : name(std::move(given_name)), arrays(std::move(given_arrays)) {
        given.columns = columns;
        given.lengths.assign(lengths.data(), lengths.data() + lengths.size());
        if (py::isinstance<py::list>(arrays)) {
            for (const py::handle& one : arrays) add(one, 0);
        } else {
            add(arrays, 1);
        }
        require(given.rows.size() == given.lengths.size(), "lengths: expected one for each sequence");
    }

    // The packed steps of a block. Throws an error with the name of the argument where a value is not finite, or beyond
    // `most`.
    StepValues steps(const SequenceBlock& block, int64_t begin, int64_t end, double most, Room& room) const {
        try {
            StepValues values;
            without_gil([&] {
                values =
                    name.empty() ? given.packed(block, begin, end, room) : given.checked(block, begin, end, most, room);
            });
            return values;
        } catch (const RefusedStep& step) {
            py::list values;
            for (const double value : step.values) values.append(value);
            const std::string what = !step.is_finite ? "finite numbers" : "numbers that float32 holds";
            throw py::value_error(name + ": expected " + what + ", got " + std::string(py::str(values)) + " at step " +
                                  std::to_string(step.step) + " of sequence " + std::to_string(step.sequence));
        }
    }

    void check(double most) const {
        Room room;
        for (const SequenceBlock& block : given.blocks()) {
            const int64_t at_once = range_steps(block.rows(), given.columns);
            for (int64_t begin = 0; begin < block.steps; begin += at_once)
                steps(block, begin, std::min(block.steps, begin + at_once), most, room);
        }
    }

  private:
    void add(const py::handle& one, py::ssize_t leading) {
        const char* const message = "arrays: expected (rows, steps, columns), or a list of (steps, columns), of floats";
        const bool is_double = py::isinstance<py::array_t<double>>(one);
        require(is_double || py::isinstance<py::array_t<float>>(one), message);
        const auto a = py::reinterpret_borrow<py::array>(one);
        require(a.ndim() == leading + 2 && a.shape(leading + 1) == given.columns, message);
        for (py::ssize_t r = 0; r < (leading > 0 ? a.shape(0) : 1); ++r) {
            const char* const data = static_cast<const char*>(a.data()) + (leading > 0 ? r * a.strides(0) : 0);
            require(given.rows.size() < given.lengths.size(), "lengths: expected one for each sequence");
            const int64_t length = given.lengths[given.rows.size()];
            require(length > 0 && length <= a.shape(leading), "lengths: expected no more than there are steps");
            given.rows.push_back({data, 0, a.strides(leading), a.strides(leading + 1), is_double});
        }
    }
};

}  // namespace headrace

HR_REFUSE_UNINITIALISED(headrace::HeldSequences);

namespace headrace {
namespace {

template <class T>
using ChainPointer = std::shared_ptr<SequenceChain<T>>;

// The largest value that a call of dtype T takes.
template <class T>
constexpr double most_value = double(std::numeric_limits<T>::max());

// Memory for results of each step: a list of contiguous arrays (steps, columns), or a contiguous array (rows, steps,
// columns).
template <class T>
class StepResults {
  public:
    StepResults(const py::object& arrays, const GivenSequences& given, int64_t columns) : columns_(columns) {
        if (arrays.is_none()) return;
        const char* const message = "results: expected contiguous arrays of the dtype, in the shape of the sequences";
        const auto add = [&](const py::handle& one, int64_t rows) {
            require(py::isinstance<Array<T>>(one), message);
            auto a = py::reinterpret_borrow<Array<T>>(one);
            require(a.size() % std::max<int64_t>(1, rows * columns) == 0 && is_aligned(a), message);
            const int64_t steps = rows > 0 ? a.size() / (rows * columns) : 0;
            T* const data = a.mutable_data();
            std::fill_n(data, a.size(), T(0));
            for (int64_t r = 0; r < rows; ++r) rows_.push_back({data + r * steps * columns, steps});
        };
        if (py::isinstance<py::list>(arrays)) {
            for (const py::handle& one : arrays) add(one, 1);
        } else {
            add(arrays, int64_t(given.lengths.size()));
        }
        require(rows_.size() == given.lengths.size(), message);
        for (size_t i = 0; i < rows_.size(); ++i) require(rows_[i].steps >= given.lengths[i], message);
    }

    bool is_wanted() const { return !rows_.empty(); }
    // Stores values (rows, end - begin, columns) for steps of a block.
    template <class G>
    void put(const SequenceBlock& block, int64_t begin, int64_t end, const G* values) const {
        if (rows_.empty()) return;
        for (int64_t r = 0; r < block.rows(); ++r, values += (end - begin) * columns_) {
            const Row& to = rows_[size_t(block.index[size_t(r)])];
            for (int64_t i = 0; i < (std::min(end, to.steps) - begin) * columns_; ++i)
                to.data[begin * columns_ + i] = T(values[i]);
        }
    }

  private:
    struct Row {
        T* data;
        int64_t steps;
    };
    int64_t columns_;
    std::vector<Row> rows_;
};

// Context and covariates of a call. The context is (rows, columns), or (1, columns) for all rows; frames of covariates
// are a list of arrays (frames, columns), one for each sequence or one for all.
template <class T>
class Beside {
  public:
    Beside(const SequenceChain<T>& chain, const py::object& context, const py::object& frames, int64_t rows)
        : chain_(chain) {
        require(context.is_none() == (chain.context() == 0), "context: expected if and only if networks read one");
        require(frames.is_none() == (chain.covariates() == 0),
                "covariates: expected if and only if networks read them");
        if (!context.is_none()) {
            require(py::isinstance<Array<T>>(context), "context: expected a contiguous (rows, columns) of the dtype");
            context_rows_ = py::reinterpret_borrow<Array<T>>(context).shape(0);
            context_ = host_numbers<const T>(context, {context_rows_, chain.context()},
                                             "context: expected a contiguous (rows, columns) of the dtype");
            require(context_rows_ == 1 || context_rows_ == rows, "context: expected one row for each sequence");
        }
        if (frames.is_none()) return;
        const char* const message = "covariates: expected a list of contiguous arrays (frames, columns) of the dtype";
        require(py::isinstance<py::list>(frames), message);
        for (const py::handle& one : frames) {
            require(py::isinstance<Array<T>>(one), message);
            const int64_t n = py::reinterpret_borrow<Array<T>>(one).shape(0);
            require(n > 0, message);
            frames_.push_back({host_numbers<const T>(one, {n, chain.covariates()}, message), n});
        }
        require(frames_.size() == 1 || int64_t(frames_.size()) == rows, "covariates: expected some of each sequence");
    }

    bool has_one_context() const { return context_rows_ == 1; }
    size_t frames_of(int64_t sequence) const { return frames_.size() == 1 ? 0 : size_t(sequence); }
    size_t n_frames() const { return frames_.size(); }
    int64_t frames_in(size_t i) const { return frames_[i].second; }

    // The arguments of a call on a block of sequences; the last frame of a short sequence is repeated.
    LinkCall<T> call(bool inverse, const SequenceBlock& block, int64_t position) {
        const int64_t columns = chain_.covariates();
        LinkCall<T> own{inverse, block.rows(), block.steps, chain_.features(), nullptr, nullptr, 0, 0};
        context_block_.clear();
        for (int64_t i : block.index)
            if (context_) {
                const T* const from = context_ + (has_one_context() ? 0 : i * chain_.context());
                context_block_.insert(context_block_.end(), from, from + chain_.context());
            }
        if (context_) own.context = context_block_.data();
        if (frames_.empty()) return own;
        for (int64_t i : block.index) own.n_frames = std::max(own.n_frames, frames_[frames_of(i)].second);
        require(own.n_frames > (position + own.steps - 1) / chain_.hop(),
                "covariates: expected a frame for every hop of the steps");
        frames_block_.clear();
        for (int64_t i : block.index) {
            const auto& [from, n] = frames_[frames_of(i)];
            frames_block_.insert(frames_block_.end(), from, from + n * columns);
            for (int64_t f = n; f < own.n_frames; ++f)
                frames_block_.insert(frames_block_.end(), from + (n - 1) * columns, from + n * columns);
        }
        own.frames = frames_block_.data();
        return own;
    }

  private:
    const SequenceChain<T>& chain_;
    const T* context_ = nullptr;
    int64_t context_rows_ = 0;
    std::vector<std::pair<const T*, int64_t>> frames_;
    std::vector<T> context_block_, frames_block_;
};

// Adds log densities or log-derivatives of steps to the sums of their sequences.
void add_totals(const SequenceBlock& block, int64_t steps, const std::vector<double>& scores, double* totals) {
    for (int64_t r = 0; r < block.rows() && totals; ++r)
        for (int64_t t = 0; t < steps; ++t) totals[block.index[size_t(r)]] += scores[size_t(r * steps + t)];
}

template <class T>
py::object array_or_none(const T* values, const std::vector<py::ssize_t>& shape) {
    return values ? py::object(Array<T>(shape, values)) : py::none();
}

double* totals_of(const py::object& totals, const GivenSequences& given) {
    return totals.is_none() ? nullptr
                            : host_numbers<double>(totals, {int64_t(given.lengths.size())}, "totals: expected (rows,)");
}

// Computes scores of steps, in `steps` and as sums in `totals`, and the steps on the other side (latent or data), in
// `values`; each of the three may be None. With `is_density` scores are log densities, computed by `scorer(given,
// context, frames, state)` if there is a scorer; otherwise scores are log-derivatives. With a state all sequences form
// one block, by whose steps the state advances.
template <class T>
void ragged_scores(const ChainPointer<T>& chain, const HeldChainWeights<T>& weights, bool inverse,
                   const HeldSequences& held, const py::object& context, const py::object& frames, bool is_density,
                   const py::object& scorer, const std::shared_ptr<HeldChainState<T>>& state, const py::object& values,
                   const py::object& steps, const py::object& totals) {
    const ChainWeights<T>& used = weights.of(*chain);
    const GivenSequences& given = held.given;
    const int64_t features = chain->features();
    const StateInUse in_use(scorer.is_none() ? state.get() : nullptr);
    require(given.columns == features, "given: expected the features of the chain");
    require(!is_density || (chain->has_density() && inverse), "is_density: expected a chain with a base, to latent");
    require(!state || (state->chain == chain && state->state->rows == int64_t(given.lengths.size())),
            "state: expected one of this chain, of as many rows as are given");
    const StepResults<T> to_values(values, given, features), to_steps(steps, given, 1);
    double* const sums = totals_of(totals, given);
    Beside<T> beside(*chain, context, frames, int64_t(given.lengths.size()));
    Room packed;
    ChainRoom<T> room;
    std::vector<T> log_base, work;
    std::vector<double> scores;
    for (const SequenceBlock& block : state ? given.whole() : given.blocks()) {
        LinkCall<T> call = beside.call(inverse, block, state ? state->state->position : 0);
        const int64_t rows = block.rows(), at_once = range_steps(rows, features);
        std::shared_ptr<HeldChainState<T>> past = state;
        if (!past && block.steps > at_once) {
            auto made = std::make_shared<ChainState<T>>(chain->state(rows));
            past.reset(new HeldChainState<T>{chain, std::move(made)});
        }
        for (int64_t begin = 0; begin < block.steps; begin += at_once) {
            const int64_t end = std::min(block.steps, begin + at_once), n = rows * (end - begin);
            const StepValues x = held.steps(block, begin, end, most_value<T>, packed);
            call.steps = end - begin;
            if (!scorer.is_none()) {
                const auto found = [&] {
                    try {
                        return Array<double>(
                            scorer(copied(x, {rows, call.steps, features}),
                                   array_or_none(call.context, {rows, chain->context()}),
                                   array_or_none(call.frames, {rows, call.n_frames, chain->covariates()}), past));
                    } catch (...) {
                        if (state) state->is_broken = true;  // because links of the chain may have different positions
                        throw;
                    }
                }();
                require(found.size() == n, "scorer: expected a score of each step");
                scores.assign(found.data(), found.data() + n);
            } else {
                without_gil([&] {
                    const StepValues z = chain->run(used, call, x, past ? past->state.get() : nullptr, room);
                    const T* const to = values_in(z, call.values(), work);
                    to_values.put(block, begin, end, to);
                    if (is_density) {
                        log_base.resize(size_t(n));
                        chain->log_base(used, to, n, log_base.data());
                        for (size_t i = 0; i < size_t(n); ++i) room.log_det[i] += log_base[i];
                    }
                    scores.assign(room.log_det.begin(), room.log_det.end());
                });
            }
            given.clear_beyond(block, begin, end, scores.data());
            to_steps.put(block, begin, end, scores.data());
            add_totals(block, end - begin, scores, sums);
        }
    }
}

// Draws samples of a seed, in the memory x (rows, steps, features).
template <class T>
void ragged_sample(const ChainPointer<T>& chain, const HeldChainWeights<T>& weights, uint64_t seed,
                   const py::object& context, const py::object& frames, const py::object& x) {
    const ChainWeights<T>& used = weights.of(*chain);
    const char* const message = "x: expected a contiguous (rows, steps, features) of the dtype";
    require(py::isinstance<Array<T>>(x), message);
    const auto shape = py::reinterpret_borrow<Array<T>>(x);
    require(shape.ndim() == 3, message);
    const int64_t rows = shape.shape(0), steps = shape.shape(1), features = chain->features();
    T* const to = host_numbers<T>(x, {rows, steps, features}, message);
    require(chain->has_density() && rows < most_samples && steps <= most_drawn_steps,
            "x: expected a chain with a base, fewer than 2^31 samples, and at most 2^32 steps");
    Beside<T> beside(*chain, context, frames, rows);
    ChainRoom<T> room;
    std::vector<T> noise, work;
    for (int64_t first = 0; first < rows; first += block_rows(steps, features)) {
        SequenceBlock block{{}, steps};
        for (int64_t r = first; r < std::min(rows, first + block_rows(steps, features)); ++r) block.index.push_back(r);
        LinkCall<T> call = beside.call(false, block, 0);
        const int64_t n = block.rows(), at_once = range_steps(n, features);
        std::optional<ChainState<T>> state;
        if (steps > at_once) state = chain->state(n);
        ChainNoise<T> source;
        for (int64_t begin = 0; begin < steps; begin += at_once)
            without_gil([&] {
                const int64_t end = std::min(steps, begin + at_once);
                call.steps = end - begin;
                noise.resize(size_t(call.values()));
                source.take(*chain, used, seed, first, n, begin, end, noise.data());
                const StepValues made =
                    chain->run(used, call, StepValues::of(noise.data()), state ? &*state : nullptr, room);
                const T* const from = values_in(made, call.values(), work);
                const int64_t line = call.steps * features;
                for (int64_t r = 0; r < n; ++r)
                    std::copy_n(from + r * line, line, to + ((first + r) * steps + begin) * features);
            });
    }
}

// The gradient by the score of each step, from the caller's gradient by scores of sequences (rows,), or of steps; an
// empty vector stands for zero.
std::vector<double> by_steps_of(const SequenceBlock& block, const GivenSequences& given, const double* by_rows,
                                const HeldSequences* by_steps, Room& room) {
    std::vector<double> own;
    if (by_steps) {
        const StepValues values = by_steps->given.packed(block, 0, block.steps, room);
        own.resize(size_t(block.rows() * block.steps));
        std::vector<double> work;
        std::copy_n(values_in(values, int64_t(own.size()), work), own.size(), own.begin());
    } else if (by_rows) {
        for (const int64_t i : block.index) own.insert(own.end(), size_t(block.steps), by_rows[i]);
        given.clear_beyond(block, 0, block.steps, own.data());
    }
    return own;
}

// Adds gradients by a sequence's frames; the last frame gets the gradients by its repetitions.
template <class T>
void add_frames(const T* own, int64_t n_own, int64_t columns, double* to, int64_t n_to) {
    const int64_t n = std::min(n_own, n_to);
    for (int64_t i = 0; i < n * columns; ++i) to[i] += double(own[i]);
    if (n_own == n) return;
    std::vector<T> rest(size_t(columns), T(0));
    if (columns == 1) {
        rest[0] = pairwise_sum(own + n, n_own - n);
    } else {
        for (int64_t i = n * columns; i < n_own * columns; ++i) rest[size_t(i % columns)] += own[i];
    }
    for (int64_t c = 0; c < columns; ++c) to[(n - 1) * columns + c] += double(rest[size_t(c)]);
}

// Computes gradients of whole sequences. `by_rows` (rows,) and `by_steps` are gradients by log densities, with
// `is_density`, or by log-derivatives; `by_values` are gradients by values of the other side. Results are added to
// float64 arrays `parameters`, `of_context` and `of_frames`, and stored in `inputs`, each of which may be None. Log
// densities are stored as in `scores`; without arrays for them, the result is their sum, weighted by the gradients.
template <class T>
double ragged_back(const ChainPointer<T>& chain, const HeldChainWeights<T>& weights, bool inverse,
                   const HeldSequences& held, const py::object& context, const py::object& frames, bool is_density,
                   const py::object& by_rows, const HeldSequences* by_steps, const HeldSequences* by_values,
                   const py::object& std, const py::object& inputs, const py::object& parameters,
                   const py::object& of_context, const py::object& of_frames, const py::object& steps,
                   const py::object& totals) {
    const ChainWeights<T>& used = weights.of(*chain);
    const GivenSequences& given = held.given;
    const int64_t all = int64_t(given.lengths.size()), features = chain->features();
    const int64_t n_context = chain->context(), n_covariates = chain->covariates();
    require(given.columns == features && (!by_values || by_values->given.columns == features),
            "given: expected the features of the chain");
    for (const HeldSequences* const one : {by_steps, by_values})
        require(!one || one->given.lengths == given.lengths, "by_steps, by_values: expected the lengths of the steps");
    require(!by_steps || by_steps->given.columns == 1, "by_steps: expected one value of a step");
    const double* const of_rows =
        by_rows.is_none() ? nullptr : host_numbers<const double>(by_rows, {all}, "by_rows: expected float64 (rows,)");
    require(!is_density || (chain->has_density() && inverse && !by_values && (of_rows || by_steps)),
            "is_density: expected cotangents of log densities alone, of a chain with a base, to latent steps");
    const StepResults<T> to_inputs(inputs, given, features), to_steps(steps, given, 1);
    double* const sums = totals_of(totals, given);
    double* const to_weights = parameters.is_none() ? nullptr
                                                    : host_numbers<double>(parameters, {int64_t(chain->n_weights())},
                                                                           "parameters: expected float64");
    Beside<T> beside(*chain, context, frames, all);
    double* const to_context = of_context.is_none() || n_context == 0
                                   ? nullptr
                                   : host_numbers<double>(of_context, {beside.has_one_context() ? 1 : all, n_context},
                                                          "of_context: expected float64 (rows, columns)");
    const double* const scale =
        std.is_none() ? nullptr : host_numbers<const double>(std, {n_context}, "std: expected float64 (columns,)");
    std::vector<std::pair<double*, int64_t>> to_frames;
    if (!of_frames.is_none()) {
        const char* const message = "of_frames: expected a list of float64 arrays in the shapes of the covariates";
        require(py::isinstance<py::list>(of_frames), message);
        for (const py::handle& one : of_frames) {
            require(to_frames.size() < beside.n_frames(), message);
            const int64_t n = beside.frames_in(to_frames.size());
            to_frames.push_back({host_numbers<double>(one, {n, n_covariates}, message), n});
        }
        require(to_frames.size() == beside.n_frames(), message);
    }
    double weighted = 0.0;
    Room packed, packed_values, packed_steps;
    for (const SequenceBlock& block : given.blocks()) {
        const LinkCall<T> call = beside.call(inverse, block, 0);
        const int64_t rows = block.rows(), n = rows * block.steps;
        const std::vector<double> by = by_steps_of(block, given, of_rows, by_steps, packed_steps);
        const std::vector<T> own_by(by.begin(), by.end());
        std::vector<T> value, by_context(to_context ? size_t(rows * n_context) : 0), work;
        std::vector<T> by_frames(to_frames.empty() ? 0 : size_t(rows * call.n_frames * n_covariates));
        std::vector<T> log_prob(is_density ? size_t(n) : 0);
        std::vector<double> by_weights(to_weights ? chain->n_weights() : 0);
        ChainCotangent<T> from;
        if (by_values) {
            const double most = std::numeric_limits<double>::max();
            from.value = values_in(by_values->steps(block, 0, block.steps, most, packed_values), call.values(), value);
        }
        (is_density ? from.log_prob : from.log_det) = by.empty() ? nullptr : own_by.data();
        ChainGradient<T> to;
        to.with_inputs = to_inputs.is_wanted();
        if (to_weights) to.weights = by_weights.data();
        if (to_context) to.context = by_context.data();
        if (!to_frames.empty()) to.frames = by_frames.data();
        if (is_density) to.log_prob = log_prob.data();
        const StepValues x = held.steps(block, 0, block.steps, most_value<T>, packed);
        without_gil([&] {
            chain->back(used, call, x, from, to);
            if (to.with_inputs) to_inputs.put(block, 0, block.steps, values_in(to.inputs, call.values(), work));
            for (const PredictionTerms<T>& one : to.predictions) {
                const std::vector<double> found =
                    gradient_of(used.links[one.link].filter, call, one, by.empty() ? nullptr : own_by.data());
                for (size_t i = 0; i < found.size(); ++i) by_weights[chain->begin_of(one.link) + i] += found[i];
            }
            for (size_t i = 0; i < by_weights.size(); ++i) to_weights[i] += by_weights[i];
            for (int64_t r = 0; r < rows; ++r) {
                const int64_t i = block.index[size_t(r)];
                for (int64_t c = 0; to_context && c < n_context; ++c) {
                    const T one = by_context[size_t(r * n_context + c)];
                    to_context[(beside.has_one_context() ? 0 : i * n_context) + c] +=
                        double(scale ? T(double(one) / scale[c]) : one);  // gradient by the context before it is
                                                                          // standardised
                }
                if (to_frames.empty()) continue;
                const auto& [out, n_out] = to_frames[beside.frames_of(i)];
                add_frames(by_frames.data() + r * call.n_frames * n_covariates, call.n_frames, n_covariates, out,
                           n_out);
            }
        });
        if (!is_density) continue;
        std::vector<double> scores(log_prob.begin(), log_prob.end());
        given.clear_beyond(block, 0, block.steps, scores.data());
        to_steps.put(block, 0, block.steps, scores.data());
        add_totals(block, block.steps, scores, sums);
        if (sums || to_steps.is_wanted()) continue;
        for (size_t i = 0; i < scores.size(); ++i) scores[i] *= by[i];
        weighted += pairwise_sum(scores.data(), n);
    }
    return weighted;
}

}  // namespace

template <class T>
void bind_ragged_of(py::class_<SequenceChain<T>, std::shared_ptr<SequenceChain<T>>>& chain) {
    chain
        .def("scores", &ragged_scores<T>, py::arg("weights"), py::arg("inverse"), py::arg("given"), py::arg("context"),
             py::arg("frames"), py::arg("is_density") = true, py::arg("scorer") = py::none(),
             py::arg("state") = py::none(), py::arg("values") = py::none(), py::arg("steps") = py::none(),
             py::arg("totals") = py::none())
        .def("sample", &ragged_sample<T>, py::arg("weights"), py::arg("seed"), py::arg("context"), py::arg("frames"),
             py::arg("x"))
        .def("back", &ragged_back<T>, py::arg("weights"), py::arg("inverse"), py::arg("given"), py::arg("context"),
             py::arg("frames"), py::arg("is_density"), py::arg("by_rows") = py::none(),
             py::arg("by_steps") = py::none(), py::arg("by_values") = py::none(), py::arg("std") = py::none(),
             py::arg("inputs") = py::none(), py::arg("parameters") = py::none(), py::arg("of_context") = py::none(),
             py::arg("of_frames") = py::none(), py::arg("steps") = py::none(), py::arg("totals") = py::none());
}

template void bind_ragged_of<float>(py::class_<SequenceChain<float>, std::shared_ptr<SequenceChain<float>>>&);
template void bind_ragged_of<double>(py::class_<SequenceChain<double>, std::shared_ptr<SequenceChain<double>>>&);

void bind_sequences_given(py::module_& m) {
    py::class_<HeldSequences>(m, "GivenSequences")
        .def(py::init<std::string, py::object, int64_t, const Array<int64_t>&>(), py::arg("name"), py::arg("arrays"),
             py::arg("columns"), py::arg("lengths"))
        .def(
            "check",
            [](const HeldSequences& held, bool is_single) {
                held.check(is_single ? most_value<float> : most_value<double>);
            },
            py::arg("is_single"));
}

}  // namespace headrace
