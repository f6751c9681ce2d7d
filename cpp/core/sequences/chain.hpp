// A chain over time: a base density of independent steps, links from latent to data, and the state of sequences between
// calls.
#pragma once

#include <memory>
#include <vector>

#include "links.hpp"

namespace headrace {

// Noise of a sample's steps 64 b to 64 b + 63 is in the base's own rows from (2^31 b + sample) 64 on: the steps of
// one block of all samples are one draw, and none depends on the number of samples.
constexpr int64_t noise_steps = 64, most_samples = int64_t(1) << 31, most_drawn_steps = int64_t(1) << 32;

// Parameters of all links and of the base.
template <class T>
struct ChainWeights {
    std::vector<LinkWeights<T>> links;
    typename Program<T>::Weights base;
};

// The common past of sequences that proceed together.
template <class T>
struct ChainState {
    int64_t rows = 0, position = 0;
    std::vector<LinkState<T>> links;
    bool is_broken = false;  // a call ended before all links were at one position

    // Values of a row's state in a link.
    int64_t numbers(size_t link) const;
    // Row i is row chosen[i].
    ChainState rows_of(const std::vector<int64_t>& chosen) const;
    // (rows, numbers(link)); `load` resumes at `position`, which is the same for all links.
    void store(size_t link, T* to) const;
    void load(size_t link, const T* from, int64_t position);
};

// Memory of calls, which grows with their steps.
template <class T>
struct ChainRoom {
    LinkRoom<T> links[2];
    std::vector<T> log_det, log_base;
    LinkRoom<T> steps;  // used where links process one step after another
};

// Gradients by the results of a block of steps; null for zero.
template <class T>
struct ChainCotangent {
    const T* value = nullptr;     // (rows, steps, features)
    const T* log_det = nullptr;   // (rows, steps)
    const T* log_prob = nullptr;  // (rows, steps): cotangents of log densities of steps, in place of the other two
};

// Gradients by the arguments of a chain; null for those that are not wanted.
template <class T>
struct ChainGradient {
    double* weights = nullptr;  // added: the base's, then each link's, without those of linear predictions
    T* context = nullptr;       // (rows, columns), as networks read it
    T* frames = nullptr;        // (rows, frames, columns)
    T* log_prob = nullptr;      // (rows, steps): the log densities, where the cotangent is by these
    bool with_inputs = true;    // whether `inputs` are wanted

    std::vector<LinkRoom<T>> memory;  // of the results below
    StepValues inputs{};              // (rows, steps, features)
    std::vector<PredictionTerms<T>> predictions;
};

template <class T>
class SequenceChain {
  public:
    // `base`: null for a transform alone.
    SequenceChain(int64_t features, std::vector<SequenceLink<T>> links, std::shared_ptr<const Program<T>> base);

    int64_t features() const { return features_; }
    // Columns that networks read, and the steps of a frame.
    int64_t context() const { return context_; }
    int64_t covariates() const { return covariates_; }
    int64_t hop() const { return hop_; }
    bool has_density() const { return base_ != nullptr; }
    const std::vector<SequenceLink<T>>& links() const { return links_; }
    // The base's, then each link's.
    size_t n_weights() const { return begin_.back(); }
    size_t begin_of(size_t link) const { return begin_[link]; }

    // `filters`: those of the linear predictions, in their order.
    std::shared_ptr<const ChainWeights<T>> weights_of(const T* parameters,
                                                      std::vector<PredictionFilter<T>> filters) const;

    ChainState<T> state(int64_t rows) const;

    // The other side of a block of steps, in memory of `room`, with the log-derivatives of steps (rows, steps) in
    // room.log_det. A state (null: before the first step) advances by these steps.
    StepValues run(const ChainWeights<T>& weights, const LinkCall<T>& call, StepValues given, ChainState<T>* state,
                   ChainRoom<T>& room) const;
    // From the first step on, and back.
    void back(const ChainWeights<T>& weights, const LinkCall<T>& call, StepValues given, const ChainCotangent<T>& from,
              ChainGradient<T>& to) const;
    // Log densities of n latent steps under the base.
    void log_base(const ChainWeights<T>& weights, const T* z, int64_t n, T* log_prob) const;
    // Rows of the base's endless sample of a seed.
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
    std::vector<size_t> begin_;  // start of each link's weights, and end of the last
    bool is_apart_ = false;      // towards data, each step goes through all links before the next step
};

// Noise of sequences with the weights of a chain. The last block is kept, because a stream's next call often needs it.
template <class T>
class ChainNoise {
  public:
    // Latent steps [begin, end) of samples [first, first + rows) of a seed: (rows, end - begin, features).
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
