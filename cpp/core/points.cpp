#include "points.hpp"

#include <algorithm>
#include <atomic>
#include <new>
#include <numeric>
#include <stdexcept>

#include "blocks.hpp"
#include "isa.hpp"
#include "threads.hpp"

namespace headrace {
namespace {

// The number of rows of a tile, for which a tile and its image fit in the L1 cache; a block has a whole number of
// tiles.
int tile_rows_for(int features) {
    return features <= 4 ? 512 : features <= 16 ? 192 : 96;
}

template <class T>
std::vector<T> narrowed(const std::vector<double>& v) {
    return std::vector<T>(v.begin(), v.end());
}

}  // namespace

template <class T>
Points<T>::Points(const ArrayView& rows, int64_t count, int features, const T* weights, bool keeps_log_jacobian)
    : count_(count), features_(features), tile_rows_(tile_rows_for(features)) {
    if (count < 0 || features < 1) throw std::invalid_argument("x: expected (rows, features)");
    const int64_t padded = (count + tile_rows_ - 1) / tile_rows_ * tile_rows_;
    z_ = aligned_zeros<T>(size_t(padded * features));
    if (keeps_log_jacobian) log_jacobian_ = aligned_zeros<double>(size_t(padded));
    if (weights) {
        weights_ = aligned_zeros<T>(size_t(padded));
        std::copy_n(weights, count, weights_.get());
    }
    for (int64_t block = 0; block < blocks(); ++block) {
        const int64_t first = block * ascent_block_rows, rows = std::min<int64_t>(ascent_block_rows, count - first);
        const double sum = weights ? std::accumulate(weights + first, weights + first + rows, 0.0) : double(rows);
        total_ += sum;
        if (is_checked(block)) checked_total_ += sum;
    }
    const KernelsOf<T>& kernels = kernels_of<T>(*active_isa().table);
    parallel_for((count + ascent_block_rows - 1) / ascent_block_rows, [&](int64_t block) {
        const int64_t row = block * ascent_block_rows, n = std::min<int64_t>(ascent_block_rows, count - row);
        kernels.ascent_load(rows, row, n, features_, tile_rows_, z_.get() + row * features_);
    });
}

template <class T>
typename Points<T>::Sums Points<T>::step(const PointsStep& step, bool wants_sums) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const size_t n = size_t(features_);
    if (step.bend.size() != n || step.center.size() != n || step.square.size() != n || step.shift.size() != n ||
        step.order.size() != n || !blocks_fit(step.blocks, n, step.matrix.size()) ||
        step.next_square.size() != step.next_center.size() ||
        (!step.next_center.empty() && step.next_center.size() != n))
        throw std::invalid_argument("step: expected numbers for each feature");
    std::vector<int> slot(n, -1);
    for (size_t k = 0; k < n; ++k) {
        const int from = step.order[k];
        if (from < 0 || size_t(from) >= n || slot[size_t(from)] >= 0)
            throw std::invalid_argument("order: expected each feature once");
        slot[size_t(from)] = int(k);
    }
    const auto bend = narrowed<T>(step.bend), center = narrowed<T>(step.center), square = narrowed<T>(step.square);
    const auto matrix = narrowed<T>(step.matrix), shift = narrowed<T>(step.shift);
    const auto next_center = narrowed<T>(step.next_center), next_square = narrowed<T>(step.next_square);
    const auto [row, first] = block_rows(step.blocks);
    const std::vector<T> ones(cache_line / sizeof(T), T(1));
    AscentStep<T> s{};
    s.features = features_;
    s.tile_rows = tile_rows_;
    s.bend = bend.data();
    s.center = center.data();
    s.square = square.data();
    s.log_scale = step.log_scale;
    s.slot = slot.data();
    s.matrix = matrix.data();
    s.shift = shift.data();
    s.row = row.data();
    s.first = first.data();
    s.blocks = int(step.blocks.size());
    s.next_center = next_center.empty() ? nullptr : next_center.data();
    s.next_square = next_square.empty() ? nullptr : next_square.data();
    s.ones = ones.data();

    const KernelsOf<T>& kernels = kernels_of<T>(*active_isa().table);
    const int64_t blocks = this->blocks();
    const size_t sums_of_block = size_t(ascent_sums_of(features_)), scratch_size = size_t(ascent_scratch(s));
    std::vector<double> partial(wants_sums ? size_t(blocks) * sums_of_block : 0);
    thread_scratch<T>(scratch_size);  // allocates here, where an error can be reported
    std::atomic<bool> out_of_memory{false};
    parallel_for(blocks, [&](int64_t block) {
        T* scratch;
        try {
            scratch = thread_scratch<T>(scratch_size);
        } catch (const std::bad_alloc&) {
            out_of_memory = true;
            return;
        }
        const int64_t first = block * ascent_block_rows, rows = std::min<int64_t>(ascent_block_rows, count_ - first);
        kernels.ascent_block(s, z_.get() + first * features_, log_jacobian_ ? log_jacobian_.get() + first : nullptr,
                             weights_ ? weights_.get() + first : nullptr, rows,
                             wants_sums ? partial.data() + size_t(block) * sums_of_block : nullptr, scratch);
    });
    if (out_of_memory) throw std::bad_alloc();
    Sums sums;
    sums.all.assign(sums_of_block, 0.0);
    sums.checked.assign(sums_of_block, 0.0);
    if (wants_sums)
        for (int64_t block = 0; block < blocks; ++block)
            for (size_t i = 0; i < sums_of_block; ++i) {
                const double sum = partial[size_t(block) * sums_of_block + i];
                sums.all[i] += sum;
                if (is_checked(block)) sums.checked[i] += sum;
            }
    return sums;
}

template <class T>
T Points<T>::at(int64_t row, int feature) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return z_[size_t((row / tile_rows_ * features_ + feature) * tile_rows_ + row % tile_rows_)];
}

template <class T>
void Points<T>::values(T* out) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    const KernelsOf<T>& kernels = kernels_of<T>(*active_isa().table);
    parallel_for(blocks(), [&](int64_t block) {
        const int64_t row = block * ascent_block_rows, n = std::min<int64_t>(ascent_block_rows, count_ - row);
        kernels.ascent_store(z_.get() + row * features_, n, features_, tile_rows_, out + row * features_);
    });
}

template <class T>
void Points<T>::squares(double* out) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    parallel_for((count_ + tile_rows_ - 1) / tile_rows_, [&](int64_t tile) {
        const int64_t first = tile * tile_rows_, rows = std::min<int64_t>(tile_rows_, count_ - first);
        const T* z = z_.get() + first * features_;
        std::fill_n(out + first, rows, 0.0);
        for (int k = 0; k < features_; ++k, z += tile_rows_)
            for (int64_t r = 0; r < rows; ++r) out[first + r] += double(z[r]) * double(z[r]);
    });
}

template <class T>
void Points<T>::log_jacobian(double* out) const {
    if (!log_jacobian_) throw std::invalid_argument("log_jacobian: expected points that keep it");
    const std::lock_guard<std::mutex> lock(mutex_);
    std::copy_n(log_jacobian_.get(), count_, out);
}

template class Points<float>;
template class Points<double>;

}  // namespace headrace
