// Offsets on the tape and in the sums of a causal network's backward pass (back.hpp), for sequences of one length, and
// offsets in the state of its sweep (sweep.hpp).
#pragma once

#include <cstddef>
#include <vector>

#include "back.hpp"
#include "sweep.hpp"

namespace headrace {

class CausalBackPlan {
  public:
    // A plan whose segments have a position for each step, or fewer if the tape would exceed `bytes`, for values of
    // `size` bytes.
    CausalBackPlan(const CausalNetwork& network, int64_t steps, int64_t bytes, std::size_t size);
    CausalBackPlan(const CausalBackPlan&) = delete;
    CausalBackPlan& operator=(const CausalBackPlan&) = delete;

    const CausalTapeShape& tape() const { return tape_; }
    const CausalSumsShape& sums() const { return sums_; }
    int64_t segments() const { return segments_; }
    // The number of values of layers at a border between segments.
    int64_t border() const { return border_; }

    // Writes sums to the gradient by weights [input][unit], which must be zero before.
    template <class T>
    void gradient_of(const double* sums, T* weights) const;

  private:
    void lay_out_tape(int64_t positions);
    void lay_out_sums();

    const CausalNetwork& network_;
    std::vector<CausalTapeLayer> tape_layers_;
    std::vector<CausalSumsLayer> sums_layers_;
    CausalTapeShape tape_{};
    CausalSumsShape sums_{};
    int64_t segments_ = 1, border_ = 0;
};

class CausalSweepPlan {
  public:
    explicit CausalSweepPlan(const CausalNetwork& network);
    CausalSweepPlan(const CausalSweepPlan&) = delete;
    CausalSweepPlan& operator=(const CausalSweepPlan&) = delete;

    const CausalSweepShape& shape() const { return shape_; }

    // Writes the transposed weights of the sweep to `turned`, which must be zero before.
    template <class T>
    void turn(const T* weights, T* turned) const;

  private:
    void lay_out_state();

    const CausalNetwork& network_;
    std::vector<CausalSweepLayer> layers_;
    CausalSweepShape shape_{};
};

}  // namespace headrace
