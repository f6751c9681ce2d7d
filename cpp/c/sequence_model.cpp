#include "sequence_model.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "../core/sequences/chain_stream.hpp"
#include "compiled_file.hpp"
#include "sequence_links.hpp"

namespace headrace {
namespace {

// The largest position of a state, to which the steps of a call can be added without overflow.
constexpr int64_t most_position = int64_t(1) << 62;

// The value of an array at a row and a column. `data` is not null, because `check_array` refuses null for an array with
// rows.
// NOLINTBEGIN(clang-analyzer-core.NullPointerArithm,clang-analyzer-core.NonNullParamChecker)
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
// NOLINTEND(clang-analyzer-core.NullPointerArithm,clang-analyzer-core.NonNullParamChecker)

// The chain of a file, from latent to data, and its weights.
template <class T>
struct SequenceFile {
    Facts facts;
    std::shared_ptr<const SequenceChain<T>> chain;
    std::shared_ptr<const ChainWeights<T>> weights;
    std::vector<double> context_mean, context_std;

    explicit SequenceFile(detail::Container& file) {
        auto d = detail::read_sequences<T>(file, Lower<T>());
        facts = {d.features, d.context, d.has_density, false, true, d.covariates, d.hop, d.field};
        std::vector<SequenceLink<T>> links;
        const auto own = std::make_shared<ChainWeights<T>>();
        for (auto& one : d.chain) {
            WeightedLink<T> made = link_of<T>(one, d.features, d.is_rounded);
            links.push_back(std::move(made.link));
            own->links.push_back(std::move(made.weights));
        }
        context_mean = std::move(d.context_mean);
        context_std = std::move(d.context_std);
        std::shared_ptr<const Program<T>> base;
        if (d.has_density) {
            detail::FlowDescription<LoweredSteps<T>> base_alone;
            base_alone.features = d.features;
            base_alone.base = std::move(d.base);
            base = compiled_flow<T>(base_alone, 0);
            own->base = base->snapshot();
        }
        chain = std::make_shared<const SequenceChain<T>>(d.features, std::move(links), std::move(base));
        weights = own;
    }
};

template <class T>
class StreamOf final : public SequenceStream {
  public:
    StreamOf(std::shared_ptr<const SequenceFile<T>> file, ChainStream<T> stream)
        : file_(std::move(file)), stream_(std::move(stream)) {}

    int64_t rows() const override { return stream_.rows(); }
    int64_t position() const override { return stream_.position(); }
    int64_t numbers() const override {
        int64_t n = 0;
        for (size_t i = 0; i < stream_.state().links.size(); ++i) n += stream_.state().numbers(i);
        return n;
    }
    void push(const headrace_input* x, const headrace_output* log_prob, const headrace_output* z) override;
    void pull(uint64_t seed, const headrace_output* x) override;
    void extend(int64_t frames, const headrace_input* covariates) override;
    std::unique_ptr<SequenceStream> copies(int64_t n) const override;
    void store(const headrace_output* numbers) const override;
    void load(int64_t position, const headrace_input* numbers) override;

  private:
    const Facts& facts() const { return file_->facts; }
    void check_whole() const {
        require(!stream_.state().is_broken, HEADRACE_FAILED, "stream: a call that failed left it between two steps");
    }
    void check_density(const char* what) const {
        require(facts().has_density, HEADRACE_NO_SUCH_VERB, what,
                ": expected a density, got a transform alone, which has none");
    }
    int64_t steps_of(const char* name, int64_t rows) const;
    void check_finite(const ArrayView& x, int64_t steps) const;
    void check_frames(int64_t steps) const;

    std::shared_ptr<const SequenceFile<T>> file_;
    ChainStream<T> stream_;
};

template <class T>
int64_t StreamOf<T>::steps_of(const char* name, int64_t rows) const {
    const int64_t own = stream_.rows();
    require(rows % own == 0, HEADRACE_BAD_ARGUMENT, name, ": expected as many steps in each of ", own,
            " sequences, got ", rows, " rows in all");
    return rows / own;
}

template <class T>
void StreamOf<T>::check_finite(const ArrayView& x, int64_t steps) const {
    for (int64_t i = 0; i < stream_.rows() * steps; ++i)
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
    const int64_t hop = facts().hop, last = position() + steps, least = (last + hop - 1) / hop;
    const int64_t known = stream_.first_frame() + stream_.n_frames();
    require(known >= least, HEADRACE_BAD_ARGUMENT, "covariates: expected at least ", least, " frames for ", last,
            " steps at ", hop, " steps a frame, got ", known);
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
    stream_.push({x.data, steps * x.row_stride, x.row_stride, x.column_stride, x.is_double}, steps, to_scores,
                 to_latent);
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
    require(steps <= most_drawn_steps - position(), HEADRACE_BAD_ARGUMENT,
            "x: expected at most 2^32 steps with those before, got ", position() + steps);
    check_frames(steps);
    Result<T> result("x", &x, x.rows, facts().features);
    stream_.pull(seed, steps, result.values());
    result.finish();
}

template <class T>
void StreamOf<T>::extend(int64_t frames, const headrace_input* frames_given) {
    const int64_t n = facts().covariates;
    require(n > 0, HEADRACE_NO_SUCH_VERB, "flow: expected one that takes covariates, got one that takes none");
    const headrace_input& covariates = existing(frames_given, "covariates", "frames");
    check_array("covariates", covariates, n, HEADRACE_BAD_ARGUMENT);
    require(frames >= 0 && (covariates.rows == frames || covariates.rows == rows() * frames), HEADRACE_BAD_ARGUMENT,
            "covariates: expected ", frames, " rows for all sequences, or ", rows() * frames, ", got ",
            covariates.rows);
    const ArrayView given = opened("covariates", covariates);
    // Frames of the past, which no later step needs, are removed.
    const int64_t known = stream_.n_frames();
    const int64_t old = std::min(known, position() / facts().hop - stream_.first_frame()), kept = known - old;
    const int64_t apart = covariates.rows == frames ? 0 : frames;
    std::vector<T> all;
    all.reserve(size_t(rows() * (kept + frames) * n));
    for (int64_t r = 0; r < rows(); ++r) {
        const T* const own = stream_.frames().data() + (r * known + old) * n;
        all.insert(all.end(), own, own + kept * n);
        for (int64_t f = 0; f < frames; ++f)
            for (int64_t c = 0; c < n; ++c) {
                const double value = value_at(given, r * apart + f, c);
                require(std::isfinite(value), HEADRACE_BAD_ARGUMENT,
                        "covariates: expected finite numbers, got a NaN or an infinity");
                all.push_back(T(value));
            }
    }
    stream_.set_frames(std::move(all), stream_.first_frame() + old, kept + frames);
}

template <class T>
std::unique_ptr<SequenceStream> StreamOf<T>::copies(int64_t n) const {
    check_whole();
    require(n >= 1 && n < most_samples / rows(), HEADRACE_BAD_ARGUMENT,
            "n: expected at least 1, and fewer than 2^31 sequences in all, got ", n);
    return std::make_unique<StreamOf>(file_, stream_.copies(n));
}

template <class T>
void StreamOf<T>::store(const headrace_output* given) const {
    check_whole();
    const int64_t all = numbers();
    Result<T> result("numbers", &existing(given, "numbers", "memory"), rows(), all);
    T* const to = result.values();
    int64_t begin = 0;
    for (size_t i = 0; i < stream_.state().links.size(); ++i) {
        const int64_t n = stream_.state().numbers(i);
        std::vector<T> own(size_t(rows() * n));
        stream_.state().store(i, own.data());
        for (int64_t r = 0; r < rows(); ++r) std::copy_n(own.data() + r * n, n, to + r * all + begin);
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
    require(given.rows == rows(), HEADRACE_BAD_ARGUMENT, "numbers: expected ", rows(), " rows, got ", given.rows);
    const ArrayView from = opened("numbers", given);
    for (int64_t r = 0; r < rows(); ++r)
        for (int64_t i = 0; i < given.columns; ++i)
            require(holds<T>(value_at(from, r, i)), HEADRACE_BAD_ARGUMENT,
                    "numbers: expected finite numbers that the flow's dtype holds, got another in row ", r, ", column ",
                    i);
    ChainState<T>& state = stream_.state();
    state.is_broken = true;
    int64_t begin = 0;
    for (size_t link = 0; link < state.links.size(); ++link) {
        const int64_t n = state.numbers(link);
        std::vector<T> own;
        own.reserve(size_t(rows() * n));
        for (int64_t r = 0; r < rows(); ++r)
            for (int64_t i = 0; i < n; ++i) own.push_back(T(value_at(from, r, begin + i)));
        state.load(link, own.data(), position);
        begin += n;
    }
    state.is_broken = false;
    stream_.set_frames({}, facts().covariates > 0 ? position / facts().hop : 0, 0);
}

template <class T>
class SequenceModelOf final : public SequenceModel {
  public:
    explicit SequenceModelOf(detail::Container& file) : file_(std::make_shared<const SequenceFile<T>>(file)) {}

    const Facts& facts() const override { return file_->facts; }
    bool is_double() const override { return std::is_same_v<T, double>; }
    std::unique_ptr<SequenceStream> stream(int64_t rows, const headrace_input* context) const override {
        require(rows >= 1 && rows < most_samples, HEADRACE_BAD_ARGUMENT,
                "rows: expected at least 1 and below 2^31, got ", rows);
        auto state = std::make_shared<ChainState<T>>(file_->chain->state(rows));
        return std::make_unique<StreamOf<T>>(
            file_, ChainStream<T>(file_->chain, file_->weights, std::move(state), context_of(rows, context)));
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
                if (!file_->context_mean.empty())
                    value = (value - file_->context_mean[size_t(c)]) / file_->context_std[size_t(c)];
                own.push_back(T(value));
            }
        return own;
    }

    std::shared_ptr<const SequenceFile<T>> file_;
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
