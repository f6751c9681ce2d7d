#include "adaptive.hpp"

#include <algorithm>
#include <cmath>

#include "../threads.hpp"

namespace headrace {
namespace {

constexpr double pi = 3.14159265358979323846, ridge = 1e-5;
constexpr int64_t lanes = 8;  // lags, or steps, whose sums are computed side by side

// Levinson's recursion for the coefficients a, of the newest step first, that solve R a = r, where R has the elements
// r[|i - m|].
std::vector<double> levinson(const std::vector<double>& r, int64_t order) {
    std::vector<double> now(static_cast<size_t>(order)), before;
    double error = r[0];
    for (int64_t m = 0; m < order; ++m) {
        double sum = r[size_t(m + 1)];
        for (int64_t j = 0; j < m; ++j) sum -= now[size_t(j)] * r[size_t(m - j)];
        const double k = sum / error;
        before.assign(now.begin(), now.begin() + m);
        for (int64_t j = 0; j < m; ++j) now[size_t(j)] -= k * before[size_t(m - 1 - j)];
        now[size_t(m)] = k;
        error *= 1.0 - k * k;
    }
    return now;
}

}  // namespace

// A filter whose window rises as a sine over 85 % of its steps, and falls as a cosine over the newest 7 %.
AdaptiveFilter::AdaptiveFilter(const AdaptiveOptions& options) : options_(options) {
    const double n = double(options.window), fall = 0.93 * n;
    for (int64_t i = options.window; i-- > 0;) {
        const double t = double(i), rise = std::sin(pi / 2 * std::min((t + 0.5) / (0.85 * n), 1.0));
        shape_.push_back(t > fall ? rise * std::cos(pi / 2 * (t - fall) / (0.07 * n + 1.0)) : rise);
    }
    double power = 1.0;
    for (int64_t i = 0; i < options.order; ++i) damping_.push_back(power *= options.damping);
}

template <class T>
AdaptiveFilter::Lagged AdaptiveFilter::lagged(const T* x) const {
    const int64_t window = options_.window, lags = (options_.order + lanes) / lanes * lanes;
    Lagged own{std::vector<double>(size_t(window + lags)), std::vector<double>(static_cast<size_t>(lags))};
    for (int64_t i = 0; i < window; ++i) own.y[size_t(i)] = shape_[size_t(i)] * double(x[window - 1 - i]);
    for (int64_t first = 0; first < lags; first += lanes) {
        double sums[lanes] = {};
        for (int64_t i = 0; i < window; ++i)
            for (int64_t k = 0; k < lanes; ++k) sums[k] += own.y[size_t(i)] * own.y[size_t(i + first + k)];
        std::copy_n(sums, lanes, own.r.begin() + first);
    }
    own.r[0] = own.r[0] * (1.0 + ridge) + double(window) * options_.floor * options_.floor;
    return own;
}

// Computes damped coefficients, of the newest step first, from the autocorrelation of the window's steps, with the
// variance `floor` squared added for each step.
template <class T>
void AdaptiveFilter::solve(const T* x, T* a) const {
    const std::vector<double> own = levinson(lagged(x).r, options_.order);
    for (size_t i = 0; i < own.size(); ++i) a[i] = T(own[i] * damping_[i]);
}

// Returns the scale of a step, and computes logarithms of all running sizes, from the errors before the step.
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
std::vector<T> AdaptiveFilter::begin(int64_t rows) const {
    std::vector<T> past(size_t(rows * numbers()));
    for (int64_t i = 0; i < rows * options_.columns; ++i)
        std::fill_n(past.begin() + i * of_column() + options_.window, adaptive_longest, T(options_.start));
    return past;
}

template <class T>
void AdaptiveFilter::run_column(const AdaptiveCall<T>& call, int64_t row, int64_t column) const {
    const int64_t columns = options_.columns, order = options_.order, window = options_.window, steps = call.steps;
    T* const past = call.past ? call.past + (row * columns + column) * of_column() : nullptr;
    std::vector<T> x(size_t(window + steps)), errors(size_t(adaptive_longest + steps)), a(size_t(order) + 1);
    std::fill_n(errors.begin(), adaptive_longest, T(options_.start));
    if (past) {
        std::copy_n(past, window, x.begin());
        std::copy_n(past + window, adaptive_longest, errors.begin());
        std::copy_n(past + window + adaptive_longest, order + 1, a.begin());
    }
    int64_t phase = int64_t(a[size_t(order)]);  // steps since the coefficients were last computed
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

// Adds the gradient by the window's steps. From R a = r, before the damping, the gradient by r is u = R^-1 by_a, and
// the gradient by R is -u a'.
template <class T>
void AdaptiveFilter::solve_back(const T* x, std::vector<double> by_a, double* by_x) const {
    const int64_t order = options_.order, window = options_.window;
    const Lagged own = lagged(x);
    const std::vector<double> a = levinson(own.r, order);
    for (size_t i = 0; i < a.size(); ++i) by_a[i] *= damping_[i];
    std::vector<double> factor(size_t(order * order)), by_r(size_t(order) + 1);
    const auto at = [&](int64_t i, int64_t j) -> double& { return factor[size_t(i * order + j)]; };
    std::vector<double>& u = by_a;
    for (int64_t i = 0; i < order; ++i) {  // Cholesky's factor, and forward substitution row by row
        for (int64_t j = 0; j <= i; ++j) {
            double sum = own.r[size_t(i - j)];
            for (int64_t k = 0; k < j; ++k) sum -= at(i, k) * at(j, k);
            at(i, j) = i == j ? std::sqrt(sum) : sum / at(j, j);
        }
        for (int64_t k = 0; k < i; ++k) u[size_t(i)] -= at(i, k) * u[size_t(k)];
        u[size_t(i)] /= at(i, i);
    }
    for (int64_t i = order; i-- > 0;) {
        for (int64_t k = i + 1; k < order; ++k) u[size_t(i)] -= at(k, i) * u[size_t(k)];
        u[size_t(i)] /= at(i, i);
    }
    for (int64_t i = 0; i < order; ++i) {
        by_r[size_t(i + 1)] += u[size_t(i)];
        for (int64_t j = 0; j < order; ++j) by_r[size_t(std::abs(i - j))] -= u[size_t(i)] * a[size_t(j)];
    }
    by_r[0] *= 1.0 + ridge;
    for (int64_t i = 0; i < window; ++i) {
        double sum = 0.0;
        for (int64_t m = 0; m <= order; ++m)
            sum += by_r[size_t(m)] * (own.y[size_t(i + m)] + (i >= m ? own.y[size_t(i - m)] : 0.0));
        by_x[window - 1 - i] += shape_[size_t(i)] * sum;
    }
}

template <class T>
void AdaptiveFilter::back_column(const AdaptiveBack<T>& call, const T* z, const T* sizes, int64_t row,
                                 int64_t column) const {
    const int64_t columns = options_.columns, order = options_.order, window = options_.window, steps = call.steps;
    const T low = T(std::log(options_.floor)), high = T(std::log(options_.ceiling));
    std::vector<T> x(size_t(window + steps)), a(static_cast<size_t>(order));
    std::vector<double> by_x(x.size()), by_a(static_cast<size_t>(order));
    std::vector<double> by_mean[adaptive_sizes];  // gradients by the running sizes before each step
    for (auto& own : by_mean) own.resize(size_t(steps));
    const auto at = [&](int64_t t) { return (row * steps + t) * columns + column; };
    for (int64_t t = 0; t < steps; ++t) {
        const int64_t i = at(t);
        x[size_t(window + t)] = call.given[i];
        for (int64_t k = 0; k < adaptive_sizes; ++k) {
            const T log_size = sizes[i * adaptive_sizes + k];
            double by = call.by_sizes ? double(call.by_sizes[i * adaptive_sizes + k]) : 0.0;
            if (k == 1 && call.by_value) by -= double(call.by_value[i]) * double(z[i]);
            if (k == 1 && call.by_log_det) by -= double(call.by_log_det[row * steps + t]);
            const bool is_bound = log_size <= low || log_size >= high;
            by_mean[k][size_t(t)] = is_bound ? 0.0 : by / std::exp(double(log_size));
        }
    }
    double later[adaptive_sizes] = {};  // gradient sums over the steps whose running sizes include the current error
    for (int64_t t = steps; t-- > 0;) {
        const int64_t i = at(t), begin = t - t % options_.every;
        if (t == steps - 1 || t == begin + options_.every - 1) solve(x.data() + begin, a.data());
        double by_error = 0.0;
        for (int64_t k = 0; k < adaptive_sizes; ++k) {
            const int64_t n = adaptive_memories[k];
            if (t + 1 < steps) later[k] += by_mean[k][size_t(t + 1)];
            if (t + 1 + n < steps) later[k] -= by_mean[k][size_t(t + 1 + n)];
            by_error += later[k] / double(n);
        }
        by_error = z[i] < T(0) ? -by_error : z[i] > T(0) ? by_error : 0.0;
        if (call.by_value) by_error += double(call.by_value[i]) / std::exp(double(sizes[i * adaptive_sizes + 1]));
        by_x[size_t(window + t)] += by_error;
        for (int64_t j = 0; j < order; ++j) {
            by_x[size_t(window + t - 1 - j)] -= double(a[size_t(j)]) * by_error;
            by_a[size_t(j)] -= double(x[size_t(window + t - 1 - j)]) * by_error;
        }
        if (t == begin) {
            solve_back(x.data() + begin, by_a, by_x.data() + begin);
            std::fill(by_a.begin(), by_a.end(), 0.0);
        }
    }
    for (int64_t t = 0; t < steps; ++t) call.by_given[at(t)] = T(by_x[size_t(window + t)]);
}

template <class T>
void AdaptiveFilter::back(const AdaptiveBack<T>& call) const {
    const int64_t steps = call.rows * call.steps, n = steps * options_.columns;
    std::vector<T> z(static_cast<size_t>(n)), log_det(static_cast<size_t>(steps)), sizes(size_t(n * adaptive_sizes));
    run(AdaptiveCall<T>{true, call.rows, call.steps, call.given, nullptr, z.data(), log_det.data(), sizes.data()});
    parallel_for(call.rows, [&](int64_t row) {
        for (int64_t c = 0; c < options_.columns; ++c) back_column(call, z.data(), sizes.data(), row, c);
    });
}

template <class T>
void AdaptiveFilter::next_sizes(const T* past, int64_t rows, T* sizes) const {
    for (int64_t i = 0; i < rows * options_.columns; ++i)
        scale_of(past + i * of_column() + options_.window, sizes + i * adaptive_sizes);
}

template std::vector<float> AdaptiveFilter::begin(int64_t) const;
template std::vector<double> AdaptiveFilter::begin(int64_t) const;
template void AdaptiveFilter::run(const AdaptiveCall<float>&) const;
template void AdaptiveFilter::run(const AdaptiveCall<double>&) const;
template void AdaptiveFilter::back(const AdaptiveBack<float>&) const;
template void AdaptiveFilter::back(const AdaptiveBack<double>&) const;
template void AdaptiveFilter::next_sizes(const float*, int64_t, float*) const;
template void AdaptiveFilter::next_sizes(const double*, int64_t, double*) const;

}  // namespace headrace
