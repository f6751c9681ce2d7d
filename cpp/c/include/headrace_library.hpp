// headrace_library.hpp: the functions of headrace.h in C++20, with spans in place of pointers, exceptions in place of
// codes, and handles that close themselves. Programs link libheadrace; the header headrace.hpp needs no library, and is
// slower.
//
//     const headrace::library::Flow<double> flow("density.safetensors");
//     const std::vector<double> log_prob = flow.log_prob(rows);  // rows: a vector, an array or a span, row after row
//     flow.log_prob_into(results, rows, context);                // functions that write have other names
//
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <headrace.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace headrace::library {

// An error with a code other than HEADRACE_OK and the message of the library.
class Error : public std::runtime_error {
  public:
    explicit Error(int code) : std::runtime_error(headrace_message()), code_(static_cast<headrace_code>(code)) {}
    headrace_code code() const { return code_; }

  private:
    headrace_code code_;
};

namespace detail {

inline void check(int code) {
    if (code != HEADRACE_OK) throw Error(code);
}

template <class T>
inline constexpr int dtype_of = sizeof(T) == 4 ? HEADRACE_FLOAT32 : HEADRACE_FLOAT64;

inline std::int64_t rows_in(std::size_t values, std::size_t columns) {
    if (columns ? values % columns : values)
        throw std::invalid_argument("expected rows of " + std::to_string(columns) + " values, got " +
                                    std::to_string(values) + " values in all");
    return columns ? static_cast<std::int64_t>(values / columns) : 0;
}
template <class T>
headrace_input input(std::span<const T> values, std::size_t columns) {
    const std::int64_t n = static_cast<std::int64_t>(columns);
    return {values.data(), rows_in(values.size(), columns), n, n, 1, dtype_of<T>};
}
template <class T>
headrace_output output(std::span<T> values, std::size_t columns) {
    const std::int64_t n = static_cast<std::int64_t>(columns);
    return {values.data(), rows_in(values.size(), columns), n, n, 1, dtype_of<T>};
}

}  // namespace detail

template <class T>
struct Moved {
    std::vector<T> rows, log_det;
};
template <class T>
struct Drawn {
    std::vector<T> rows, log_prob;
};
template <class T>
struct Gradient {
    std::vector<T> log_prob, by_x, by_context;  // gradients by each row and by its context
};

// Sequences that proceed step by step, opened by Flow::stream. Arrays are contiguous, sequence after sequence, with all
// steps of a sequence together. A stream must be used by one thread at a time, and may outlive its flow.
template <class T>
class Stream {
  public:
    using Values = std::span<const T>;

    std::size_t rows() const { return static_cast<std::size_t>(headrace_stream_rows(get())); }
    std::int64_t position() const { return headrace_stream_position(get()); }
    headrace_stream* get() const { return handle_.get(); }  // for functions of headrace.h

    // Appends the steps x to the past, and returns the log density of each step given all earlier steps, in nats.
    std::vector<T> push(Values x) {
        std::vector<T> log_prob(static_cast<std::size_t>(detail::rows_in(x.size(), features_)));
        push_into(log_prob, x);
        return log_prob;
    }
    void push_into(std::span<T> log_prob, Values x) {
        const headrace_input steps = detail::input<T>(x, features_);
        const headrace_output result = detail::output<T>(log_prob, 1);
        detail::check(headrace_stream_push(get(), &steps, &result, nullptr));
    }

    // Draws the next steps. Successive pulls of a stream with the same seed continue the same sample.
    std::vector<T> pull(std::size_t steps, std::uint64_t seed) {
        std::vector<T> x(rows() * steps * features_);
        pull_into(x, seed);
        return x;
    }
    void pull_into(std::span<T> x, std::uint64_t seed) {
        const headrace_output result = detail::output<T>(x, features_);
        detail::check(headrace_stream_pull(get(), seed, &result));
    }

    // Appends the next frames of covariates: one set for all sequences, or a set for each, sequence after sequence.
    void extend(std::size_t frames, Values covariates) {
        const headrace_input given = detail::input<T>(covariates, covariates_);
        detail::check(headrace_stream_extend(get(), static_cast<std::int64_t>(frames), &given));
    }

    // A stream with n copies of each sequence of this stream and its past; the copies proceed independently.
    Stream copies(std::size_t n) const {
        headrace_stream* handle = nullptr;
        detail::check(headrace_stream_copies(get(), static_cast<std::int64_t>(n), &handle));
        return Stream(handle, features_, covariates_);
    }

    // The state of each sequence after all steps so far. A stream of the same flow and context can continue from a
    // state and a position alone (set_state).
    std::vector<T> state() const {
        const std::size_t n = static_cast<std::size_t>(headrace_stream_numbers(get()));
        std::vector<T> numbers(rows() * n);
        const headrace_output result = detail::output<T>(std::span<T>(numbers), n);
        detail::check(headrace_stream_state(get(), &result));
        return numbers;
    }
    void set_state(std::int64_t position, Values numbers) {
        const headrace_input given =
            detail::input<T>(numbers, static_cast<std::size_t>(headrace_stream_numbers(get())));
        detail::check(headrace_stream_set_state(get(), position, &given));
    }

  private:
    template <class>
    friend class Flow;
    struct Close {
        void operator()(headrace_stream* handle) const { headrace_stream_close(handle); }
    };

    Stream(headrace_stream* handle, std::size_t features, std::size_t covariates)
        : handle_(handle), features_(features), covariates_(covariates) {}

    std::unique_ptr<headrace_stream, Close> handle_;
    std::size_t features_, covariates_;
};

// A flow or an ensemble, read from a file. T is the type of rows and results: double for every file, float for files of
// float32. Rows are contiguous. A context is one row for all rows, or one for each row; it is empty for flows without a
// context. A Flow never changes, so that any number of threads may use it at once.
template <class T>
class Flow {
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>, "expected float or double");

  public:
    using Values = std::span<const T>;

    explicit Flow(const std::string& path) {
        headrace_flow* handle = nullptr;
        check(headrace_open(path.c_str(), &handle));
        handle_.reset(handle);
    }
    explicit Flow(std::span<const std::byte> bytes) {  // the bytes of a file
        headrace_flow* handle = nullptr;
        check(headrace_open_bytes(bytes.data(), bytes.size(), &handle));
        handle_.reset(handle);
    }

    std::size_t features() const { return static_cast<std::size_t>(headrace_features(get())); }
    std::size_t context() const { return static_cast<std::size_t>(headrace_context(get())); }
    headrace_dtype dtype() const { return static_cast<headrace_dtype>(headrace_dtype_of(get())); }
    bool has_density() const { return headrace_has_density(get()) != 0; }
    bool is_sequence() const { return headrace_is_sequence(get()) != 0; }
    const headrace_flow* get() const { return handle_.get(); }  // for functions of headrace.h

    // Opens a stream of a flow of sequences: `rows` sequences before their first step.
    Stream<T> stream(std::size_t rows = 1, Values context = {}) const {
        headrace_stream* handle = nullptr;
        const headrace_input its = input(context, this->context());
        check(headrace_stream_open(get(), static_cast<std::int64_t>(rows), context.empty() ? nullptr : &its, &handle));
        return Stream<T>(handle, features(), static_cast<std::size_t>(headrace_covariates(get())));
    }

    std::vector<T> log_prob(Values x, Values context = {}) const {
        std::vector<T> out(rows_of(x));
        log_prob_into(out, x, context);
        return out;
    }
    void log_prob_into(std::span<T> out, Values x, Values context = {}) const {
        const headrace_input rows = input(x, features());
        const headrace_output result = output(out, 1);
        call(headrace_log_prob, context, &rows, &result);
    }

    // Rows first_row, first_row + 1, ... of the endless sample of a seed, and their log densities.
    std::vector<T> sample(std::size_t rows, std::uint64_t seed, Values context = {},
                          std::int64_t first_row = HEADRACE_FROM_START) const {
        std::vector<T> x(rows * features());
        sample_into(x, seed, context, first_row);
        return x;
    }
    void sample_into(std::span<T> x, std::uint64_t seed, Values context = {},
                     std::int64_t first_row = HEADRACE_FROM_START) const {
        draw(output(x, features()), nullptr, seed, context, first_row);
    }
    Drawn<T> sample_and_log_prob(std::size_t rows, std::uint64_t seed, Values context = {},
                                 std::int64_t first_row = HEADRACE_FROM_START) const {
        Drawn<T> drawn{std::vector<T>(rows * features()), std::vector<T>(rows)};
        sample_and_log_prob_into(drawn.rows, drawn.log_prob, seed, context, first_row);
        return drawn;
    }
    void sample_and_log_prob_into(std::span<T> x, std::span<T> log_prob, std::uint64_t seed, Values context = {},
                                  std::int64_t first_row = HEADRACE_FROM_START) const {
        const headrace_output densities = output(log_prob, 1);
        draw(output(x, features()), &densities, seed, context, first_row);
    }

    // Maps data to latent values, and latent values to data, with log-determinants.
    Moved<T> to_latent(Values x, Values context = {}) const { return moved(headrace_to_latent, x, context); }
    Moved<T> to_data(Values z, Values context = {}) const { return moved(headrace_to_data, z, context); }

    // The gradient of each row's log density by the row and by its context.
    Gradient<T> gradient(Values x, Values context = {}) const {
        const std::size_t n = rows_of(x);
        Gradient<T> g{std::vector<T>(n), std::vector<T>(x.size()), std::vector<T>(n * this->context())};
        const headrace_input rows = input(x, features());
        const headrace_output log_prob = output(std::span<T>(g.log_prob), 1),
                              by_x = output(std::span<T>(g.by_x), features()),
                              by_context = output(std::span<T>(g.by_context), this->context());
        call(headrace_gradient, context, &rows, &log_prob, &by_x, this->context() ? &by_context : nullptr);
        return g;
    }

  private:
    struct Close {
        void operator()(headrace_flow* handle) const { headrace_close(handle); }
    };

    static void check(int code) { detail::check(code); }
    std::size_t rows_of(Values x) const { return static_cast<std::size_t>(detail::rows_in(x.size(), features())); }
    static headrace_input input(Values values, std::size_t columns) { return detail::input<T>(values, columns); }
    static headrace_output output(std::span<T> values, std::size_t columns) {
        return detail::output<T>(values, columns);
    }

    void draw(const headrace_output& x, const headrace_output* log_prob, std::uint64_t seed, Values context,
              std::int64_t first_row) const {
        const headrace_input its = input(context, this->context());
        check(headrace_sample(get(), seed, first_row, context.empty() ? nullptr : &its, &x, log_prob));
    }
    template <class Function, class... Results>
    void call(Function function, Values context, const headrace_input* rows, Results... results) const {
        const headrace_input its = input(context, this->context());
        check(function(get(), rows, context.empty() ? nullptr : &its, results...));
    }
    template <class Function>
    Moved<T> moved(Function function, Values given, Values context) const {
        Moved<T> result{std::vector<T>(given.size()), std::vector<T>(rows_of(given))};
        const headrace_input rows = input(given, features());
        const headrace_output value = output(std::span<T>(result.rows), features()),
                              log_det = output(std::span<T>(result.log_det), 1);
        call(function, context, &rows, &value, &log_det);
        return result;
    }

    std::unique_ptr<headrace_flow, Close> handle_;
};

}  // namespace headrace::library
