#include "chain_stream.hpp"

#include <algorithm>
#include <cstring>

namespace headrace {
namespace {

template <class G>
void copy_steps(const SequenceView& x, int64_t rows, int64_t begin, int64_t end, int64_t features, G* to) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t t = begin; t < end; ++t) {
            const char* at = x.data + r * x.row_stride + t * x.step_stride;
            for (int64_t c = 0; c < features; ++c, at += x.column_stride) std::memcpy(to++, at, sizeof(G));
        }
}

template <class T>
std::vector<T> tiled(const std::vector<T>& values, int64_t n) {
    std::vector<T> all;
    all.reserve(values.size() * size_t(n));
    for (int64_t j = 0; j < n; ++j) all.insert(all.end(), values.begin(), values.end());
    return all;
}

}  // namespace

template <class T>
template <class F>
void ChainStream<T>::for_chunks(int64_t steps, const F& f) {
    const int64_t most = std::max<int64_t>(1, most_chunk_values / std::max<int64_t>(1, rows() * chain_->features()));
    for (int64_t begin = 0; begin < steps; begin += most) f(begin, std::min(steps, begin + most));
    state_->is_broken = false;
    if (rows() * steps * chain_->features() <= most_kept_values) return;
    given_ = {};
    room_ = {};
}

// Steps [begin, end) of x, in the dtype of x.
template <class T>
StepValues ChainStream<T>::part(const SequenceView& x, int64_t begin, int64_t end) {
    const int64_t features = chain_->features(), n = rows() * (end - begin) * features;
    const auto copied = [&](auto* to) {
        copy_steps(x, rows(), begin, end, features, to);
        return StepValues::of(to);
    };
    return x.is_double ? copied(given_.of<double>(n)) : copied(given_.of<float>(n));
}

// Runs the next steps from data to latent values, or back, and stores log-derivatives in the memory of calls (room_).
template <class T>
const T* ChainStream<T>::run(bool inverse, StepValues given, int64_t steps) {
    const LinkCall<T> call{inverse,
                           rows(),
                           steps,
                           chain_->features(),
                           context_.empty() ? nullptr : context_.data(),
                           frames_.empty() ? nullptr : frames_.data(),
                           first_frame_,
                           n_frames_};
    const StepValues values = chain_->run(*weights_, call, given, state_.get(), room_);
    state_->is_broken = true;  // broken until the caller has the results of all steps
    return static_cast<const T*>(values.data);
}

template <class T>
void ChainStream<T>::put(const T* from, int64_t columns, int64_t steps, int64_t begin, int64_t end, T* to) const {
    const int64_t n = (end - begin) * columns;
    for (int64_t r = 0; to && r < rows(); ++r) std::copy_n(from + r * n, n, to + (r * steps + begin) * columns);
}

template <class T>
void ChainStream<T>::push(const SequenceView& x, int64_t steps, T* log_prob, T* z) {
    for_chunks(steps, [&](int64_t begin, int64_t end) {
        const int64_t n = rows() * (end - begin);
        const T* const values = run(true, part(x, begin, end), end - begin);
        put(values, chain_->features(), steps, begin, end, z);
        if (!log_prob) return;
        std::vector<T>&log_det = room_.log_det, &log_base = room_.log_base;
        log_base.resize(size_t(n));
        chain_->log_base(*weights_, values, n, log_base.data());
        for (int64_t i = 0; i < n; ++i) log_det[size_t(i)] += log_base[size_t(i)];
        put(log_det.data(), 1, steps, begin, end, log_prob);
    });
}

template <class T>
void ChainStream<T>::pull(uint64_t seed, int64_t steps, T* x, int64_t sample) {
    for_chunks(steps, [&](int64_t begin, int64_t end) {
        const int64_t first = position(), n = end - begin;
        T* const noise = given_.of<T>(rows() * n * chain_->features());
        noise_.take(*chain_, *weights_, seed, sample, rows(), first, first + n, noise);
        put(run(false, StepValues::of(noise), n), chain_->features(), steps, begin, end, x);
    });
}

template <class T>
ChainStream<T> ChainStream<T>::copies(int64_t n) const {
    std::vector<int64_t> chosen;
    chosen.reserve(size_t(n * rows()));
    for (int64_t i = 0; i < n * rows(); ++i) chosen.push_back(i % rows());
    ChainStream copy(chain_, weights_, std::make_shared<ChainState<T>>(state_->rows_of(chosen)), tiled(context_, n));
    copy.set_frames(tiled(frames_, n), first_frame_, n_frames_);
    return copy;
}

template class ChainStream<float>;
template class ChainStream<double>;

}  // namespace headrace
