// Instruction sets: the compiled ones, those of this processor, and the one in use.
#pragma once

#include <string>
#include <vector>

#include "table.hpp"

namespace headrace {

struct SequenceKernels;

struct InstructionSet {
    const char* name;
    const KernelTable* table;
    const Bf16Kernels* bf16;  // by the number of parts, from 1
    const SequenceKernels* sequences;
    bool supported;
    bool on_request = false;  // used only where HEADRACE_ISA names it
    bool emulated = false;    // and so is this, which is for tests
};

// All compiled sets, the best one last.
const std::vector<InstructionSet>& instruction_sets();

// The best set of x86-64 that this processor has, if the build lacks it and has none as good; otherwise empty.
std::string set_not_built();

// The set chosen at first use: HEADRACE_ISA, or the best one that the processor supports. Throws std::runtime_error if
// HEADRACE_ISA names a set that is unknown or unsupported.
const InstructionSet& active_isa();

}  // namespace headrace
