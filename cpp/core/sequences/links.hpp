// Transforms over time, and transforms of the values of a step, as links of a chain.
#pragma once

#include <memory>
#include <optional>
#include <type_traits>
#include <variant>
#include <vector>

#include "adaptive.hpp"
#include "gradient.hpp"
#include "transform.hpp"

namespace headrace {

// An array in float32 and an array in float64; a program uses the array of its dtype.
struct Room {
    std::vector<float> single;
    std::vector<double> wide;

    template <class G>
    G* of(int64_t n) {
        if constexpr (std::is_same_v<G, double>) {
            wide.resize(size_t(n));
            return wide.data();
        } else {
            single.resize(size_t(n));
            return single.data();
        }
    }
};

// Memory of one link in a call: its result, and its input in another dtype or scale.
template <class T>
struct LinkRoom {
    Room result;
    std::vector<T> work;
    std::vector<T> sizes;  // running sizes (rows, steps, columns) of an adaptive prediction, for the network at its
                           // latent side
};

// A contiguous array of steps, (rows, steps, features). Transforms without parameters compute in the dtype of their
// input, so that data far from zero stay precise in a chain of float.
struct StepValues {
    const void* data = nullptr;
    bool is_double = false;

    template <class G>
    static StepValues of(const G* data) {
        return {data, std::is_same_v<G, double>};
    }
    ArrayView rows(int64_t columns) const {
        const int64_t size = is_double ? sizeof(double) : sizeof(float);
        return {static_cast<const char*>(data), columns * size, size, is_double, nullptr};
    }
    SequenceView sequences(int64_t steps, int64_t columns) const {
        const ArrayView own = rows(columns);
        return {own.data, steps * own.row_stride, own.row_stride, own.column_stride, is_double};
    }
};

// Arguments of a call of a chain on steps of its sequences.
template <class T>
struct LinkCall {
    bool inverse;  // true: from data to latent
    int64_t rows, steps, features;
    const T* context;  // standardised context (rows, columns); null: none
    const T* frames;   // covariates (rows, frames, columns), or null
    int64_t first_frame, n_frames;

    int64_t values() const { return rows * steps * features; }
};

// The values as an array of T: unchanged, or converted in memory of the call.
template <class T>
const T* values_in(StepValues given, int64_t n, std::vector<T>& work) {
    if (given.is_double == std::is_same_v<T, double>) return static_cast<const T*>(given.data);
    const auto convert = [&](const auto* from) { work.assign(from, from + n); };
    if (given.is_double) {
        convert(static_cast<const double*>(given.data));
    } else {
        convert(static_cast<const float*>(given.data));
    }
    return work.data();
}

template <class T>
struct LinkState {
    std::optional<CausalStreams<T>> network;
    std::vector<T> past;  // past of a linear prediction, (rows, order, features) from old to new, or state of an
                          // adaptive prediction
};

// The filter of a linear prediction, and the gain of its residuals.
template <class T>
struct PredictionFilter {
    std::vector<T> coefficients;        // (columns, order), from the oldest step on
    std::vector<T> gain;                // gain of each column
    double log_gain = 0.0;              // the sum of the logarithms of all columns' gains
    std::vector<double> reflections{};  // reflection coefficients (columns, order), where gradients by them are needed
};

// The parameters of a link, in the form that calls read.
template <class T>
struct LinkWeights {
    using Other = std::conditional_t<std::is_same_v<T, float>, double, float>;

    Aligned<T> network;
    const uint32_t* pairs = nullptr;            // the network's weights in bf16, as pairs
    typename Program<T>::Weights program;       // weights of a transform of rows, or of the inner flow
    typename Program<Other>::Weights in_other;  // weights of a transform of rows without parameters
    PredictionFilter<T> filter;
};

// The numbers of columns of a link's context and covariates, and of steps of a frame of covariates.
struct LinkSides {
    int64_t context = 0, covariates = 0, hop = 1;
};

// Gradients by the results of a link; null stands for zero.
template <class T>
struct LinkCotangent {
    StepValues value;            // (rows, steps, features)
    const T* log_det = nullptr;  // (rows, steps)
    const T* sizes = nullptr;    // gradients by running sizes (rows, steps, columns) of an adaptive prediction
};

// Arrays (rows, steps, features) from which the gradient by the parameters of a linear prediction is computed, as a sum
// over steps. `by_residual` are gradients by residuals before the gain, which are the filter's output from data to
// latent values, and its input from latent values to data.
template <class T>
struct PredictionTerms {
    size_t link = 0;
    std::vector<T> by_value, by_residual;
    StepValues x, z;
};

// Destinations of a link's gradients; null where a gradient is not needed.
template <class T>
struct LinkGradient {
    T* weights = nullptr;
    T* context = nullptr;
    T* frames = nullptr;
    PredictionTerms<T>* terms = nullptr;
};

// A transform of rows as a link. `other` is the transform in the second dtype, if it has no parameters.
template <class T>
class StepsLink {
  public:
    using Other = typename LinkWeights<T>::Other;

    StepsLink(std::shared_ptr<const Program<T>> own, std::shared_ptr<const Program<Other>> other)
        : own_(std::move(own)), other_(std::move(other)) {}

    LinkSides sides() const { return {}; }
    size_t n_weights() const { return own_->n_weights(); }
    // The weights of a link; null: the weights that the program has.
    LinkWeights<T> weights_of(const T* parameters) const;
    LinkState<T> state(int64_t) const { return {}; }
    StepValues run(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given, T* log_det,
                   LinkState<T>* state, LinkRoom<T>& room) const;
    // Whether `back` needs the result of `run`.
    bool needs_result(bool, bool) const { return false; }
    // The gradient by the given steps, in memory of `room`. `result` is the result of `run` for these steps, where
    // `back` needs it.
    StepValues back(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given, StepValues result,
                    const LinkCotangent<T>& from, const LinkGradient<T>& to, LinkRoom<T>& room) const;

  private:
    bool is_in_other(StepValues given) const { return other_ && given.is_double != std::is_same_v<T, double>; }
    template <class G>
    StepValues back_in(const Program<G>& program, const typename Program<G>::Weights& weights, const LinkCall<T>& call,
                       StepValues given, const LinkCotangent<T>& from, G* by_weights, LinkRoom<T>& room) const;
    template <class G>
    StepValues run_in(const Program<G>& program, const typename Program<G>::Weights& weights, const LinkCall<T>& call,
                      StepValues given, T* log_det, LinkRoom<T>& room) const;

    std::shared_ptr<const Program<T>> own_;
    std::shared_ptr<const Program<Other>> other_;
};

// A linear prediction as a link; reflections.hpp computes its filter from its parameters.
template <class T>
class PredictionLink {
  public:
    PredictionLink(int64_t columns, int64_t order) : columns_(columns), order_(order) {}

    LinkSides sides() const { return {}; }
    size_t n_weights() const { return size_t(columns_ * order_); }
    bool needs_result(bool, bool with_weights) const { return with_weights; }
    LinkState<T> state(int64_t rows) const { return {std::nullopt, std::vector<T>(size_t(rows * order_ * columns_))}; }
    StepValues run(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given, T* log_det,
                   LinkState<T>* state, LinkRoom<T>& room) const;
    StepValues back(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given, StepValues result,
                    const LinkCotangent<T>& from, const LinkGradient<T>& to, LinkRoom<T>& room) const;

  private:
    void keep(const LinkCall<T>& call, const T* x, std::vector<T>& past) const;

    int64_t columns_, order_;
};

// A link that is a causal network together with the map or the inner flow whose parameters the network computes.
template <class T>
class NetworkLink {
  public:
    // With is_rounded, the weights of products are rounded to bf16. With reads_sizes, the network's covariates are the
    // running sizes of the adaptive prediction at its data side, from the chain and not from a caller.
    NetworkLink(std::shared_ptr<const CausalTransform<T>> transform, bool is_rounded, bool reads_sizes = false)
        : transform_(std::move(transform)), is_rounded_(is_rounded), reads_sizes_(reads_sizes) {}

    const CausalTransform<T>& transform() const { return *transform_; }
    bool reads_sizes() const { return reads_sizes_; }
    LinkSides sides() const;
    // The number of weights of the network and of the inner flow.
    size_t n_weights() const;
    LinkWeights<T> weights_of(const T* parameters) const;
    LinkWeights<T> weights_of(const T* network, typename Program<T>::Weights inner) const;
    LinkState<T> state(int64_t rows) const { return {transform_->streams(rows), {}}; }
    StepValues run(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given, T* log_det,
                   LinkState<T>* state, LinkRoom<T>& room) const;
    StepValues back(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given, StepValues result,
                    const LinkCotangent<T>& from, const LinkGradient<T>& to, LinkRoom<T>& room) const;
    bool runs_at_once(bool inverse) const { return inverse == transform_->reads_data(); }
    bool needs_result(bool inverse, bool) const { return !runs_at_once(inverse); }
    bool joins_base(bool inverse) const { return runs_at_once(inverse) && !transform_->inner(); }
    // `run` and `back` in one call, where a map computes all steps at once and `joins_base` is true: computes latent
    // steps in `z`, adds their log-derivatives to log_det, and returns the gradient from gradients by log densities
    // under a standard base.
    StepValues back_from_base(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given, Base base,
                              const T* by_log_prob, const LinkGradient<T>& to, T* log_det, LinkRoom<T>& z,
                              LinkRoom<T>& room) const;
    // Computes outputs of the network (rows, steps, outputs) from values of the side that it reads.
    void outputs(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given, LinkState<T>* state,
                 T* raw) const;

  private:
    SequenceCall<T> call_of(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given,
                            LinkState<T>* state) const;

    StepValues back_of_inner(const LinkCall<T>& call, const LinkWeights<T>& weights, const T* given,
                             SequenceCall<T>& network, SequenceGradient<T>& gradient,
                             const LinkCotangent<T>& from) const;

    std::shared_ptr<const CausalTransform<T>> transform_;
    bool is_rounded_, reads_sizes_;
};

// A backward-adaptive linear prediction, which has no parameters.
template <class T>
class AdaptiveLink {
  public:
    explicit AdaptiveLink(const AdaptiveOptions& options) : filter_(options) {}

    const AdaptiveFilter& filter() const { return filter_; }
    LinkSides sides() const { return {}; }
    size_t n_weights() const { return 0; }
    LinkWeights<T> weights_of(const T*) const { return {}; }
    bool needs_result(bool, bool) const { return false; }
    LinkState<T> state(int64_t rows) const { return {std::nullopt, filter_.begin<T>(rows)}; }
    StepValues run(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given, T* log_det,
                   LinkState<T>* state, LinkRoom<T>& room) const;
    // The backward pass, which exists only from data to latent.
    StepValues back(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given, StepValues result,
                    const LinkCotangent<T>& from, const LinkGradient<T>& to, LinkRoom<T>& room) const;

  private:
    AdaptiveFilter filter_;
};

template <class T>
using SequenceLink = std::variant<StepsLink<T>, PredictionLink<T>, NetworkLink<T>, AdaptiveLink<T>>;

#define HR_LINKS_OF(prefix, T)               \
    prefix template class StepsLink<T>;      \
    prefix template class PredictionLink<T>; \
    prefix template class NetworkLink<T>;    \
    prefix template class AdaptiveLink<T>;
HR_LINKS_OF(extern, float)
HR_LINKS_OF(extern, double)

}  // namespace headrace
