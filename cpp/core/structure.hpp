// The structure of a program, without weights: the steps from latent to data, the layout of their weights in one
// vector, and their kernels in each direction.
#pragma once

#include <memory>
#include <vector>

#include "specs.hpp"

namespace headrace {

// How context columns are standardised before the networks read them: (context - mean) / std. Empty vectors: the
// context is not standardised.
struct ContextScale {
    std::vector<double> mean, std;
};

template <class T>
struct Compiled;

class Structure {
  public:
    // Throws std::invalid_argument where a step does not fit. With `bf16`, products of networks are of rounded values;
    // products of networks without hidden layers stay exact.
    Structure(int features, int context, std::vector<StepSpec> steps, ContextScale context_scale, Bf16Layout bf16 = {});
    Structure(const Structure&) = delete;  // because compiled chains point to a structure
    Structure& operator=(const Structure&) = delete;

    int features() const { return features_; }
    int context() const { return context_; }
    const std::vector<StepSpec>& steps() const { return steps_; }
    size_t n_weights() const { return n_weights_; }
    size_t n_folded() const { return n_folded_; }  // number of units of all steps that read a context

    const Bf16Layout& bf16() const { return bf16_; }
    // The conditioner of step i, or null; and the layout of its values, if its products are of rounded values.
    const Conditioner* conditioner(size_t i) const {
        const NetworkSpec* const network = std::get_if<NetworkSpec>(&steps_[i]);
        return network ? network->conditioner.get() : nullptr;
    }
    Bf16Layout bf16_of(size_t i) const;
    // The numbers of rounded weights of all networks for the run and for the backward pass, and the starts of the
    // rounded weights of step i.
    size_t n_pairs() const { return n_pairs_; }
    size_t n_back_pairs() const { return n_back_pairs_; }
    int64_t pairs_of(size_t i) const { return step_pairs_[i]; }
    int64_t back_pairs_of(size_t i) const { return step_back_pairs_[i]; }

    std::vector<WeightRange> parts() const;  // parts of the vector of weights, in order
    std::vector<WeightBlock> blocks() const;

    // Sets elements of a vector, of the length of the weight vector, to zero if they are not weights (padding, masked
    // entries).
    template <class T>
    void clear_masked(T* vector) const;
    // A vector like the weights, with 1 where an element is a weight, and 0 elsewhere.
    std::vector<uint8_t> is_weight() const;
    // Sets the entries of a gradient to zero that belong to weights that reach no output.
    template <class T>
    void clear_dead(T* gradient) const;

    // The start of the weights of step i in the vector, and the start of its folded first biases (-1: none).
    int64_t weights_of(size_t i) const { return step_weights_[i]; }
    int fold_of(size_t i) const { return step_fold_[i]; }
    // Networks read (context - shift) * scale, or the unchanged context if both vectors are empty.
    const std::vector<double>& context_shift() const { return context_shift_; }
    const std::vector<double>& context_scale() const { return context_scale_; }

  private:
    // Calls visit(spec, start of its weights) for each step that has weights.
    template <class F>
    void for_weighted(const F& visit) const;
    void place(const Conditioner& c, size_t i);

    int features_, context_;
    Bf16Layout bf16_;
    std::vector<StepSpec> steps_;
    std::vector<double> context_shift_, context_scale_;
    size_t n_weights_ = 0, n_folded_ = 0, n_pairs_ = 0, n_back_pairs_ = 0;
    std::vector<int64_t> step_weights_;                  // start of each step's weights
    std::vector<int64_t> step_pairs_, step_back_pairs_;  // start of each step's rounded weights
    std::vector<int> step_fold_;                         // start of each step's folded first biases
};

// The chains of a structure: both directions, with and without the steps of the base, which are the first steps.
template <class T>
class Chains {
  public:
    Chains(const Structure& structure, size_t base_steps);

    const Compiled<T>& of(bool with_base, bool inverse) const {
        return *(with_base ? with_base_ : transforms_only_)[inverse];
    }

  private:
    std::shared_ptr<const Compiled<T>> with_base_[2], transforms_only_[2];  // forward and inverse
};

}  // namespace headrace
