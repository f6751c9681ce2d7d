#include "adaptive.hpp"

#include <algorithm>
#include <cmath>

#include "../threads.hpp"

namespace headrace {
namespace {

constexpr double pi = 3.14159265358979323846, ridge = 1e-5;
constexpr int64_t lanes = 8;  // lags, or steps, whose sums are taken side by side

}  // namespace

// The window rises as a sine over 85 % of its steps, and falls as a cosine over the newest 7 %.
AdaptiveFilter::AdaptiveFilter(const AdaptiveOptions& options) : options_(options) {
    const double n = double(options.window), fall = 0.93 * n;
    for (int64_t i = options.window; i-- > 0;) {
        const double t = double(i), rise = std::sin(pi / 2 * std::min((t + 0.5) / (0.85 * n), 1.0));
        shape_.push_back(t > fall ? rise * std::cos(pi / 2 * (t - fall) / (0.07 * n + 1.0)) : rise);
    }
}

// Coefficients, of the newest step first, from the window's steps: Levinson's recursion for their autocorrelation, to
// which the variance `floor` squared is added at each step.
template <class T>
void AdaptiveFilter::solve(const T* x, T* a) const {
    const int64_t order = options_.order, window = options_.window, lags = (order + lanes) / lanes * lanes;
    std::vector<double> y(size_t(window + lags)), r(static_cast<size_t>(lags)), now(static_cast<size_t>(order)), before;
    for (int64_t i = 0; i < window; ++i) y[size_t(i)] = shape_[size_t(i)] * double(x[window - 1 - i]);
    for (int64_t first = 0; first < lags; first += lanes) {
        double sums[lanes] = {};
        for (int64_t i = 0; i < window; ++i)
            for (int64_t k = 0; k < lanes; ++k) sums[k] += y[size_t(i)] * y[size_t(i + first + k)];
        std::copy_n(sums, lanes, r.begin() + first);
    }
    double error = r[0] * (1.0 + ridge) + double(window) * options_.floor * options_.floor;
    for (int64_t m = 0; m < order; ++m) {
        double sum = r[size_t(m + 1)];
        for (int64_t j = 0; j < m; ++j) sum -= now[size_t(j)] * r[size_t(m - j)];
        const double k = sum / error;
        before.assign(now.begin(), now.begin() + m);
        for (int64_t j = 0; j < m; ++j) now[size_t(j)] -= k * before[size_t(m - 1 - j)];
        now[size_t(m)] = k;
        error *= 1.0 - k * k;
    }
    for (int64_t i = 0; i < order; ++i) a[i] = T(now[size_t(i)]);
}

// The scale of a step, and logarithms of all sizes, from the sizes of the errors before it.
template <class T>
double AdaptiveFilter::scale_of(const T* errors, T* sizes) const {
    double scale = 0.0, sums[lanes] = {};
    int64_t begin = 0;
    for (int64_t i = 0; i < adaptive_sizes; ++i) {
        const int64_t n = adaptive_memories[i];
        const T* const own = errors + adaptive_longest - n;
        for (int64_t t = 0; t < n - begin; t += lanes)
            for (int64_t k = 0; k < lanes; ++k) sums[k] += double(own[t + k]);
        begin = n;
        double mean = 0.0;
        for (const double sum : sums) mean += sum;
        mean /= double(n);
        mean = mean < options_.floor ? options_.floor : mean > options_.ceiling ? options_.ceiling : mean;
        if (i == 1) scale = mean;
        sizes[i] = T(std::log(mean));
    }
    return scale;
}

template <class T>
void AdaptiveFilter::run_column(const AdaptiveCall<T>& call, int64_t row, int64_t column) const {
    const int64_t columns = options_.columns, order = options_.order, window = options_.window, steps = call.steps;
    T* const past = call.past ? call.past + (row * columns + column) * of_column() : nullptr;
    std::vector<T> x(size_t(window + steps)), errors(size_t(adaptive_longest + steps)), a(size_t(order) + 1);
    if (past) {
        std::copy_n(past, window, x.begin());
        std::copy_n(past + window, adaptive_longest, errors.begin());
        std::copy_n(past + window + adaptive_longest, order + 1, a.begin());
    }
    int64_t phase = int64_t(a[size_t(order)]);  // steps since the last solution
    for (int64_t t = 0; t < steps; ++t) {
        if (phase == 0) solve(x.data() + t, a.data());
        phase = (phase + 1) % options_.every;
        const int64_t at = (row * steps + t) * columns + column;
        T* const sizes = call.sizes + at * adaptive_sizes;
        const double scale = scale_of(errors.data() + t, sizes), given = double(call.given[at]);
        double sum = 0.0;
        for (int64_t i = 0; i < order; ++i) sum += double(a[size_t(i)]) * double(x[size_t(window + t - 1 - i)]);
        T& value = x[size_t(window + t)];
        value = call.inverse ? call.given[at] : T(sum + scale * given);
        const double error = double(value) - sum;
        errors[size_t(adaptive_longest + t)] = T(std::abs(error));
        call.result[at] = call.inverse ? T(error / scale) : value;
        call.log_det[row * steps + t] += call.inverse ? -sizes[1] : sizes[1];
    }
    if (!past) return;
    a[size_t(order)] = T(phase);
    std::copy_n(x.end() - window, window, past);
    std::copy_n(errors.end() - adaptive_longest, adaptive_longest, past + window);
    std::copy_n(a.begin(), order + 1, past + window + adaptive_longest);
}

template <class T>
void AdaptiveFilter::run(const AdaptiveCall<T>& call) const {
    parallel_for(call.rows, [&](int64_t row) {
        for (int64_t c = 0; c < options_.columns; ++c) run_column(call, row, c);
    });
}

template <class T>
void AdaptiveFilter::next_sizes(const T* past, int64_t rows, T* sizes) const {
    for (int64_t i = 0; i < rows * options_.columns; ++i)
        scale_of(past + i * of_column() + options_.window, sizes + i * adaptive_sizes);
}

template void AdaptiveFilter::run(const AdaptiveCall<float>&) const;
template void AdaptiveFilter::run(const AdaptiveCall<double>&) const;
template void AdaptiveFilter::next_sizes(const float*, int64_t, float*) const;
template void AdaptiveFilter::next_sizes(const double*, int64_t, double*) const;

}  // namespace headrace
