// The parts of a program, without parameter values: the steps from latent to data, the layout of their weights in one
// vector, and the kernels that run for them in each direction.
#pragma once

#include <memory>
#include <vector>

#include "specs.hpp"

namespace headrace {

// How context columns are standardised before the networks read them: (context - mean) / std; empty: not at all.
struct ContextScale {
    std::vector<double> mean, std;
};

template <class T>
struct Compiled;

class Structure {
  public:
    // Throws std::invalid_argument where a step does not fit. bf16: products of networks are of rounded values; those
    // of networks without hidden layers stay exact.
    Structure(int features, int context, std::vector<StepSpec> steps, ContextScale context_scale, Bf16Layout bf16 = {});
    Structure(const Structure&) = delete;  // compiled chains point to it
    Structure& operator=(const Structure&) = delete;

    int features() const { return features_; }
    int context() const { return context_; }
    const std::vector<StepSpec>& steps() const { return steps_; }
    size_t n_weights() const { return n_weights_; }
    size_t n_folded() const { return n_folded_; }  // units of all steps that read a context

    const Bf16Layout& bf16() const { return bf16_; }
    // For step i: its conditioner, or null; the layout of values, if its products are of rounded ones.
    const Conditioner* conditioner(size_t i) const {
        const NetworkSpec* const network = std::get_if<NetworkSpec>(&steps_[i]);
        return network ? network->conditioner.get() : nullptr;
    }
    Bf16Layout bf16_of(size_t i) const;
    // The rounded weights of all networks, and where those of step i start; and those for the backward pass.
    size_t n_pairs() const { return n_pairs_; }
    size_t n_back_pairs() const { return n_back_pairs_; }
    int64_t pairs_of(size_t i) const { return step_pairs_[i]; }
    int64_t back_pairs_of(size_t i) const { return step_back_pairs_[i]; }

    std::vector<WeightRange> parts() const;  // of the vector of weights, in order
    std::vector<WeightBlock> blocks() const;

    // Sets every element that is no weight in a vector like the weights to zero: padding, masked entries.
    template <class T>
    void clear_masked(T* vector) const;
    // 1 where an element of such a vector is a weight.
    std::vector<uint8_t> is_weight() const;
    // Entries of a gradient that get no gradient become zero, too.
    template <class T>
    void clear_dead(T* gradient) const;

    // For step i: the start of its weights in the vector, and its folded first biases (-1: none).
    int64_t weights_of(size_t i) const { return step_weights_[i]; }
    int fold_of(size_t i) const { return step_fold_[i]; }
    // Networks read (context - shift) * scale; empty: the context.
    const std::vector<double>& context_shift() const { return context_shift_; }
    const std::vector<double>& context_scale() const { return context_scale_; }

  private:
    // visit(spec, where its weights start) for each step that has some.
    template <class F>
    void for_weighted(const F& visit) const;
    void place(const Conditioner& c, size_t i);

    int features_, context_;
    Bf16Layout bf16_;
    std::vector<StepSpec> steps_;
    std::vector<double> context_shift_, context_scale_;
    size_t n_weights_ = 0, n_folded_ = 0, n_pairs_ = 0, n_back_pairs_ = 0;
    std::vector<int64_t> step_weights_;                  // start of each step's weights
    std::vector<int64_t> step_pairs_, step_back_pairs_;  // start of its rounded weights
    std::vector<int> step_fold_;                         // start of its folded first biases
};

// Both directions of a structure, with and without the base's steps, the first ones.
template <class T>
class Chains {
  public:
    Chains(const Structure& structure, size_t base_steps);

    const Compiled<T>& of(bool with_base, bool inverse) const {
        return *(with_base ? with_base_ : transforms_only_)[inverse];
    }

  private:
    std::shared_ptr<const Compiled<T>> with_base_[2], transforms_only_[2];  // forward, inverse
};

}  // namespace headrace
