#include "ragged.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace headrace {
namespace {

template <class G>
void refuse(const GivenSequences& given, const SequenceBlock& block, int64_t begin, int64_t end, double most,
            const G* values) {
    const int64_t columns = given.columns, line = (end - begin) * columns;
    for (int64_t r = 0; r < block.rows(); ++r)
        for (int64_t i = 0; i < line; ++i) {
            const double value = values[r * line + i];
            if (std::fabs(value) <= most) continue;
            const G* const step = values + r * line + i / columns * columns;
            throw RefusedStep(block.index[size_t(r)], begin + i / columns, {step, step + columns},
                              std::isfinite(value));
        }
}

}  // namespace

std::vector<SequenceBlock> GivenSequences::blocks() const {
    std::vector<int64_t> order(lengths.size());
    std::iota(order.begin(), order.end(), int64_t(0));
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return lengths[size_t(a)] > lengths[size_t(b)]; });
    std::vector<SequenceBlock> all;
    for (auto first = order.begin(); first != order.end();) {
        const int64_t steps = lengths[size_t(*first)], left = order.end() - first;
        const auto last = first + std::min(left, block_rows(steps, columns));
        all.push_back({{first, last}, steps});
        first = last;
    }
    return all;
}

std::vector<SequenceBlock> GivenSequences::whole() const {
    if (lengths.empty()) return {};
    SequenceBlock block{std::vector<int64_t>(lengths.size()), *std::max_element(lengths.begin(), lengths.end())};
    std::iota(block.index.begin(), block.index.end(), int64_t(0));
    return {std::move(block)};
}

StepValues GivenSequences::packed(const SequenceBlock& block, int64_t begin, int64_t end, Room& room) const {
    const int64_t line = (end - begin) * columns;
    const auto pack = [&](auto* const to) {
        std::fill_n(to, block.rows() * line, 0);
        for (int64_t r = 0; r < block.rows(); ++r) {
            const auto i = size_t(block.index[size_t(r)]);
            load_steps(rows[i], 0, begin, std::min(end, lengths[i]), columns, to + r * line);
        }
        return StepValues::of(to);
    };
    const bool is_double =
        std::any_of(block.index.begin(), block.index.end(), [&](int64_t i) { return rows[size_t(i)].is_double; });
    return is_double ? pack(room.of<double>(block.rows() * line)) : pack(room.of<float>(block.rows() * line));
}

StepValues GivenSequences::checked(const SequenceBlock& block, int64_t begin, int64_t end, double most,
                                   Room& room) const {
    const StepValues values = packed(block, begin, end, room);
    if (values.is_double) {
        refuse(*this, block, begin, end, most, static_cast<const double*>(values.data));
    } else {
        refuse(*this, block, begin, end, most, static_cast<const float*>(values.data));
    }
    return values;
}

}  // namespace headrace
