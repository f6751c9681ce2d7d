// Instruction sets: the sets compiled into the module, the sets of this processor, and the active set.
#pragma once

#include <string>
#include <vector>

#include "table.hpp"

namespace headrace {

struct SequenceKernels;

struct InstructionSet {
    const char* name;
    const KernelTable* table;
    const Bf16Kernels *bf16_pairs, *bf16_steps;  // kernels for 1, 2, ... parts, for each order of sums
    const SequenceKernels* sequences;
    bool supported;
    bool tiles = false;     // whether the set needs registers that the system must grant
    bool emulated = false;  // whether the set is for tests: used only where HEADRACE_ISA names it
};

// All compiled sets, with the best one last.
const std::vector<InstructionSet>& instruction_sets();

// The best set of x86-64 on this processor, if the build lacks it and has no equally good set; otherwise empty.
std::string set_not_built();

// The set chosen at first use: HEADRACE_ISA, or the best set that the processor supports. Throws std::runtime_error if
// HEADRACE_ISA names a set that is unknown or unsupported.
const InstructionSet& active_isa();

// Whether the system lets the process use a set. Sets with tiles request their registers from the system, which may
// refuse.
bool is_granted(const InstructionSet& expected, bool (*request)());

// The set whose products in bf16 in steps are used: HEADRACE_ISA, or the fastest set of this processor. The bits of
// results do not depend on this set. At the first call the process requests the registers for tiles from the system, if
// the processor has them; if the system refuses, vectors are used in place of tiles.
const InstructionSet& isa_of_steps();

// The name of the set of isa_of_steps; before its first call, the name of the set that will be used unless the system
// refuses tiles.
const char* name_of_isa_of_steps();

}  // namespace headrace
