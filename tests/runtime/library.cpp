// Plain functions around the header, which Python's tests call. Every error is returned as a text.
#include <clocale>
#include <optional>
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

struct Sequences {
    std::optional<headrace::SequenceFlow<float>> single;
    std::optional<headrace::SequenceFlow<double>> wide;
};
struct Streams {
    std::optional<headrace::Stream<float>> single;
    std::optional<headrace::Stream<double>> wide;

    template <class F>
    auto with(const F& call) {
        return single ? call(*single) : call(*wide);
    }
};

// Pushes steps; if `narrow`, the flow takes and returns float, and steps and results are converted.
template <class T>
void push(headrace::Stream<T>& stream, bool narrow, const double* x, std::size_t n, std::size_t steps, double* log_prob,
          double* z) {
    if (!narrow) {
        stream.push(x, steps, log_prob, z);
        return;
    }
    std::vector<float> given, scores(n), latent(n);
    for (std::size_t i = 0; i < n; ++i) given.push_back(static_cast<float>(x[i]));
    stream.push(given.data(), steps, log_prob ? scores.data() : nullptr, latent.data());
    if (log_prob) std::copy_n(scores.begin(), stream.rows() * steps, log_prob);
    std::copy(latent.begin(), latent.end(), z);
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

// Opens a flow from a file, or from bytes where the path is null; returns null, with a message, where this failed.
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

// Reads a number of a file in a program whose locale writes commas: by from_chars, or by its replacement.
bool read_number(const char* text, bool by_stream, double* value) {
    struct Comma : std::numpunct<char> {
        char do_decimal_point() const override { return ','; }
    };
    const std::string of_c = std::setlocale(LC_ALL, nullptr);  // a named locale replaces it for the whole process
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

// Runs method `verb`; if `narrow`, rows, context and results are converted to float, for a flow of float.
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

// ---- sequences

void* open_sequences(bool wide, const char* path, const void* bytes, std::size_t size, char* message,
                     std::size_t room) {
    std::unique_ptr<Sequences> flow;
    const auto make = [&](auto zero) {
        using Flow = headrace::SequenceFlow<decltype(zero)>;
        return path ? Flow::load(path) : Flow::from_bytes(bytes, size);
    };
    const bool done = guarded(message, room, [&] {
        flow = std::make_unique<Sequences>();
        if (wide) {
            flow->wide = make(0.0);
        } else {
            flow->single = make(0.0f);
        }
    });
    return done ? flow.release() : nullptr;
}
void close_sequences(void* flow) {
    delete static_cast<Sequences*>(flow);
}
// Writes the facts of a flow: features, context, covariates, hop, whether the flow has a density, and receptive field.
bool facts_of_sequences(const void* flow, double* facts) {
    const auto write = [&](const auto& own) {
        const double all[] = {double(own.features()), double(own.context()),     double(own.covariates()),
                              double(own.hop()),      double(own.has_density()), double(own.field())};
        std::copy(std::begin(all), std::end(all), facts);
        return true;
    };
    const Sequences& own = *static_cast<const Sequences*>(flow);
    return own.single ? write(*own.single) : write(*own.wide);
}

void* open_stream(const void* flow, std::size_t rows, const double* context, std::size_t context_rows, char* message,
                  std::size_t room) {
    const Sequences& own = *static_cast<const Sequences*>(flow);
    std::unique_ptr<Streams> stream;
    const bool done = guarded(message, room, [&] {
        stream = std::make_unique<Streams>();
        if (own.single) {
            stream->single = own.single->stream(rows, context, context_rows);
        } else {
            stream->wide = own.wide->stream(rows, context, context_rows);
        }
    });
    return done ? stream.release() : nullptr;
}
void* copy_stream(void* stream, std::size_t n, char* message, std::size_t room) {
    Streams& own = *static_cast<Streams*>(stream);
    std::unique_ptr<Streams> copy;
    const bool done = guarded(message, room, [&] {
        copy = std::make_unique<Streams>();
        if (own.single) {
            copy->single = own.single->copies(n);
        } else {
            copy->wide = own.wide->copies(n);
        }
    });
    return done ? copy.release() : nullptr;
}
void close_stream(void* stream) {
    delete static_cast<Streams*>(stream);
}
bool push_steps(void* stream, bool narrow, const double* x, std::size_t n, std::size_t steps, double* log_prob,
                double* z, char* message, std::size_t room) {
    return guarded(message, room, [&] {
        static_cast<Streams*>(stream)->with([&](auto& own) { push(own, narrow, x, n, steps, log_prob, z); });
    });
}
bool pull_steps(void* stream, std::size_t steps, std::uint64_t seed, double* x, char* message, std::size_t room) {
    return guarded(message, room,
                   [&] { static_cast<Streams*>(stream)->with([&](auto& own) { own.pull(steps, seed, x); }); });
}
bool extend_stream(void* stream, const double* covariates, std::size_t frames, std::size_t of_rows, char* message,
                   std::size_t room) {
    return guarded(message, room, [&] {
        static_cast<Streams*>(stream)->with([&](auto& own) { own.extend(covariates, frames, of_rows); });
    });
}
// Writes a stream's state to `numbers`, if the whole state fits, and the position and the state's size to `facts`.
bool stream_state(void* stream, double* numbers, std::size_t n, double* facts) {
    static_cast<Streams*>(stream)->with([&](auto& own) {
        const auto state = own.state();
        facts[0] = double(own.position());
        facts[1] = double(state.size());
        if (state.size() <= n) std::copy(state.begin(), state.end(), numbers);
    });
    return true;
}
bool set_stream_state(void* stream, std::uint64_t position, const double* numbers, std::size_t n, char* message,
                      std::size_t room) {
    return guarded(message, room, [&] {
        Streams& own = *static_cast<Streams*>(stream);
        if (own.wide) {
            own.wide->set_state(position, std::vector<double>(numbers, numbers + n));
            return;
        }
        std::vector<float> narrow;
        for (std::size_t i = 0; i < n; ++i) narrow.push_back(static_cast<float>(numbers[i]));
        own.single->set_state(position, narrow);
    });
}
}
