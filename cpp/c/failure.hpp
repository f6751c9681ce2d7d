// The error of a function of the C library: a code, and a message that names the argument.
#pragma once

#include <stdexcept>
#include <string>
#include <type_traits>

#include "include/headrace.h"

namespace headrace {

class Failure : public std::runtime_error {
  public:
    Failure(headrace_code code, const std::string& message) : std::runtime_error(message), code_(code) {}
    headrace_code code() const { return code_; }

  private:
    headrace_code code_;
};

// A message consists of parts, texts and whole numbers, which are joined only after an error, because joining would be
// most of the cost of a call for one row.
template <class... Parts>
void require(bool condition, headrace_code code, const Parts&... parts) {
    if (condition) [[likely]]
        return;
    std::string message;
    const auto append = [&](const auto& part) {
        if constexpr (std::is_arithmetic_v<std::decay_t<decltype(part)>>) {
            message += std::to_string(part);
        } else {
            message += part;
        }
    };
    (append(parts), ...);
    throw Failure(code, message);
}

// The value that a caller's pointer refers to.
template <class T>
T& existing(T* pointer, const char* name, const char* expected) {
    if (!pointer) throw Failure(HEADRACE_BAD_ARGUMENT, std::string(name) + ": expected " + expected + ", got NULL");
    return *pointer;
}

}  // namespace headrace
