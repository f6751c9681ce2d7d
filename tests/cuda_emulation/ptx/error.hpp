#pragma once

#include <stdexcept>

namespace ptx {

// The error for PTX that cannot be read or interpreted, and for forbidden actions of a kernel.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace ptx
