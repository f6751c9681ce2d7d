// A minimal test framework for the C++ tests: CHECK counts failures and prints them, and finish() prints the total.
#pragma once

#include <atomic>
#include <cstdarg>
#include <cstdio>

namespace headrace::tests {

inline std::atomic<int> passed{0}, failed{0};

// The largest number of failures that are printed, because a wrong function fails for every input.
constexpr int most_printed = 40;

[[gnu::format(printf, 5, 6)]] inline bool check(bool good, const char* file, int line, const char* condition,
                                                const char* format, ...) {
    if (good) {
        ++passed;
        return true;
    }
    if (++failed > most_printed) return false;
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    std::fprintf(stderr, "%s:%d: FAILED: %s\n    expected: %s\n", file, line, message, condition);
    return false;
}

// Prints the last line, and returns the result of main.
inline int finish() {
    if (failed > most_printed) std::fprintf(stderr, "(%d more failures)\n", failed.load() - most_printed);
    std::printf("%d passed, %d failed\n", passed.load(), failed.load());
    return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace headrace::tests

// CHECK(condition, format, ...) is true if the condition holds, and otherwise prints a message, which should name the
// tested property, with inputs and outputs.
#define CHECK(condition, ...) ::headrace::tests::check(bool(condition), __FILE__, __LINE__, #condition, __VA_ARGS__)
