#include "muon.hpp"

#include <algorithm>

#include "isa.hpp"
#include "threads.hpp"

namespace headrace {
namespace {

constexpr int64_t task_products = 1 << 16;  // approximate number of multiply-adds of a task, which takes some
                                            // microseconds

// The number of multiply-adds of a step for a block.
int64_t products_of(const MuonBlock& b) {
    const int64_t side = std::min(b.rows, b.columns), longer = std::max(b.rows, b.columns);
    return 2 * side * side * longer + (4 * orthogonal_steps - 3) * side * side * side;
}

// Offsets in scratch of n rows of the given length.
std::vector<uint32_t> multiples(int n, int length) {
    std::vector<uint32_t> all(size_t(n), 0);
    for (int i = 0; i < n; ++i) all[size_t(i)] = uint32_t(i * padded_row(length));
    return all;
}

}  // namespace

template <class T>
Muon<T>::Muon(std::shared_ptr<Program<T>> program, double momentum, const AdamOptions& options)
    : Adam<T>(std::move(program), options), momentum_(momentum) {
    const Structure& structure = this->program().structure();
    is_weight_ = structure.is_weight();
    std::vector<int64_t> begins;  // ascending, because layers, and blocks of a layer, are in order
    int64_t products = 0;
    for (WeightBlock& given : structure.blocks()) {
        const int rows = int(given.row.size()), columns = given.columns, side = std::min(rows, columns);
        blocks_.push_back({given.begin, std::move(given.row), multiples(rows, columns), multiples(side, side), {}});
        const Block& block = blocks_.back();
        const bool is_pinned = std::any_of(block.row.begin(), block.row.end(), [&](uint32_t row) {
            const auto first = is_weight_.begin() + block.begin + row;
            return std::find(first, first + columns, 0) != first + columns;
        });
        blocks_.back().view = {block.row.data(),
                               rows,
                               columns,
                               block.x_row.data(),
                               block.side_row.data(),
                               is_pinned ? is_weight_.data() + block.begin : nullptr};
        scratch_ = std::max(scratch_, muon_scratch(block.view));
        begins.push_back(block.begin + block.row.front());
        if (tasks_.empty() || products >= task_products) {
            tasks_.push_back({blocks_.size() - 1, 0});
            products = 0;
        }
        products += products_of(block.view);
        tasks_.back().last = blocks_.size();
    }
    for (const WeightRange& part : structure.parts()) {
        const auto first = std::lower_bound(begins.begin(), begins.end(), part.begin);
        if (first != begins.end() && *first < part.end) continue;  // outside of its blocks, the part has only padding
        for (const Stretch& one : this->stretches())
            if (one.begin >= part.begin && one.begin < part.end) by_adam_.push_back(one);
    }
}

template <class T>
void Muon<T>::move(const AdamStep<T>& step, double learning_rate, const T* gradient, T* weights) {
    const KernelsOf<T>& kernels = kernels_of<T>(*active_isa().table);
    const MuonStep<T> s{step, T(momentum_), T(1 - momentum_), T(update_norm * learning_rate)};
    const auto move_block = [&](const Block& block) {
        const int64_t at = block.begin;
        T* const average = this->running_mean() ? this->running_mean() + at : nullptr;
        kernels.muon(s, block.view, gradient + at, weights + at, this->mean() + at, average,
                     thread_scratch<T>(size_t(scratch_)));
    };
    const size_t n = tasks_.size();
    parallel_for(int64_t(n + by_adam_.size()), [&](int64_t i) {
        if (size_t(i) < n) {
            for (size_t k = tasks_[size_t(i)].first; k < tasks_[size_t(i)].last; ++k) move_block(blocks_[k]);
            return;
        }
        const Stretch& one = by_adam_[size_t(i) - n];
        Adam<T>::move(step, one, gradient, weights);
        kernels.flush(this->mean() + one.begin, one.count);
        kernels.flush(this->square() + one.begin, one.count);
    });
}

template <class T>
void muon_update(const T* gradient, int rows, int columns, double momentum, T* mean, T* update) {
    const std::vector<uint32_t> row = multiples(rows, columns),
                                side = multiples(std::min(rows, columns), std::min(rows, columns));
    const MuonBlock block{row.data(), rows, columns, row.data(), side.data(), nullptr};
    const int64_t length = padded_row(columns), size = rows * length;  // padded, because the kernel reads whole vectors
    const auto padded = [&] { return aligned_zeros<T>(size_t(size)); };
    const Aligned<T> g = padded(), m = padded(), w = padded();
    const auto copy = [&](const T* from, int64_t from_row, T* to, int64_t to_row) {
        for (int64_t i = 0; i < rows; ++i) std::copy_n(from + i * from_row, columns, to + i * to_row);
    };
    copy(gradient, columns, g.get(), length);
    copy(mean, columns, m.get(), length);
    AdamStep<T> step{};
    step.shrink = step.gradient_scale = 1;
    const MuonStep<T> s{step, T(momentum), T(1 - momentum), T(-update_norm)};
    kernels_of<T>(*active_isa().table)
        .muon(s, block, g.get(), w.get(), m.get(), nullptr, thread_scratch<T>(size_t(muon_scratch(block))));
    copy(m.get(), length, mean, columns);
    copy(w.get(), length, update, columns);
}

template void muon_update(const float*, int, int, double, float*, float*);
template void muon_update(const double*, int, int, double, double*, double*);
template class Muon<float>;
template class Muon<double>;

}  // namespace headrace
