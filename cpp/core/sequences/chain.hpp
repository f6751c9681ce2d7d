// A chain over time: a base density of independent steps and links from latent to data. A state keeps the past of
// sequences between calls.
#pragma once

#include <memory>
#include <vector>

#include "links.hpp"

namespace headrace {

// Noise of a sample's steps 64 b to 64 b + 63 is rows (2^31 b + sample) 64, ... of the base's sample, so that one draw
// gives a block of steps of all samples, and the noise of a sample does not depend on the number of samples.
constexpr int64_t noise_steps = 64, most_samples = int64_t(1) << 31, most_drawn_steps = int64_t(1) << 32;

// Parameters of all links and of the base.
template <class T>
struct ChainWeights {
    std::vector<LinkWeights<T>> links;
    typename Program<T>::Weights base;
};

// The state, after all steps so far, of sequences that proceed together.
template <class T>
struct ChainState {
    int64_t rows = 0, position = 0;
    std::vector<LinkState<T>> links;
    bool is_broken = false;  // a call ended before all links had the same position

    // The number of values in the state of one row in a link.
    int64_t numbers(size_t link) const;
    // A state whose row i is row chosen[i] of this state.
    ChainState rows_of(const std::vector<int64_t>& chosen) const;
    // Copy the state of a link, (rows, numbers(link)); `load` sets the position, which must be equal for all links.
    void store(size_t link, T* to) const;
    void load(size_t link, const T* from, int64_t position);
};

// Memory for calls, whose size grows with the number of steps.
template <class T>
struct ChainRoom {
    LinkRoom<T> links[2];
    std::vector<T> log_det, log_base;
    LinkRoom<T> steps;  // used where each step goes through all links before the next step
};

// Gradients by the results of a block of steps; null stands for zero.
template <class T>
struct ChainCotangent {
    const T* value = nullptr;     // (rows, steps, features)
    const T* log_det = nullptr;   // (rows, steps)
    const T* log_prob = nullptr;  // (rows, steps): gradients by log densities of steps, in place of `value` and
                                  // `log_det`
};

// Gradients by the arguments of a chain; null where a gradient is not needed.
template <class T>
struct ChainGradient {
    // Gradients by the weights of the base, then of each link except linear predictions, are added to `weights`.
    double* weights = nullptr;
    T* context = nullptr;     // gradients by the context (rows, columns), as networks read it
    T* frames = nullptr;      // gradients by covariates (rows, frames, columns)
    T* log_prob = nullptr;    // log densities (rows, steps), if gradients by them are given
    bool with_inputs = true;  // whether `inputs` are computed

    std::vector<LinkRoom<T>> memory;  // memory of the results below
    StepValues inputs{};              // (rows, steps, features)
    std::vector<PredictionTerms<T>> predictions;
};

template <class T>
class SequenceChain {
  public:
    // A chain of links; `base` is null for a transform alone.
    SequenceChain(int64_t features, std::vector<SequenceLink<T>> links, std::shared_ptr<const Program<T>> base);

    int64_t features() const { return features_; }
    // The numbers of columns of context and of covariates, and the number of steps of a frame.
    int64_t context() const { return context_; }
    int64_t covariates() const { return covariates_; }
    int64_t hop() const { return hop_; }
    bool has_density() const { return base_ != nullptr; }
    const std::vector<SequenceLink<T>>& links() const { return links_; }
    // The number of weights of the base and of all links.
    size_t n_weights() const { return begin_.back(); }
    size_t begin_of(size_t link) const { return begin_[link]; }

    // The weights of a chain; `filters` has the filters of the linear predictions, in order.
    std::shared_ptr<const ChainWeights<T>> weights_of(const T* parameters,
                                                      std::vector<PredictionFilter<T>> filters) const;

    ChainState<T> state(int64_t rows) const;

    // Runs a block of steps from data to latent values, or back, in memory of `room`, with log-derivatives (rows,
    // steps) in room.log_det. `state` advances by the steps; null: the steps are the first of their sequences.
    StepValues run(const ChainWeights<T>& weights, const LinkCall<T>& call, StepValues given, ChainState<T>* state,
                   ChainRoom<T>& room) const;
    // Runs the steps of sequences from their first step on, and then the backward pass.
    void back(const ChainWeights<T>& weights, const LinkCall<T>& call, StepValues given, const ChainCotangent<T>& from,
              ChainGradient<T>& to) const;
    // Computes the log densities of n latent steps under the base.
    void log_base(const ChainWeights<T>& weights, const T* z, int64_t n, T* log_prob) const;
    // Draws rows of the endless sample of a seed from the base.
    void draw(const ChainWeights<T>& weights, uint64_t seed, int64_t first_row, int64_t rows, T* z) const;

  private:
    bool reads_sizes(size_t link) const;
    LinkCall<T> with_sizes(const LinkCall<T>& call, const std::vector<T>& sizes, int64_t position) const;
    StepValues run_apart(const ChainWeights<T>& weights, const LinkCall<T>& call, StepValues given,
                         ChainState<T>& state, ChainRoom<T>& room) const;
    Base standard() const;
    StepValues base_back(const ChainWeights<T>& weights, const LinkCall<T>& call, StepValues z, const T* by_log_prob,
                         const ChainGradient<T>& to, LinkRoom<T>& room) const;

    int64_t features_, context_ = 0, covariates_ = 0, hop_ = 1;
    std::vector<SequenceLink<T>> links_;
    std::shared_ptr<const Program<T>> base_;
    std::vector<size_t> begin_;  // start of each link's weights, and the end of all weights
    bool is_apart_ = false;      // true: towards data, each step goes through all links before the next step
};

// Noise of sequences, drawn with the weights of a chain. The last block of noise is kept, because the next call of a
// stream often needs it.
template <class T>
class ChainNoise {
  public:
    // Writes latent steps [begin, end) of samples [first, first + rows) of a seed: (rows, end - begin, features).
    void take(const SequenceChain<T>& chain, const ChainWeights<T>& weights, uint64_t seed, int64_t first, int64_t rows,
              int64_t begin, int64_t end, T* to);

  private:
    bool is_filled_ = false;
    uint64_t seed_ = 0;
    int64_t first_ = 0, rows_ = 0, index_ = 0;
    std::vector<T> values_;
};

extern template struct ChainState<float>;
extern template struct ChainState<double>;
extern template class ChainNoise<float>;
extern template class ChainNoise<double>;
extern template class SequenceChain<float>;
extern template class SequenceChain<double>;

}  // namespace headrace
