// Backward-adaptive linear prediction with a running scale, independently for each column:
//   residual e[t] = x[t] - sum over lags i of  a[i] x[t - i],  z[t] = e[t] / s[t].
// Every few steps, a is computed from the autocorrelation of earlier steps and damped; s[t] is a mean size of earlier
// residuals. The coefficients a and the scale s are functions of the past alone.
#pragma once

#include <cstdint>
#include <vector>

namespace headrace {

struct AdaptiveOptions {
    int64_t columns, order, window, every;
    double floor, ceiling;  // limits of the scale
    double start;           // assumed size of the residuals before the first step
    double damping;  // a[i] is multiplied by damping^i: without damping, resonances of sampled steps become sharper
};

// The numbers of earlier steps whose mean |e| is a running size; the second running size is the scale.
constexpr int64_t adaptive_memories[] = {8, 40, 320}, adaptive_sizes = 3, adaptive_longest = 320;

// Arguments of a call, with contiguous arrays (rows, steps, columns).
template <class T>
struct AdaptiveCall {
    bool inverse;  // true: from data to latent
    int64_t rows, steps;
    const T* given;
    T* past;  // states (rows, numbers), updated in place; null: the state of `begin`
    T* result;
    T* log_det;  // (rows, steps); log-derivatives are added
    T* sizes;    // (rows, steps, columns, adaptive_sizes): logarithms of running sizes before each step
};

// Gradients by the results of a call from data to latent that starts at the first step; null stands for zero.
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
    // The number of values in the state of one row.
    int64_t numbers() const { return options_.columns * of_column(); }

    // The state of `rows` rows before the first step.
    template <class T>
    std::vector<T> begin(int64_t rows) const;
    // Runs a call. Results depend neither on the direction, nor on other rows, nor on the division of a sequence into
    // calls.
    template <class T>
    void run(const AdaptiveCall<T>& call) const;
    template <class T>
    void back(const AdaptiveBack<T>& call) const;
    // Computes logarithms of the running sizes before the next step, (rows, columns, adaptive_sizes).
    template <class T>
    void next_sizes(const T* past, int64_t rows, T* sizes) const;

  private:
    int64_t of_column() const { return options_.window + adaptive_longest + options_.order + 1; }
    // Inputs of Levinson's recursion: weighted steps of the window, from the newest on, and their autocorrelation.
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
    std::vector<double> damping_;  // powers of the damping factor, from the newest step on
};

}  // namespace headrace
