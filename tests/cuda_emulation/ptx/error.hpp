#pragma once

#include <stdexcept>

namespace ptx {

// What cannot be read or interpreted, and what a kernel did that it must not.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace ptx
