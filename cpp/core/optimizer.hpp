// Adam on a program's weight vector.
#pragma once

#include <memory>
#include <vector>

#include "../math/adam.hpp"
#include "program.hpp"
#include "request.hpp"

namespace headrace {

template <class T>
class Adam {
  public:
    using Number = T;
    Adam(std::shared_ptr<Program<T>> program, const AdamOptions& options);
    virtual ~Adam() = default;

    // Updates the weights and returns the gradient's norm before clipping. If the norm is not finite, the weights stay
    // unchanged.
    double step(const T* gradient, double learning_rate);

    // The running mean of the weights; null if there is none. The decay of the mean grows to the requested decay, so
    // that the initial weights are soon forgotten.
    const T* average() const { return average_.get(); }
    bool has_average() const { return average_ != nullptr; }

    AdamMemory<T> memory() const;
    void set_memory(const AdamMemory<T>& memory);  // the vectors of `memory` must have the present lengths

    const Program<T>& program() const { return *program_; }

  protected:
    // Weights of a task. Weight decay applies only to matrices, because a bias, or the mean of a base, may have to be
    // large.
    struct Stretch {
        int64_t begin, count;
        bool decays;
    };
    const std::vector<Stretch>& stretches() const { return stretches_; }
    T* mean() { return mean_.get(); }
    T* square() { return square_.get(); }
    T* running_mean() { return average_.get(); }

    // Updates the weights by a gradient whose norm is finite.
    virtual void move(const AdamStep<T>& step, double learning_rate, const T* gradient, T* weights);
    void move(const AdamStep<T>& step, const Stretch& part, const T* gradient, T* weights);

  private:
    std::shared_ptr<Program<T>> program_;
    std::vector<Stretch> stretches_;
    AdamOptions options_;
    Aligned<T> mean_, square_, average_;
    AdamClock clock_;
};

extern template class Adam<float>;
extern template class Adam<double>;

}  // namespace headrace
