// The interface of tests to the interpreter.
#pragma once

#include <map>

#include "host.hpp"
#include "program.hpp"

namespace ptx {

// Uses the PTX of a folder for all later launches, or no PTX if the folder is "".
void use(const std::string& folder);
// Runs a kernel of a PTX text without the emulation's launch, and returns counts for each warp of a block.
std::vector<Work> run_text(const std::string& text, const std::string& kernel, const Geometry& geometry,
                           const Arguments& arguments, bool contract);
// A finding with a known reason (tests/support/interpreted.py): part of a kernel's name, the kind, and the number of
// PTX lines that have it. More lines with the finding than `lines` are an error.
struct Known {
    std::string kernel, kind;
    size_t lines;
};
void know(const std::vector<Known>& findings);

struct Report {
    struct Kernel {
        uint64_t launches = 0, most_blocks = 0,
                 ragged = 0;      // number of launches of several blocks, some of which are not full
        std::vector<Work> warps;  // by the index of a warp in its block
    };
    std::map<std::string, Kernel> kernels;                   // all kernels for which there is PTX
    std::vector<std::pair<std::string, std::string>> known;  // known findings that occurred
};
Report report();
// Forgets the arrays of callers.
void forget_arrays();

}  // namespace ptx
