// A program: the compiled form of a flow, or of a single transform. A program has steps from latent to data and one
// weight vector.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "published.hpp"
#include "request.hpp"
#include "scratch.hpp"
#include "structure.hpp"
#include "table.hpp"

namespace headrace {

template <class T>
class Program {
  public:
    // The first base_steps steps belong to the base: they lead from the standard density to the base density. bf16_kind
    // is 0 for exact products, 1 to 3 for sums in pairs of values rounded to bf16 in 1 to 3 parts, and 4 to 6 for sums
    // in steps (bf16.hpp), for float32 alone.
    Program(int features, int context, Base base, std::vector<StepSpec> steps, size_t base_steps = 0,
            ContextScale context_scale = {}, int bf16_kind = 0);

    int features() const { return structure_.features(); }
    int context() const { return structure_.context(); }
    Base base() const { return base_; }
    size_t n_weights() const { return structure_.n_weights(); }
    const Structure& structure() const { return structure_; }

    using Weights = std::shared_ptr<const Published<T>>;
    Weights snapshot() const;

    // Several threads may call `run` at once, also during a call of set_weights. A caller that may be forked during the
    // call takes a snapshot of the weights first, because a child must not inherit a lock held by a thread that the
    // child lacks.
    void run(const Request<T>& request, const Weights& weights) const;
    void run(const Request<T>& request) const;

    // Runs a request, and its backward pass. A row that is not finite makes its own gradient and the gradient of all
    // weights NaN. Results have the same bits for any number of threads.
    void run_gradient(const Request<T>& request, const GradientRequest<T>& gradient, const Weights& weights) const;

    void weights(T* out) const;
    // Copies weights into the program; entries that are no weights (padding, masked entries) become zero.
    void set_weights(const T* in);
    // A snapshot of the given weights; the last snapshot is kept for the next call.
    Weights weights_of(const T* in) const;

    // Calls update(weights) on the weights in place, or, if a snapshot is held, on a copy that is then published. In a
    // process that forks, the caller prevents forks during the call (by the GIL).
    void update(const std::function<void(T*)>& update);

  private:
    Aligned<T> prepare(const Chain<T>& chain, const T* weights) const;
    Aligned<uint32_t> rounded(const float* weights, bool back) const;
    void finish(const Chain<T>& chain, const T* weights, T* gradient) const;
    Aligned<T> cleared_copy(const T* in) const;
    const Compiled<T>& compiled_for(const Request<T>& request) const;
    Call<T> call_with(const Compiled<T>& compiled, const Request<T>& request, const Weights& weights) const;

    Base base_;
    Structure structure_;
    Chains<T> chains_;
    mutable std::mutex mutex_;  // guards the pointers; values change only while there is no other holder
    std::shared_ptr<Published<T>> weights_;
    mutable Weights given_;  // the snapshot that the last call of `weights_of` returned
};

extern template class Program<float>;
extern template class Program<double>;

}  // namespace headrace
