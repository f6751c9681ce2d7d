// Sequences of any lengths in one call: in blocks of similar lengths, whose steps are computed range by range.
#pragma once

#include <cstdint>
#include <exception>
#include <vector>

#include "chain_stream.hpp"

namespace headrace {

constexpr int64_t block_panel = 48;  // the least number of sequences in a block of many long sequences: one panel of
                                     // streams

// A block of sequences that are computed together, and the number of steps of the longest sequence.
struct SequenceBlock {
    std::vector<int64_t> index;
    int64_t steps;

    int64_t rows() const { return int64_t(index.size()); }
};

// The number of rows of a block of sequences with `steps` steps, and the number of steps of a range of a block, which
// limit the memory of a call.
inline int64_t block_rows(int64_t steps, int64_t features) {
    return std::max(block_panel, most_chunk_values / std::max<int64_t>(1, steps * features));
}
inline int64_t range_steps(int64_t rows, int64_t features) {
    return std::max<int64_t>(1, most_chunk_values / std::max<int64_t>(1, rows * features));
}

// The error for a step with a value that is not finite, or outside of the range of a dtype.
class RefusedStep final : public std::exception {
  public:
    RefusedStep(int64_t sequence_, int64_t step_, std::vector<double> values_, bool is_finite_)
        : sequence(sequence_), step(step_), values(std::move(values_)), is_finite(is_finite_) {}
    const char* what() const noexcept override { return "a step with a value that its dtype does not hold"; }

    int64_t sequence, step;
    std::vector<double> values;
    bool is_finite;
};

// Values of sequences (steps, columns), in the caller's memory.
struct GivenSequences {
    int64_t columns = 0;
    std::vector<SequenceView> rows;  // sequences, whose views have no row strides
    std::vector<int64_t> lengths;

    std::vector<SequenceBlock> blocks() const;
    // All sequences as one block; no block where there are no sequences.
    std::vector<SequenceBlock> whole() const;
    // Steps [begin, end) of a block, (rows, steps, columns), in double if one of its sequences is in double, with zeros
    // after the end of a sequence.
    StepValues packed(const SequenceBlock& block, int64_t begin, int64_t end, Room& room) const;
    // Steps as in `packed`; throws RefusedStep for a value that is not finite, or beyond `most`.
    StepValues checked(const SequenceBlock& block, int64_t begin, int64_t end, double most, Room& room) const;
    // Sets values (rows, steps) of steps after the end of a sequence to zero.
    template <class G>
    void clear_beyond(const SequenceBlock& block, int64_t begin, int64_t end, G* values) const {
        for (int64_t r = 0; r < block.rows(); ++r)
            for (int64_t t = std::max(begin, lengths[size_t(block.index[size_t(r)])]); t < end; ++t)
                values[r * (end - begin) + t - begin] = G(0);
    }
};

// The sum of contiguous values, computed as in NumPy: by pairwise summation with 8 partial sums.
template <class G>
G pairwise_sum(const G* values, int64_t n) {
    if (n < 8) {
        G sum = G(0);
        for (int64_t i = 0; i < n; ++i) sum += values[i];
        return sum;
    }
    if (n > 128) {
        const int64_t half = n / 2 - n / 2 % 8;
        return pairwise_sum(values, half) + pairwise_sum(values + half, n - half);
    }
    G sums[8];
    std::copy_n(values, 8, sums);
    int64_t i = 8;
    for (; i < n - n % 8; i += 8)
        for (int64_t j = 0; j < 8; ++j) sums[j] += values[i + j];
    G sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    for (; i < n; ++i) sum += values[i];
    return sum;
}

}  // namespace headrace
