// The public interface for sequences: a flow from a file, and its streams, which proceed step by step.
#pragma once

#include "flow.hpp"
#include "links.hpp"
#include "sequence_file.hpp"

namespace headrace {
namespace detail {

// The flow over time, or the single transform, of a file, ready to compute.
template <class T>
struct SequenceModel {
    int features = 0, context = 0, covariates = 0, hop = 1;
    std::int64_t field = 0;
    std::unique_ptr<Base<T>> base;                // null for a single transform
    std::vector<std::unique_ptr<Link<T>>> chain;  // from latent to data
    std::vector<TransformPtr<T>> data_end;        // transforms behind the chain, computed in double
    std::vector<double> context_mean, context_std;
    std::size_t numbers = 0;  // number of values of a stream's state

    explicit SequenceModel(Container file) {
        auto given = read_sequences<T>(file, TransformMaker<T>());
        features = given.features;
        context = given.context;
        covariates = given.covariates;
        hop = given.hop;
        field = given.field;
        if (given.has_density) base = base_of<T>(given.base);
        context_mean = std::move(given.context_mean);
        context_std = std::move(given.context_std);
        while (!given.chain.empty()) {
            auto* const step = std::get_if<StepDescription<TransformPtr<T>>>(&given.chain.back());
            if (!step || !step->made->is_exact()) break;
            data_end.insert(data_end.begin(), std::move(step->made));
            given.chain.pop_back();
        }
        for (auto& one : given.chain) {
            chain.push_back(std::visit(LinkMaker<T>{given.is_rounded}, one));
            numbers += chain.back()->numbers();
        }
    }
};

}  // namespace detail

// Sequences that proceed together, step by step; SequenceFlow::stream makes a stream. A push returns the log densities
// of new steps given all earlier steps, a pull draws new steps, and both append the steps to the past. A stream keeps
// only the part of the past that later steps need, so that its memory does not grow.
//
// Arrays are (rows, steps, features), in float or double (In), and results are in float or double (Out). Wrong
// arguments, and values that are not finite, throw std::invalid_argument and leave the stream unchanged. One thread at
// a time may use a stream; streams of one flow share no data that change.
template <class T>
class Stream {
  public:
    std::size_t rows() const { return rows_; }
    std::uint64_t position() const { return position_; }  // number of past steps

    // Appends observed steps x, and computes their log densities in nats, (rows, steps), and their latent values in the
    // shape of x; either result may be null.
    template <class In, class Out>
    void push(const In* x, std::size_t steps, Out* log_prob, Out* z = nullptr) {
        if (log_prob && !model_->base)
            throw std::invalid_argument("log_prob: expected null, because a transform alone has no density");
        check_finite(x, steps);
        check_frames(steps);
        Work work;
        for (std::size_t r = 0; r < rows_; ++r)
            for (std::size_t t = 0; t < steps; ++t) {
                const std::size_t at = r * steps + t;
                double log_det = 0.0;
                to_latent(r, position_ + t, x + at * columns(), work, log_det);
                for (std::size_t c = 0; z && c < columns(); ++c)
                    z[at * columns() + c] = detail::narrowed<Out>(static_cast<double>(work.values[c]));
                if (log_prob) {
                    work.row.assign(work.values.begin(), work.values.end());
                    log_prob[at] = detail::narrowed<Out>(model_->base->log_prob(work.row.data()) + log_det);
                }
            }
        position_ += steps;
    }

    // Draws the next steps. All pulls of a stream with one seed are one sample, which equals that of Python to
    // rounding.
    template <class Out>
    void pull(std::size_t steps, std::uint64_t seed, Out* x) {
        if (!model_->base)
            throw std::invalid_argument("expected a flow for a sample, got a transform alone, which has no density");
        if (steps > detail::most_drawn_steps || position_ > detail::most_drawn_steps - steps)
            throw std::invalid_argument("steps: expected at most 2^32 with those before");
        check_frames(steps);
        Work work;
        work.values.resize(columns());
        for (std::size_t r = 0; r < rows_; ++r)
            for (std::size_t t = 0; t < steps; ++t) {
                model_->base->draw(seed, detail::noise_row(position_ + t, r), work.values.data());
                to_data(r, position_ + t, work);
                for (std::size_t c = 0; c < columns(); ++c)
                    x[(r * steps + t) * columns() + c] = detail::narrowed<Out>(work.row[c]);
            }
        position_ += steps;
    }

    // Appends the next `frames` frames of covariates: (of_rows, frames, covariates), where of_rows is 1, for all rows,
    // or rows().
    template <class In>
    void extend(const In* covariates, std::size_t frames, std::size_t of_rows = 1) {
        const std::size_t n = static_cast<std::size_t>(model_->covariates);
        if (n == 0) throw std::invalid_argument("covariates: expected none, because the flow takes none");
        if (of_rows != 1 && of_rows != rows_)
            throw std::invalid_argument("covariates: expected 1 row or " + std::to_string(rows_) + ", got " +
                                        std::to_string(of_rows));
        for (std::size_t i = 0; i < of_rows * frames * n; ++i)
            if (!std::isfinite(covariates[i]))
                throw std::invalid_argument("covariates: expected finite numbers, got a NaN or an infinity");
        // Frames of the past, which no later step needs, are removed.
        const std::uint64_t now = position_ / static_cast<std::uint64_t>(model_->hop);
        const std::size_t old = static_cast<std::size_t>(std::min<std::uint64_t>(now - first_frame_, n_frames_));
        for (std::size_t r = 0; r < rows_; ++r) {
            std::vector<T>& own = frames_[r];
            own.erase(own.begin(), own.begin() + static_cast<std::ptrdiff_t>(old * n));
            const In* const from = covariates + (of_rows == 1 ? 0 : r) * frames * n;
            for (std::size_t i = 0; i < frames * n; ++i)
                own.push_back(detail::narrowed<T>(static_cast<double>(from[i])));
        }
        first_frame_ += old;
        n_frames_ += frames - old;
    }

    // A stream with n copies of each row and its past, which then proceed independently: row j * rows() + r is copy j
    // of row r.
    Stream copies(std::size_t n) const {
        if (n == 0) throw std::invalid_argument("n: expected at least 1, got 0");
        Stream all(*this);
        all.rows_ = n * rows_;
        for (std::size_t j = 1; j < n; ++j) {
            all.states_.insert(all.states_.end(), states_.begin(), states_.end());
            all.starts_.insert(all.starts_.end(), starts_.begin(), starts_.end());
            all.frames_.insert(all.frames_.end(), frames_.begin(), frames_.end());
        }
        return all;
    }

    // The state of each row after its past, (rows, values). A stream with the same context needs only the state and the
    // position to proceed. The order is that of Python's Stream.state, transform by transform.
    std::vector<T> state() const {
        std::vector<T> all;
        for (std::vector<T> own : states_) for_state(own, position_, [&](T& number) { all.push_back(number); });
        return all;
    }
    // Sets the state and the position, and removes frames of covariates: the next frame for `extend` is that of the
    // step at `position`.
    void set_state(std::uint64_t position, const std::vector<T>& numbers) {
        if (numbers.size() != rows_ * model_->numbers)
            throw std::invalid_argument("numbers: expected " + std::to_string(rows_ * model_->numbers) +
                                        " values, got " + std::to_string(numbers.size()));
        for (const T number : numbers)
            if (!std::isfinite(number)) throw std::invalid_argument("numbers: expected finite numbers");
        if (position > std::uint64_t(1) << 62) throw std::invalid_argument("position: expected at most 2^62");
        std::size_t from = 0;
        for (std::vector<T>& own : states_) for_state(own, position, [&](T& number) { number = numbers[from++]; });
        position_ = position;
        for (std::vector<T>& own : frames_) own.clear();
        n_frames_ = 0;
        first_frame_ = position / static_cast<std::uint64_t>(model_->hop);
    }

    // Versions of the functions with vectors, in double.
    std::vector<double> push(const std::vector<double>& x) {
        if (x.size() % (rows_ * columns()))
            throw std::invalid_argument("x: expected as many steps of " + std::to_string(columns()) +
                                        " values in each of " + std::to_string(rows_) + " rows, got " +
                                        std::to_string(x.size()) + " values in all");
        std::vector<double> log_prob(x.size() / columns());
        push(x.data(), log_prob.size() / rows_, log_prob.data());
        return log_prob;
    }
    std::vector<double> pull(std::size_t steps, std::uint64_t seed) {
        std::vector<double> x(rows_ * steps * columns());
        pull(steps, seed, x.data());
        return x;
    }

  private:
    template <class>
    friend class SequenceFlow;

    struct Work {
        std::vector<double> row;
        std::vector<T> values, frame;
        detail::StepWork<T> step;
    };

    // A stream with a context (rows, context), as networks read it.
    Stream(std::shared_ptr<const detail::SequenceModel<T>> model, std::size_t rows, const std::vector<T>& context)
        : model_(std::move(model)), rows_(rows), states_(rows), starts_(rows), frames_(rows) {
        const std::size_t n = static_cast<std::size_t>(model_->context);
        for (std::size_t r = 0; r < rows; ++r) {
            states_[r].assign(model_->numbers, T(0));
            for (const auto& link : model_->chain)
                starts_[r].push_back(link->starts(n ? context.data() + r * n : nullptr));
        }
    }

    std::size_t columns() const { return static_cast<std::size_t>(model_->features); }

    template <class In>
    void check_finite(const In* x, std::size_t steps) const {
        for (std::size_t i = 0; i < rows_ * steps * columns(); ++i) {
            if (std::isfinite(detail::narrowed<T>(x[i]))) continue;
            const std::size_t at = i / columns();
            const char* const what = std::isfinite(x[i]) ? "numbers that float holds" : "finite numbers";
            throw std::invalid_argument("x: expected " + std::string(what) + ", got " + std::to_string(x[i]) +
                                        " at step " + std::to_string(at % steps) + " of row " +
                                        std::to_string(at / steps));
        }
    }
    void check_frames(std::size_t steps) const {
        if (model_->covariates == 0) return;
        const std::uint64_t hop = static_cast<std::uint64_t>(model_->hop), last = position_ + steps;
        const std::uint64_t least = (last + hop - 1) / hop, known = first_frame_ + n_frames_;
        if (known < least)
            throw std::invalid_argument("covariates: expected at least " + std::to_string(least) + " frames for " +
                                        std::to_string(last) + " steps at " + std::to_string(hop) +
                                        " steps a frame, got " + std::to_string(known));
    }

    // The covariates of a step, interpolated between two frames; the last frame is repeated.
    const T* frame_of(std::size_t r, std::uint64_t position, Work& work) const {
        if (model_->covariates == 0) return nullptr;
        const std::uint64_t hop = static_cast<std::uint64_t>(model_->hop);
        const std::size_t n = static_cast<std::size_t>(model_->covariates),
                          at = static_cast<std::size_t>(position / hop - first_frame_);
        const T* const first = frames_[r].data() + at * n;
        if (position % hop == 0 || at + 1 >= n_frames_) return first;
        const T share = static_cast<T>(position % hop) / static_cast<T>(hop);
        work.frame.resize(n);
        for (std::size_t c = 0; c < n; ++c) work.frame[c] = first[c] + share * (first[n + c] - first[c]);
        return work.frame.data();
    }

    template <class F>
    void for_state(std::vector<T>& state, std::uint64_t position, const F& visit) const {
        std::size_t begin = 0;
        for (const auto& link : model_->chain) {
            for (const detail::Ring& ring : link->rings())
                for (std::size_t i = 0; i < ring.slots; ++i) {
                    T* const values = ring.at(state.data() + begin, position + i);
                    for (std::size_t c = 0; c < ring.columns; ++c) visit(values[c]);
                }
            begin += link->numbers();
        }
    }

    // Runs a row's step, in work.values, through the chain.
    void run(bool to_data, std::size_t r, std::uint64_t position, Work& work, double& log_det) {
        const std::size_t n = model_->chain.size();
        const T* const frame = frame_of(r, position, work);
        T* state = states_[r].data();
        if (!to_data) state += model_->numbers;
        for (std::size_t k = 0; k < n; ++k) {
            const std::size_t i = to_data ? k : n - 1 - k;
            const detail::Link<T>& link = *model_->chain[i];
            if (!to_data) state -= link.numbers();
            const detail::StepCall<T> call{to_data, position, starts_[r][i].data(), frame};
            link.run(call, state, work.values.data(), log_det, work.step);
            if (to_data) state += link.numbers();
        }
    }

    template <class In>
    void to_latent(std::size_t r, std::uint64_t position, const In* x, Work& work, double& log_det) {
        work.row.assign(x, x + columns());
        for (std::size_t i = model_->data_end.size(); i-- > 0;)
            model_->data_end[i]->run_exact(false, work.row, log_det);
        work.values.resize(columns());
        for (std::size_t c = 0; c < columns(); ++c) work.values[c] = detail::narrowed<T>(work.row[c]);
        run(false, r, position, work, log_det);
    }
    // Computes data in work.row from work.values.
    void to_data(std::size_t r, std::uint64_t position, Work& work) {
        double log_det = 0.0;
        run(true, r, position, work, log_det);
        work.row.assign(work.values.begin(), work.values.end());
        for (const auto& one : model_->data_end) one->run_exact(true, work.row, log_det);
    }

    std::shared_ptr<const detail::SequenceModel<T>> model_;
    std::size_t rows_;
    std::uint64_t position_ = 0, first_frame_ = 0;
    std::size_t n_frames_ = 0;                         // number of known frames, from first_frame_ on
    std::vector<std::vector<T>> states_;               // state of each row
    std::vector<std::vector<std::vector<T>>> starts_;  // starts of each row and link
    std::vector<std::vector<T>> frames_;               // frames of each row, (n_frames_, covariates)
};

// A density of sequences, log p(x) = sum over steps of log p(step | earlier steps), or one transform over time.
// Computations are in T, float or double, for files of any dtype. Invalid files throw FileFormatError. An object never
// changes after construction, and its streams may outlive it.
template <class T>
class SequenceFlow {
  public:
    static SequenceFlow load(const std::string& path) {
        try {
            return SequenceFlow(detail::container_of_file(path));
        } catch (const FileFormatError& error) {
            throw FileFormatError(path + ": " + error.what());
        }
    }
    // Reads a flow from the bytes of a file, which are copied.
    static SequenceFlow from_bytes(const void* data, std::size_t size) {
        return SequenceFlow(detail::container_of_bytes(data, size));
    }

    int features() const { return model_->features; }      // number of values of a step
    int context() const { return model_->context; }        // number of columns of the context; 0: none
    int covariates() const { return model_->covariates; }  // number of columns of covariates over time; 0: none
    int hop() const { return model_->hop; }                // number of steps of a frame of covariates
    // Whether the object is a flow, whose streams have log densities and samples, and not a single transform.
    bool has_density() const { return model_->base != nullptr; }
    // The number of steps before a step on which the density of this step depends.
    std::int64_t field() const { return model_->field; }

    // Opens a stream of `rows` sequences before their first step. `context` has `context_rows` rows of context()
    // values: one for each sequence, or 1 for all; it is null where context() is 0.
    template <class In = double>
    Stream<T> stream(std::size_t rows = 1, const In* context = nullptr, std::size_t context_rows = 0) const {
        const std::size_t n = static_cast<std::size_t>(model_->context);
        if (rows < 1 || rows >= detail::most_samples)
            throw std::invalid_argument("rows: expected at least 1 and below 2^31");
        if (!n && context_rows) throw std::invalid_argument("context: expected none");
        if (n && context_rows != 1 && context_rows != rows)
            throw std::invalid_argument("context: expected 1 row or " + std::to_string(rows) + ", got " +
                                        std::to_string(context_rows));
        std::vector<T> own;
        for (std::size_t i = 0; i < rows * n; ++i) {
            double value = static_cast<double>(context[context_rows == 1 ? i % n : i]);
            if (!std::isfinite(value)) throw std::invalid_argument("context: expected finite numbers");
            if (!model_->context_mean.empty())
                value = (value - model_->context_mean[i % n]) / model_->context_std[i % n];
            own.push_back(detail::narrowed<T>(value));
        }
        return Stream<T>(model_, rows, own);
    }

  private:
    explicit SequenceFlow(detail::Container file)
        : model_(std::make_shared<const detail::SequenceModel<T>>(std::move(file))) {}

    std::shared_ptr<const detail::SequenceModel<T>> model_;
};

}  // namespace headrace
