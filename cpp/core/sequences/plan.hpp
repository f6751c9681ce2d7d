// Where the way back through a causal network has its tape and its sums (back.hpp), for sequences of some length.
#pragma once

#include <cstddef>
#include <vector>

#include "back.hpp"

namespace headrace {

class CausalBackPlan {
  public:
    // Segments have as many positions as the steps, or fewer where their tape were larger than `bytes`, in numbers of
    // `size` bytes.
    CausalBackPlan(const CausalNetwork& network, int64_t steps, int64_t bytes, std::size_t size);
    CausalBackPlan(const CausalBackPlan&) = delete;
    CausalBackPlan& operator=(const CausalBackPlan&) = delete;

    const CausalTapeShape& tape() const { return tape_; }
    const CausalSumsShape& sums() const { return sums_; }
    int64_t segments() const { return segments_; }
    // Numbers of what layers keep at a border between segments.
    int64_t border() const { return border_; }

    // Sums to the gradient by weights [input][unit], which starts as zero.
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

}  // namespace headrace
