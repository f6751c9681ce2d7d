#include "optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "isa.hpp"
#include "threads.hpp"

namespace headrace {
namespace {

constexpr int64_t task_numbers = 1 << 14;  // a multiple of every vector's width

template <class F>
void for_stretches(int64_t n, F&& body) {
    parallel_for((n + task_numbers - 1) / task_numbers, [&](int64_t i) {
        body(i, i * task_numbers, std::min(task_numbers, n - i * task_numbers));
    });
}

}  // namespace

template <class T>
Adam<T>::Adam(std::shared_ptr<Program<T>> program, const AdamOptions& options)
    : program_(std::move(program)),
      options_(options),
      mean_(aligned_zeros<T>(program_->n_weights())),
      square_(aligned_zeros<T>(program_->n_weights())) {
    if (options.average > 0) {
        average_ = aligned_zeros<T>(program_->n_weights());
        program_->weights(average_.get());
    }
}

template <class T>
double Adam<T>::step(const T* gradient, double learning_rate) {
    const KernelsOf<T>& kernels = kernels_of<T>(*active_isa().table);
    const auto n = int64_t(program_->n_weights());
    std::vector<double> parts(size_t((n + task_numbers - 1) / task_numbers));
    for_stretches(n, [&](int64_t i, int64_t begin, int64_t count) {
        parts[size_t(i)] = kernels.sum_squares(gradient + begin, count);
    });
    double sum = 0;
    for (double part : parts) sum += part;
    const double norm = std::sqrt(sum);
    if (!std::isfinite(norm)) return norm;

    mean_power_ *= options_.beta1;
    square_power_ *= options_.beta2;
    AdamStep<T> s;
    s.mean_decay = T(options_.beta1);
    s.square_decay = T(options_.beta2);
    s.rate = T(learning_rate / (1 - mean_power_));
    s.square_correction = T(1 / (1 - square_power_));
    s.epsilon = T(options_.epsilon);
    s.shrink = T(1 - learning_rate * options_.weight_decay);
    s.gradient_scale = T(options_.clip > 0 && norm > options_.clip ? options_.clip / norm : 1);
    ++steps_;
    s.average_gain = T(1 - std::min(options_.average, (1 + steps_) / (10 + steps_)));
    program_->update([&](T* weights) {
        for_stretches(n, [&](int64_t, int64_t begin, int64_t count) {
            T* const average = average_ ? average_.get() + begin : nullptr;
            kernels.adam(s, gradient + begin, weights + begin, mean_.get() + begin, square_.get() + begin, average,
                         count);
        });
        program_->clear_masked(weights);  // should the gradient not be one of ours
    });
    if (average_) program_->clear_masked(average_.get());
    return norm;
}

template class Adam<float>;
template class Adam<double>;

}  // namespace headrace
