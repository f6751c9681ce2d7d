// The header behind plain functions, so that Python's tests call it. Every error comes back as a text.
#include <clocale>
#include <string>

#include "headrace.hpp"

namespace {

struct Either {
    std::unique_ptr<headrace::Flow<float>> single;
    std::unique_ptr<headrace::Flow<double>> wide;
};

void tell(char* message, std::size_t room, const std::string& text) {
    const std::size_t n = std::min(room - 1, text.size());
    std::memcpy(message, text.data(), n);
    message[n] = '\0';
}

template <class T, class Number>
void run(const headrace::Flow<T>& flow, int verb, const Number* given, std::size_t rows, const Number* context,
         std::size_t context_rows, std::uint64_t seed, std::uint64_t first_row, Number* value, Number* per_row) {
    switch (verb) {
        case 0: flow.log_prob(given, rows, per_row, context, context_rows); break;
        case 1: flow.to_latent(given, rows, value, per_row, context, context_rows); break;
        case 2: flow.to_data(given, rows, value, per_row, context, context_rows); break;
        case 3: flow.sample(rows, seed, value, per_row, context, context_rows, first_row); break;
        default: flow.sample(rows, seed, value);
    }
}

void run_narrow(const headrace::Flow<float>& flow, int verb, const double* given, std::size_t rows,
                const double* context, std::size_t context_rows, std::uint64_t seed, std::uint64_t first_row,
                double* value, double* per_row) {
    const std::size_t n = rows * static_cast<std::size_t>(flow.features());
    const std::size_t m = context_rows * static_cast<std::size_t>(flow.context());
    const auto narrowed = [](const double* from, std::size_t size) {
        std::vector<float> result;
        for (std::size_t i = 0; i < size; ++i) result.push_back(static_cast<float>(from[i]));
        return result;
    };
    const std::vector<float> x = narrowed(given, n), c = narrowed(context, m);
    std::vector<float> out(n), sums(rows);
    run(flow, verb, x.data(), rows, c.data(), context_rows, seed, first_row, out.data(), sums.data());
    std::copy(out.begin(), out.end(), value);
    std::copy(sums.begin(), sums.end(), per_row);
}

template <class F>
bool guarded(char* message, std::size_t room, const F& call) {
    try {
        call();
        return true;
    } catch (const headrace::FileFormatError& error) {
        tell(message, room, std::string("format: ") + error.what());
    } catch (const std::exception& error) {
        tell(message, room, std::string("other: ") + error.what());
    }
    return false;
}

}  // namespace

extern "C" {

// From a file, or from bytes where there is no path; null with a message where that failed.
void* open_flow(bool wide, const char* path, const void* bytes, std::size_t size, char* message, std::size_t room) {
    std::unique_ptr<Either> flow;
    const auto make = [&](auto zero) {
        using Flow = headrace::Flow<decltype(zero)>;
        return std::make_unique<Flow>(path ? Flow::load(path) : Flow::from_bytes(bytes, size));
    };
    const bool done = guarded(message, room, [&] {
        flow = std::make_unique<Either>();
        if (wide) {
            flow->wide = make(0.0);
        } else {
            flow->single = make(0.0f);
        }
    });
    return done ? flow.release() : nullptr;
}

// A number as a file has it, in a program whose locale writes commas: by from_chars, or by what stands in for it.
bool read_number(const char* text, bool by_stream, double* value) {
    struct Comma : std::numpunct<char> {
        char do_decimal_point() const override { return ','; }
    };
    const std::string of_c = std::setlocale(LC_ALL, nullptr);  // which a named locale replaces, for all of the process
    const std::locale before = std::locale::global(std::locale(std::locale::classic(), new Comma));
    const char* const end = text + std::strlen(text);
    const bool done = by_stream ? headrace::detail::read_real<double, false>(text, end, *value)
                                : headrace::detail::read_real(text, end, *value);
    std::locale::global(before);
    std::setlocale(LC_ALL, of_c.c_str());
    return done;
}

void close_flow(void* flow) {
    delete static_cast<Either*>(flow);
}

// `narrow`: rows, context and results are float on the way, in a flow of float.
bool run_flow(const void* flow, int verb, bool narrow, const double* given, std::size_t rows, const double* context,
              std::size_t context_rows, std::uint64_t seed, std::uint64_t first_row, double* value, double* per_row,
              char* message, std::size_t room) {
    const Either& either = *static_cast<const Either*>(flow);
    return guarded(message, room, [&] {
        if (narrow && either.single) {
            run_narrow(*either.single, verb, given, rows, context, context_rows, seed, first_row, value, per_row);
        } else if (either.wide) {
            run(*either.wide, verb, given, rows, context, context_rows, seed, first_row, value, per_row);
        } else {
            run(*either.single, verb, given, rows, context, context_rows, seed, first_row, value, per_row);
        }
    });
}
}
