// Sequences that proceed step by step: a chain with its weights, a context, frames of covariates, and a state.
#pragma once

#include <limits>
#include <memory>
#include <vector>

#include "chain.hpp"

namespace headrace {

// Whether a value is finite when converted to T.
template <class T>
bool holds(double value) {
    return value >= -double(std::numeric_limits<T>::max()) && value <= double(std::numeric_limits<T>::max());
}

// The largest number of values of steps that are computed at a time, which limits the memory of a call.
constexpr int64_t most_chunk_values = 1 << 18;
// The largest number of values for which the memory of a call is kept for the next call.
constexpr int64_t most_kept_values = 1 << 14;

template <class T>
class ChainStream {
  public:
    // A stream with a context (rows, columns), as networks read it; empty: the chain takes no context.
    ChainStream(std::shared_ptr<const SequenceChain<T>> chain, std::shared_ptr<const ChainWeights<T>> weights,
                std::shared_ptr<ChainState<T>> state, std::vector<T> context)
        : chain_(std::move(chain)),
          weights_(std::move(weights)),
          state_(std::move(state)),
          context_(std::move(context)) {}

    const SequenceChain<T>& chain() const { return *chain_; }
    int64_t rows() const { return state_->rows; }
    int64_t position() const { return state_->position; }
    ChainState<T>& state() { return *state_; }
    const ChainState<T>& state() const { return *state_; }
    const std::shared_ptr<ChainState<T>>& shared_state() const { return state_; }

    // Sets frames of covariates (rows, frames, columns); the first frame belongs to step first * hop.
    void set_frames(std::vector<T> frames, int64_t first, int64_t n) {
        frames_ = std::move(frames);
        first_frame_ = first;
        n_frames_ = n;
    }
    const std::vector<T>& frames() const { return frames_; }
    int64_t first_frame() const { return first_frame_; }
    int64_t n_frames() const { return n_frames_; }

    // Appends new steps (rows, steps, features), in either dtype. The results log_prob (rows, steps) and z (rows,
    // steps, features) may be null.
    void push(const SequenceView& x, int64_t steps, T* log_prob, T* z);
    // Draws the next steps (rows, steps, features) of the samples `sample`, sample + 1, ....
    void pull(uint64_t seed, int64_t steps, T* x, int64_t sample = 0);
    // A stream with n copies of each row and its past: row j * rows + r is copy j of row r.
    ChainStream copies(int64_t n) const;

  private:
    template <class F>
    void for_chunks(int64_t steps, const F& f);
    StepValues part(const SequenceView& x, int64_t begin, int64_t end);
    const T* run(bool inverse, StepValues given, int64_t steps);
    void put(const T* from, int64_t columns, int64_t steps, int64_t begin, int64_t end, T* to) const;

    std::shared_ptr<const SequenceChain<T>> chain_;
    std::shared_ptr<const ChainWeights<T>> weights_;
    std::shared_ptr<ChainState<T>> state_;
    std::vector<T> context_, frames_;
    int64_t first_frame_ = 0, n_frames_ = 0;
    ChainNoise<T> noise_;
    Room given_;
    ChainRoom<T> room_;
};

extern template class ChainStream<float>;
extern template class ChainStream<double>;

}  // namespace headrace
