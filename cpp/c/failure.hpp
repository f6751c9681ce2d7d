// What a function of the library refuses: a code, and a message that names the argument.
#pragma once

#include <stdexcept>
#include <string>

#include "include/headrace.h"

namespace headrace {

class Failure : public std::runtime_error {
  public:
    Failure(headrace_code code, const std::string& message) : std::runtime_error(message), code_(code) {}
    headrace_code code() const { return code_; }

  private:
    headrace_code code_;
};

inline void require(bool condition, headrace_code code, const std::string& message) {
    if (!condition) throw Failure(code, message);
}

}  // namespace headrace
