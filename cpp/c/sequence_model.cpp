#include "sequence_model.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "sequence_links.hpp"

namespace headrace {
namespace {

constexpr int64_t most_position = int64_t(1) << 62;  // of a state: no steps after it overflow
constexpr int64_t most_values = 1 << 18;             // of steps that are computed at a time: the memory of a call

double value_at(const ArrayView& a, int64_t row, int64_t column) {
    const char* const at = a.data + row * a.row_stride + column * a.column_stride;
    if (a.is_double) {
        double x;
        std::memcpy(&x, at, sizeof x);
        return x;
    }
    float x;
    std::memcpy(&x, at, sizeof x);
    return double(x);
}

// Whether a value is finite as a T.
template <class T>
bool holds(double value) {
    return std::abs(value) <= double(std::numeric_limits<T>::max());
}

// The chain of a file, from latent to data, with the base of a step.
template <class T>
struct SequenceChain {
    Facts facts;
    std::vector<SequenceLink<T>> links;
    std::shared_ptr<const Program<T>> base;  // null: a transform alone
    std::vector<double> context_mean, context_std;

    explicit SequenceChain(detail::Container& file) {
        auto d = detail::read_sequences<T>(file, Lower<T>());
        facts = {d.features, d.context, d.has_density, false, true, d.covariates, d.hop, d.field};
        for (auto& one : d.chain) links.push_back(link_of<T>(one, d.features, d.is_rounded));
        context_mean = std::move(d.context_mean);
        context_std = std::move(d.context_std);
        if (!d.has_density) return;
        detail::FlowDescription<LoweredSteps<T>> base_alone;
        base_alone.features = d.features;
        base_alone.base = std::move(d.base);
        base = compiled_flow<T>(base_alone, 0);
    }

    void log_base(const T* z, int64_t n, T* log_prob) const {
        const ArrayView input = StepValues::of(z).rows(facts.features);
        Request<T> request;
        request.inverse = true;
        request.rows = n;
        request.input = &input;
        request.tiles_only = true;
        request.log_prob = log_prob;
        base->run(request);
    }

    // Rows of the base's endless sample.
    void draw(uint64_t seed, int64_t first_row, int64_t rows, T* z) const {
        Request<T> request;
        request.seed = seed;
        request.first_row = first_row;
        request.rows = rows;
        request.tiles_only = true;
        request.value = z;
        base->run(request);
    }
};

// Noise of the streams: blocks of steps of all of them, of which the last is kept for the next call.
template <class T>
class Noise {
  public:
    // Writes steps [begin, end) of (rows, end - begin, features).
    void take(const SequenceChain<T>& chain, uint64_t seed, int64_t rows, int64_t begin, int64_t end, T* to) {
        constexpr int64_t block = int64_t(detail::noise_steps);
        const int64_t features = chain.facts.features;
        for (int64_t first = begin; first < end;) {
            const int64_t index = first / block, last = std::min(end, (index + 1) * block);
            fill(chain, seed, rows, index);
            for (int64_t r = 0; r < rows; ++r)
                std::copy_n(values_.data() + (r * block + first - index * block) * features, (last - first) * features,
                            to + (r * (end - begin) + first - begin) * features);
            first = last;
        }
    }

  private:
    void fill(const SequenceChain<T>& chain, uint64_t seed, int64_t rows, int64_t index) {
        if (is_filled_ && seed_ == seed && index_ == index) return;
        constexpr int64_t block = int64_t(detail::noise_steps);
        is_filled_ = false;
        values_.resize(size_t(rows * block * chain.facts.features));
        chain.draw(seed, int64_t(detail::noise_row(uint64_t(index * block), 0)), rows * block, values_.data());
        is_filled_ = true;
        seed_ = seed;
        index_ = index;
    }

    bool is_filled_ = false;
    uint64_t seed_ = 0;
    int64_t index_ = 0;
    std::vector<T> values_;
};

template <class T>
class StreamOf final : public SequenceStream {
  public:
    // `context`: (rows, columns) as networks read it.
    StreamOf(std::shared_ptr<const SequenceChain<T>> chain, int64_t rows, std::vector<T> context)
        : chain_(std::move(chain)), rows_(rows), context_(std::move(context)) {
        for (const SequenceLink<T>& link : chain_->links)
            states_.push_back(std::visit([&](const auto& own) { return own.state(rows); }, link));
    }

    int64_t rows() const override { return rows_; }
    int64_t position() const override { return position_; }
    int64_t numbers() const override {
        int64_t n = 0;
        for (const LinkState<T>& state : states_) n += numbers_of(state);
        return n;
    }
    void push(const headrace_input* x, const headrace_output* log_prob, const headrace_output* z) override;
    void pull(uint64_t seed, const headrace_output* x) override;
    void extend(int64_t frames, const headrace_input* covariates) override;
    std::unique_ptr<SequenceStream> copies(int64_t n) const override;
    void store(const headrace_output* numbers) const override;
    void load(int64_t position, const headrace_input* numbers) override;

  private:
    const Facts& facts() const { return chain_->facts; }
    int64_t numbers_of(const LinkState<T>& state) const {
        return state.network ? state.network->numbers() : int64_t(state.past.size()) / rows_;
    }
    void check_whole() const {
        require(!is_broken_, HEADRACE_FAILED, "stream: a call that failed left it between two steps");
    }
    void check_density(const char* what) const {
        require(facts().has_density, HEADRACE_NO_SUCH_VERB, what,
                ": expected a density, got a transform alone, which has none");
    }
    int64_t steps_of(const char* name, int64_t rows) const;
    void check_finite(const ArrayView& x, int64_t steps) const;
    void check_frames(int64_t steps) const;
    StepValues part(const ArrayView& x, bool is_double, int64_t steps, int64_t begin, int64_t end);
    const T* run(bool inverse, StepValues given, int64_t steps);
    void put(const T* from, int64_t columns, int64_t steps, int64_t begin, int64_t end, T* to) const;
    template <class F>
    void for_chunks(int64_t steps, const F& f);

    std::shared_ptr<const SequenceChain<T>> chain_;
    int64_t rows_, position_ = 0;
    std::vector<T> context_;
    std::vector<T> frames_;  // (rows, n_frames, covariates)
    int64_t first_frame_ = 0, n_frames_ = 0;
    std::vector<LinkState<T>> states_;
    Noise<T> noise_;
    bool is_broken_ = false;
    Room given_, rooms_[2];
    std::vector<T> log_det_, log_base_;
};

template <class T>
int64_t StreamOf<T>::steps_of(const char* name, int64_t rows) const {
    require(rows % rows_ == 0, HEADRACE_BAD_ARGUMENT, name, ": expected as many steps in each of ", rows_,
            " sequences, got ", rows, " rows in all");
    return rows / rows_;
}

template <class T>
void StreamOf<T>::check_finite(const ArrayView& x, int64_t steps) const {
    for (int64_t i = 0; i < rows_ * steps; ++i)
        for (int64_t c = 0; c < facts().features; ++c) {
            const double value = value_at(x, i, c);
            require(std::isfinite(value), HEADRACE_BAD_ARGUMENT,
                    "x: expected finite numbers, got a NaN or an infinity at step ", i % steps, " of sequence ",
                    i / steps);
            require(holds<T>(value), HEADRACE_BAD_ARGUMENT,
                    "x: expected numbers that float holds, got one beyond at step ", i % steps, " of sequence ",
                    i / steps);
        }
}

template <class T>
void StreamOf<T>::check_frames(int64_t steps) const {
    if (facts().covariates == 0) return;
    const int64_t hop = facts().hop, last = position_ + steps, least = (last + hop - 1) / hop;
    require(first_frame_ + n_frames_ >= least, HEADRACE_BAD_ARGUMENT, "covariates: expected at least ", least,
            " frames for ", last, " steps at ", hop, " steps a frame, got ", first_frame_ + n_frames_);
}

template <class T>
template <class F>
void StreamOf<T>::for_chunks(int64_t steps, const F& f) {
    const int64_t most = std::max<int64_t>(1, most_values / (rows_ * facts().features));
    is_broken_ = true;  // until all links are at one position again
    for (int64_t begin = 0; begin < steps; begin += most) f(begin, std::min(steps, begin + most));
    is_broken_ = false;
}

// Steps [begin, end) of the caller's array, in its dtype.
template <class T>
StepValues StreamOf<T>::part(const ArrayView& x, bool is_double, int64_t steps, int64_t begin, int64_t end) {
    const int64_t features = facts().features;
    const auto copied = [&](auto* to) {
        using G = std::remove_pointer_t<decltype(to)>;
        const StepValues values = StepValues::of(to);
        for (int64_t r = 0; r < rows_; ++r)
            for (int64_t t = begin; t < end; ++t)
                for (int64_t c = 0; c < features; ++c) *to++ = G(value_at(x, r * steps + t, c));
        return values;
    };
    const int64_t n = rows_ * (end - begin) * features;
    return is_double ? copied(given_.of<double>(n)) : copied(given_.of<float>(n));
}

// The other side of the next steps, and their log-derivatives in log_det_.
template <class T>
const T* StreamOf<T>::run(bool inverse, StepValues given, int64_t steps) {
    const bool has_frames = facts().covariates > 0;
    const LinkCall<T> call{inverse,
                           rows_,
                           steps,
                           facts().features,
                           context_.empty() ? nullptr : context_.data(),
                           has_frames ? frames_.data() : nullptr,
                           first_frame_,
                           n_frames_};
    log_det_.assign(size_t(rows_ * steps), T(0));
    const size_t n = chain_->links.size();
    for (size_t k = 0; k < n; ++k) {
        const size_t i = inverse ? n - 1 - k : k;
        given = std::visit(
            [&](const auto& link) { return link.run(call, given, log_det_.data(), states_[i], rooms_[k % 2]); },
            chain_->links[i]);
    }
    position_ += steps;
    return static_cast<const T*>(given.data);
}

template <class T>
void StreamOf<T>::put(const T* from, int64_t columns, int64_t steps, int64_t begin, int64_t end, T* to) const {
    const int64_t n = (end - begin) * columns;
    for (int64_t r = 0; to && r < rows_; ++r) std::copy_n(from + r * n, n, to + (r * steps + begin) * columns);
}

template <class T>
void StreamOf<T>::push(const headrace_input* x_given, const headrace_output* log_prob, const headrace_output* z) {
    check_whole();
    const headrace_input& given = existing(x_given, "x", "steps");
    if (log_prob) check_density("log_prob");
    check_array("x", given, facts().features, HEADRACE_BAD_ARGUMENT);
    const int64_t steps = steps_of("x", given.rows);
    Result<T> scores("log_prob", log_prob, given.rows, 1), latent("z", z, given.rows, facts().features);
    scores.check_apart(latent);
    const ArrayView x = opened("x", given);
    const Extent extent = extent_of("x", given);
    scores.keep_apart(given, extent);
    latent.keep_apart(given, extent);
    check_finite(x, steps);
    check_frames(steps);
    T *const to_scores = scores.values(), *const to_latent = latent.values();
    for_chunks(steps, [&](int64_t begin, int64_t end) {
        const int64_t n = rows_ * (end - begin);
        const T* const values = run(true, part(x, given.dtype == HEADRACE_FLOAT64, steps, begin, end), end - begin);
        put(values, facts().features, steps, begin, end, to_latent);
        if (!to_scores) return;
        log_base_.resize(size_t(n));
        chain_->log_base(values, n, log_base_.data());
        for (int64_t i = 0; i < n; ++i) log_det_[size_t(i)] += log_base_[size_t(i)];
        put(log_det_.data(), 1, steps, begin, end, to_scores);
    });
    scores.finish();
    latent.finish();
}

template <class T>
void StreamOf<T>::pull(uint64_t seed, const headrace_output* x_given) {
    check_whole();
    check_density("flow");
    const headrace_output& x = existing(x_given, "x", "memory");
    check_array("x", x, facts().features, HEADRACE_BAD_ARGUMENT);
    const int64_t steps = steps_of("x", x.rows);
    require(steps <= int64_t(detail::most_drawn_steps) - position_, HEADRACE_BAD_ARGUMENT,
            "x: expected at most 2^32 steps with those before, got ", position_ + steps);
    check_frames(steps);
    Result<T> result("x", &x, x.rows, facts().features);
    T* const to = result.values();
    std::vector<T> noise;
    for_chunks(steps, [&](int64_t begin, int64_t end) {
        noise.resize(size_t(rows_ * (end - begin) * facts().features));
        noise_.take(*chain_, seed, rows_, position_, position_ + end - begin, noise.data());
        put(run(false, StepValues::of(noise.data()), end - begin), facts().features, steps, begin, end, to);
    });
    result.finish();
}

template <class T>
void StreamOf<T>::extend(int64_t frames, const headrace_input* frames_given) {
    const int64_t n = facts().covariates;
    require(n > 0, HEADRACE_NO_SUCH_VERB, "flow: expected one that takes covariates, got one that takes none");
    const headrace_input& covariates = existing(frames_given, "covariates", "frames");
    check_array("covariates", covariates, n, HEADRACE_BAD_ARGUMENT);
    require(frames >= 0 && (covariates.rows == frames || covariates.rows == rows_ * frames), HEADRACE_BAD_ARGUMENT,
            "covariates: expected ", frames, " rows for all sequences, or ", rows_ * frames, ", got ", covariates.rows);
    const ArrayView given = opened("covariates", covariates);
    // Frames of the past have no use any more.
    const int64_t old = std::min(n_frames_, position_ / facts().hop - first_frame_), kept = n_frames_ - old;
    const int64_t apart = covariates.rows == frames ? 0 : frames;
    std::vector<T> all;
    all.reserve(size_t(rows_ * (kept + frames) * n));
    for (int64_t r = 0; r < rows_; ++r) {
        const T* const own = frames_.data() + (r * n_frames_ + old) * n;
        all.insert(all.end(), own, own + kept * n);
        for (int64_t f = 0; f < frames; ++f)
            for (int64_t c = 0; c < n; ++c) {
                const double value = value_at(given, r * apart + f, c);
                require(std::isfinite(value), HEADRACE_BAD_ARGUMENT,
                        "covariates: expected finite numbers, got a NaN or an infinity");
                all.push_back(T(value));
            }
    }
    frames_ = std::move(all);
    first_frame_ += old;
    n_frames_ = kept + frames;
}

// Row j * rows + r is copy j of row r.
template <class T>
std::unique_ptr<SequenceStream> StreamOf<T>::copies(int64_t n) const {
    check_whole();
    require(n >= 1 && n < int64_t(detail::most_samples) / rows_, HEADRACE_BAD_ARGUMENT,
            "n: expected at least 1, and fewer than 2^31 sequences in all, got ", n);
    const auto tiled = [&](const std::vector<T>& values) {
        std::vector<T> all;
        all.reserve(values.size() * size_t(n));
        for (int64_t j = 0; j < n; ++j) all.insert(all.end(), values.begin(), values.end());
        return all;
    };
    auto copy = std::make_unique<StreamOf>(chain_, n * rows_, tiled(context_));
    std::vector<int64_t> chosen;
    chosen.reserve(size_t(n * rows_));
    for (int64_t i = 0; i < n * rows_; ++i) chosen.push_back(i % rows_);
    for (size_t i = 0; i < states_.size(); ++i) {
        const auto& network = states_[i].network;
        if (network) copy->states_[i].network.emplace(network->rows_of(chosen));
        copy->states_[i].past = tiled(states_[i].past);
    }
    copy->position_ = position_;
    copy->frames_ = tiled(frames_);
    copy->first_frame_ = first_frame_;
    copy->n_frames_ = n_frames_;
    return copy;
}

template <class T>
void StreamOf<T>::store(const headrace_output* given) const {
    check_whole();
    const int64_t all = numbers();
    Result<T> result("numbers", &existing(given, "numbers", "memory"), rows_, all);
    T* const to = result.values();
    int64_t begin = 0;
    for (const LinkState<T>& state : states_) {
        const int64_t n = numbers_of(state);
        std::vector<T> own = state.past;
        if (state.network) {
            own.resize(size_t(rows_ * n));
            state.network->store(own.data());
        }
        for (int64_t r = 0; r < rows_; ++r) std::copy_n(own.data() + r * n, n, to + r * all + begin);
        begin += n;
    }
    result.finish();
}

template <class T>
void StreamOf<T>::load(int64_t position, const headrace_input* state_given) {
    require(position >= 0, HEADRACE_BAD_ARGUMENT, "position: expected at least 0, got ", position);
    require(position <= most_position, HEADRACE_BAD_ARGUMENT, "position: expected at most 2^62, got ", position);
    const headrace_input& given = existing(state_given, "numbers", "a state");
    check_array("numbers", given, numbers(), HEADRACE_BAD_ARGUMENT);
    require(given.rows == rows_, HEADRACE_BAD_ARGUMENT, "numbers: expected ", rows_, " rows, got ", given.rows);
    const ArrayView from = opened("numbers", given);
    for (int64_t r = 0; r < rows_; ++r)
        for (int64_t i = 0; i < given.columns; ++i)
            require(holds<T>(value_at(from, r, i)), HEADRACE_BAD_ARGUMENT,
                    "numbers: expected finite numbers that the flow's dtype holds, got another in row ", r, ", column ",
                    i);
    is_broken_ = true;
    int64_t begin = 0;
    for (LinkState<T>& state : states_) {
        const int64_t n = numbers_of(state);
        std::vector<T> own;
        own.reserve(size_t(rows_ * n));
        for (int64_t r = 0; r < rows_; ++r)
            for (int64_t i = 0; i < n; ++i) own.push_back(T(value_at(from, r, begin + i)));
        auto& network = state.network;
        if (network) {
            network->load(own.data(), position);
        } else {
            state.past = std::move(own);
        }
        begin += n;
    }
    is_broken_ = false;
    position_ = position;
    frames_.clear();
    n_frames_ = 0;
    first_frame_ = facts().covariates > 0 ? position / facts().hop : 0;
}

template <class T>
class SequenceModelOf final : public SequenceModel {
  public:
    explicit SequenceModelOf(detail::Container& file) : chain_(std::make_shared<const SequenceChain<T>>(file)) {}

    const Facts& facts() const override { return chain_->facts; }
    bool is_double() const override { return std::is_same_v<T, double>; }
    std::unique_ptr<SequenceStream> stream(int64_t rows, const headrace_input* context) const override {
        require(rows >= 1 && rows < int64_t(detail::most_samples), HEADRACE_BAD_ARGUMENT,
                "rows: expected at least 1 and below 2^31, got ", rows);
        return std::make_unique<StreamOf<T>>(chain_, rows, context_of(rows, context));
    }

  private:
    std::vector<T> context_of(int64_t rows, const headrace_input* context) const {
        const int64_t n = facts().context;
        require(context || n == 0, HEADRACE_BAD_CONTEXT, "context: expected ", n, " columns, got NULL");
        require(!context || n > 0, HEADRACE_BAD_CONTEXT, "context: expected NULL, because the model takes none");
        std::vector<T> own;
        if (!context) return own;
        check_array("context", *context, n, HEADRACE_BAD_CONTEXT);
        require(context->rows == 1 || context->rows == rows, HEADRACE_BAD_CONTEXT, "context: expected 1 row or ", rows,
                ", got ", context->rows);
        const ArrayView view = opened("context", *context);
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t c = 0; c < n; ++c) {
                double value = value_at(view, context->rows == 1 ? 0 : r, c);
                require(std::isfinite(value), HEADRACE_BAD_CONTEXT, "context: expected finite numbers");
                if (!chain_->context_mean.empty())
                    value = (value - chain_->context_mean[size_t(c)]) / chain_->context_std[size_t(c)];
                own.push_back(T(value));
            }
        return own;
    }

    std::shared_ptr<const SequenceChain<T>> chain_;
};

}  // namespace

bool is_of_sequences(const detail::Container& file) {
    return detail::is_of_sequences(file);
}

std::shared_ptr<const SequenceModel> sequence_model(detail::Container& file, bool is_double) {
    try {
        if (is_double) return std::make_shared<const SequenceModelOf<double>>(file);
        return std::make_shared<const SequenceModelOf<float>>(file);
    } catch (const std::invalid_argument& error) {
        detail::refuse(error.what());
    }
}

}  // namespace headrace
