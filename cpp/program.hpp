// A program: what a flow, or a transform on its own, is compiled to. Steps from latent to data and one weight vector.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "masks.hpp"
#include "plan.hpp"
#include "published.hpp"
#include "scratch.hpp"
#include "table.hpp"

namespace headrace {

struct StepSpec {
    enum class Kind { masked, permutation, rotation, standardize } kind;
    bool inverted = false;  // Inverse(t)
    std::shared_ptr<const MaskedTransform> masked;
    std::vector<int> order;         // permutation: forward gives x[i] = z[order[i]]
    std::vector<double> matrix;     // rotation: forward gives x = matrix z; orthogonal and block diagonal: its blocks
    std::vector<int> blocks;        // of these sizes, row by row, one after another
    std::vector<double> mean, std;  // standardize: forward gives x = z std + mean
};

// What one call asks for; see Call for the meaning of the pointers.
template <class T>
struct Request {
    bool inverse = false;
    bool with_base = true;  // whether the latent side is that of the standard density, or of the base
    int64_t rows = 0;
    const ArrayView* input = nullptr;  // null: draw a sample from the base with `seed`
    const ArrayView* context = nullptr;
    bool one_context_row = false;  // the same for all rows (its row stride is then 0)
    uint64_t seed = 0;
    T *value = nullptr, *log_det = nullptr, *log_prob = nullptr;
};

// The gradient of some number that depends on the results of a run: `from` holds that with respect to the results, the
// pointers receive (or are null) those with respect to inputs and context, row by row, and to the weights.
template <class T>
struct GradientRequest {
    Cotangent from{};
    T *input = nullptr, *context = nullptr, *weights = nullptr;
};

// How context columns are standardised before the networks read them: (context - mean) / std; empty: not at all.
struct ContextScale {
    std::vector<double> mean, std;
};

template <class T>
class Program {
  public:
    // The first base_steps steps belong to the base: they lead from the standard density to it.
    Program(int features, int context, Base base, std::vector<StepSpec> steps, size_t base_steps = 0,
            ContextScale context_scale = {});

    int features() const { return features_; }
    int context() const { return context_; }
    Base base() const { return base_; }
    size_t n_weights() const { return n_weights_; }

    using Weights = std::shared_ptr<const Published<T>>;
    Weights snapshot() const;

    // Safe from several threads at once, also while another one calls set_weights. A caller that may be forked while it
    // runs takes the snapshot first: a child must not inherit a lock held by a thread that it does not have.
    void run(const Request<T>& request, const Weights& weights) const;
    void run(const Request<T>& request) const;

    // The run of a request, and back. A row that is not finite makes its own gradient NaN, and that of all weights.
    // The same bits for any number of threads.
    void run_gradient(const Request<T>& request, const GradientRequest<T>& gradient, const Weights& weights) const;

    void weights(T* out) const;
    // Copies in; what is not a weight (padding, masked entries) becomes zero.
    void set_weights(const T* in);
    // The same as a snapshot that only the caller has.
    Weights weights_of(const T* in) const;

    // Calls update(weights) on the weights in place, or on a copy that is then published if somebody holds a snapshot.
    // A caller that may be forked keeps others from forking meanwhile (the GIL does).
    void update(const std::function<void(T*)>& update);

    // The vector of weights in order: of each layer the matrix, then the biases.
    struct Part {
        int64_t begin, end;
        bool is_bias;
    };
    std::vector<Part> parts() const;

    // Sets everything in a vector like the weights to zero that is no weight: padding, masked entries.
    void clear_masked(T* vector) const;

  private:
    struct Compiled;  // the steps in one direction

    std::shared_ptr<Compiled> compile(bool inverse, size_t first) const;
    void add_vectors(Compiled& out, const MaskedTransform& t, bool map_inverse, std::vector<int64_t> weights,
                     std::vector<int> coordinate, TapeShape& tape) const;
    void add_rotation(Compiled& out, const StepSpec& spec, bool to_data, const std::vector<int>& given,
                      const std::vector<int>& built) const;
    void prepare_elementwise(const Step<T>& step, const T* weights, T* ready) const;
    const T* ready_parameters(const Compiled& compiled, const Weights& weights) const;
    Aligned<T> prepare(const Chain<T>& chain, const T* weights) const;
    void finish_vectors(const Chain<T>& chain, const T* weights, T* gradient) const;
    Aligned<T> cleared_copy(const T* in) const;
    const Compiled& compiled_for(const Request<T>& request) const;
    Call<T> call_of(const Request<T>& request, const Weights& weights) const;

    int features_, context_;
    Base base_;
    std::vector<StepSpec> steps_;
    std::vector<double> context_shift_, context_scale_;
    size_t n_weights_ = 0, n_folded_ = 0;
    std::vector<int64_t> step_weights_;                                  // where each step's weights start
    std::vector<int> step_fold_;                                         // and its folded first biases
    std::shared_ptr<const Compiled> with_base_[2], transforms_only_[2];  // forward, inverse
    mutable std::mutex mutex_;  // guards the pointer; the numbers change only while nobody else holds it
    std::shared_ptr<Published<T>> weights_;
};

extern template class Program<float>;
extern template class Program<double>;

}  // namespace headrace
