#include "optimizer.hpp"

#include <algorithm>
#include <cmath>

#include "isa.hpp"
#include "threads.hpp"

namespace headrace {
namespace {

constexpr int64_t stretch_numbers = 1 << 14;  // a multiple of the width of every vector

}  // namespace

template <class T>
Adam<T>::Adam(std::shared_ptr<Program<T>> program, const AdamOptions& options)
    : program_(std::move(program)),
      options_(options),
      mean_(aligned_zeros<T>(program_->n_weights())),
      square_(aligned_zeros<T>(program_->n_weights())) {
    for (const auto& part : program_->structure().parts())
        for (int64_t begin = part.begin; begin < part.end; begin += stretch_numbers)
            stretches_.push_back({begin, std::min(stretch_numbers, part.end - begin), !part.is_bias});
    if (options.average > 0) {
        average_ = aligned_zeros<T>(program_->n_weights());
        program_->weights(average_.get());
    }
}

template <class T>
double Adam<T>::step(const T* gradient, double learning_rate) {
    const KernelsOf<T>& kernels = kernels_of<T>(*active_isa().table);
    std::vector<double> parts(stretches_.size());
    parallel_for(int64_t(parts.size()), [&](int64_t i) {
        const Stretch& s = stretches_[size_t(i)];
        parts[size_t(i)] = kernels.sum_squares(gradient + s.begin, s.count);
    });
    double sum = 0;
    for (double part : parts) sum += part;
    const double norm = std::sqrt(sum);
    if (!std::isfinite(norm)) return norm;

    const AdamStep<T> s = adam_next<T>(options_, learning_rate, norm, clock_);
    program_->update([&](T* weights) {
        move(s, learning_rate, gradient, weights);
        program_->structure().clear_masked(weights);  // a gradient from a caller may have nonzero masked entries
    });
    if (average_) program_->structure().clear_masked(average_.get());
    return norm;
}

template <class T>
void Adam<T>::move(const AdamStep<T>& step, double, const T* gradient, T* weights) {
    parallel_for(int64_t(stretches_.size()), [&](int64_t i) { move(step, stretches_[size_t(i)], gradient, weights); });
}

template <class T>
void Adam<T>::move(const AdamStep<T>& step, const Stretch& part, const T* gradient, T* weights) {
    T* const average = average_ ? average_.get() + part.begin : nullptr;
    kernels_of<T>(*active_isa().table)
        .adam(step, part.decays, gradient + part.begin, weights + part.begin, mean_.get() + part.begin,
              square_.get() + part.begin, average, part.count);
}

template <class T>
AdamMemory<T> Adam<T>::memory() const {
    const auto copy = [&](const Aligned<T>& from) {
        return from ? std::vector<T>(from.get(), from.get() + program_->n_weights()) : std::vector<T>();
    };
    return {copy(mean_), copy(square_), copy(average_), clock_};
}

template <class T>
void Adam<T>::set_memory(const AdamMemory<T>& memory) {
    std::copy(memory.mean.begin(), memory.mean.end(), mean_.get());
    std::copy(memory.square.begin(), memory.square.end(), square_.get());
    if (average_) std::copy(memory.average.begin(), memory.average.end(), average_.get());
    clock_ = memory.clock;
}

template class Adam<float>;
template class Adam<double>;

}  // namespace headrace
