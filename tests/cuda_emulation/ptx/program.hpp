// A kernel as the interpreter runs it, with all functions that it calls.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "text.hpp"

namespace ptx {

constexpr int lanes_of_warp = 32;
constexpr uint32_t all_lanes = ~0u;

struct Warp;
struct Instruction;
using Run = void (*)(Warp&, const Instruction&, uint32_t lanes);

// An instruction's effect on the order of execution; `warp`: its lanes must be there together.
enum class Flow : uint8_t { next, branch, call, leave, warp, warp_barrier, barrier };
// `parameter`: of the kernel; `argument`: of a call.
enum class Space : uint8_t { generic, global, shared, local, parameter, argument };

// Classes for the count of executed instructions.
enum class Class : uint8_t {
    move,
    integer,
    predicate,
    float32,
    float64,
    convert,
    special,
    device_load,
    device_store,
    shared_load,
    shared_store,
    local,
    parameter,
    shuffle,
    tensor,
    barrier,
    control,
    count
};
constexpr std::array<const char*, size_t(Class::count)> class_names = {
    "move",      "integer",     "predicate",    "float32",     "float64",      "convert",
    "special",   "device load", "device store", "shared load", "shared store", "local",
    "parameter", "shuffle",     "tensor",       "barrier",     "control"};

// Counts for one warp of the blocks of a kernel, in all launches: instructions by class, and the cost of its accesses.
struct Work {
    std::array<uint64_t, size_t(Class::count)> executed{};
    uint64_t shared_passes = 0;   // through the banks of shared memory
    uint64_t device_passes = 0;   // through the load unit: lines of 128 bytes
    uint64_t device_sectors = 0;  // pieces of 32 bytes
};

// Operands are offsets: of a register (32 lanes of four or eight bytes) in a warp's registers, or, below zero, of a
// constant, of 32 lanes too. Predicates are indices.
struct Instruction {
    Run run = nullptr;
    Flow flow = Flow::next;
    Class kind = Class::control;
    Space space = Space::generic;
    uint8_t how = 0;                  // which of an opcode's variants
    uint8_t bytes = 4, elements = 1;  // of an access
    uint8_t wide = 0;                 // which elements are registers of eight bytes
    bool is_signed = false, negated = false, guard_negated = false;
    bool has_base = true, wide_base = true;  // of an address: a register, of eight bytes
    int guard = -1;
    int target = -1;  // of a branch: an instruction; of a call and a return: a function
    int call = -1;
    int line = 0;
    int mask = 0;  // of a warp's operation
    int d[4] = {}, a[4] = {}, b[4] = {}, c[4] = {};
    int64_t offset = 0;
};

struct Slot {
    int at = 0, bytes = 0;
};
// Offsets of arguments and results in a lane's frame.
struct Function {
    std::string name;
    int begin = 0;
    std::vector<Slot> parameters, results;
};
struct Call {
    std::vector<Slot> given, results;
};

struct Program {
    std::string kernel;  // its readable name
    const ModuleText* module = nullptr;
    std::vector<Instruction> code;
    std::vector<Work> work;           // by the warp's place in its block
    std::vector<Function> functions;  // the kernel first; its parameters are at their offsets in a launch's
    std::vector<Call> calls;
    std::vector<uint64_t> constants;
    int parameter_bytes = 0, register_bytes = 0, predicates = 2, frame_bytes = 0, local_bytes = 0;
};

// Fused into one rounding, like in ptxas: a product that one sum of the same block of instructions reads.
enum class Contraction : bool { none, as_ptxas };

Program assemble(const ModuleText& module, const std::string& mangled, const std::string& kernel,
                 Contraction contraction);

}  // namespace ptx
