// The tests' interface to the interpreter.
#pragma once

#include <map>

#include "host.hpp"
#include "program.hpp"

namespace ptx {

// PTX of this folder from now on; none for "".
void use(const std::string& folder);
// Kernels of a text of PTX, run without the emulation's launch. Returns the counts for each warp of a block.
std::vector<Work> run_text(const std::string& text, const std::string& kernel, const Geometry& geometry,
                           const Arguments& arguments, bool contract);
// A finding with a reason (tests/support/interpreted.py): part of a kernel's name, the kind, and at how many lines of
// PTX it is known. At one more it is an error.
struct Known {
    std::string kernel, kind;
    size_t lines;
};
void know(const std::vector<Known>& findings);

struct Report {
    struct Kernel {
        uint64_t launches = 0, most_blocks = 0,
                 ragged = 0;      // ragged: launches of several blocks, not all full
        std::vector<Work> warps;  // by their place in a block
    };
    std::map<std::string, Kernel> kernels;                   // all that there is PTX of
    std::vector<std::pair<std::string, std::string>> known;  // those that occurred
};
Report report();
// Arrays of callers so far.
void forget_arrays();

}  // namespace ptx
