// Backward-adaptive linear prediction with a running scale, each column by itself:
//   residual e[t] = x[t] - sum over lags i of  a[i] x[t - i],  z[t] = e[t] / s[t].
// a is solved anew every few steps from the autocorrelation of the steps before and damped, and s[t] is a mean size of
// the residuals before, so that both are functions of the past alone.
#pragma once

#include <cstdint>
#include <vector>

namespace headrace {

struct AdaptiveOptions {
    int64_t columns, order, window, every;
    double floor, ceiling;  // of the scale
    double start;           // the sizes of the residuals before the first step
    double damping;         // factor of a[i], to the power i: without it, resonances of drawn steps become sharper
};

// Steps of the running sizes, means of |e| over as many steps before; the second is the scale.
constexpr int64_t adaptive_memories[] = {8, 40, 320}, adaptive_sizes = 3, adaptive_longest = 320;

// Arrays are contiguous: (rows, steps, columns).
template <class T>
struct AdaptiveCall {
    bool inverse;  // from data to latent
    int64_t rows, steps;
    const T* given;
    T* past;  // (rows, numbers), updated in place, or null: that of `begin`
    T* result;
    T* log_det;  // (rows, steps), added to
    T* sizes;    // (rows, steps, columns, adaptive_sizes): logarithms of sizes before each step
};

// Gradients by the results of a call from data to latent, from the first step on; null for zero.
template <class T>
struct AdaptiveBack {
    int64_t rows, steps;
    const T* given;
    const T* by_value;    // (rows, steps, columns)
    const T* by_log_det;  // (rows, steps)
    const T* by_sizes;    // (rows, steps, columns, adaptive_sizes)
    T* by_given;
};

class AdaptiveFilter {
  public:
    explicit AdaptiveFilter(const AdaptiveOptions& options);

    const AdaptiveOptions& options() const { return options_; }
    // Values of a row's state.
    int64_t numbers() const { return options_.columns * of_column(); }

    // The state before the first step.
    template <class T>
    std::vector<T> begin(int64_t rows) const;
    // Results depend on neither the direction, the rows, nor the parts of a sequence.
    template <class T>
    void run(const AdaptiveCall<T>& call) const;
    template <class T>
    void back(const AdaptiveBack<T>& call) const;
    // The logarithms of sizes of the next step, (rows, columns, adaptive_sizes).
    template <class T>
    void next_sizes(const T* past, int64_t rows, T* sizes) const;

  private:
    int64_t of_column() const { return options_.window + adaptive_longest + options_.order + 1; }
    // Inputs of a solution: steps of the window, from the newest one on, and their autocorrelation.
    struct Lagged {
        std::vector<double> y, r;
    };
    template <class T>
    Lagged lagged(const T* x) const;
    template <class T>
    void solve(const T* x, T* a) const;
    template <class T>
    void solve_back(const T* x, std::vector<double> by_a, double* by_x) const;
    template <class T>
    void back_column(const AdaptiveBack<T>& call, const T* z, const T* sizes, int64_t row, int64_t column) const;
    template <class T>
    double scale_of(const T* errors, T* sizes) const;
    template <class T>
    void run_column(const AdaptiveCall<T>& call, int64_t row, int64_t column) const;

    AdaptiveOptions options_;
    std::vector<double> shape_;    // weights of the window, from the newest step on
    std::vector<double> damping_;  // powers of the damping, from the newest step on
};

}  // namespace headrace
