// The header behind plain functions, so that Python's tests call it. Every error comes back as a text.
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

template <class T>
void run(const headrace::Flow<T>& flow, int verb, const double* given, std::size_t rows, const double* context,
         std::size_t context_rows, std::uint64_t seed, std::uint64_t first_row, double* value, double* per_row) {
    switch (verb) {
        case 0: flow.log_prob(given, rows, per_row, context, context_rows); break;
        case 1: flow.to_latent(given, rows, value, per_row, context, context_rows); break;
        case 2: flow.to_data(given, rows, value, per_row, context, context_rows); break;
        default: flow.sample(rows, seed, value, per_row, context, context_rows, first_row);
    }
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

void close_flow(void* flow) {
    delete static_cast<Either*>(flow);
}

bool run_flow(const void* flow, int verb, const double* given, std::size_t rows, const double* context,
              std::size_t context_rows, std::uint64_t seed, std::uint64_t first_row, double* value, double* per_row,
              char* message, std::size_t room) {
    const Either& either = *static_cast<const Either*>(flow);
    return guarded(message, room, [&] {
        if (either.wide) {
            run(*either.wide, verb, given, rows, context, context_rows, seed, first_row, value, per_row);
        } else {
            run(*either.single, verb, given, rows, context, context_rows, seed, first_row, value, per_row);
        }
    });
}
}
