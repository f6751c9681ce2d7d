// The program of a kernel for the interpreter, with all functions that the kernel calls.
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

// The effect of an instruction on the order of execution; with `warp`, lanes must execute the instruction together.
enum class Flow : uint8_t { next, branch, call, leave, warp, warp_barrier, barrier };
// Spaces of addresses; `parameter` is for parameters of the kernel, `argument` for arguments of a call.
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

// Counts for one warp of a kernel's blocks, over all launches: instructions by class, and the cost of memory accesses.
struct Work {
    std::array<uint64_t, size_t(Class::count)> executed{};
    uint64_t shared_passes = 0;   // passes through the banks of shared memory
    uint64_t device_passes = 0;   // passes through the load unit: lines of 128 bytes
    uint64_t device_sectors = 0;  // accessed pieces of 32 bytes
};

// A decoded instruction. Operands are offsets: of a register (32 lanes of four or eight bytes) among a warp's
// registers, or, below zero, of a constant, which also has 32 lanes. Predicates are indices.
struct Instruction {
    Run run = nullptr;
    Flow flow = Flow::next;
    Class kind = Class::control;
    Space space = Space::generic;
    uint8_t how = 0;                  // variant of the opcode
    uint8_t bytes = 4, elements = 1;  // bytes and elements of an access
    uint8_t wide = 0;                 // a bit for each element whose register has eight bytes
    bool is_signed = false, negated = false, guard_negated = false;
    bool has_base = true, wide_base = true;  // whether an address has a base register, and one of eight bytes
    int guard = -1;
    int target = -1;  // index of an instruction for a branch, and of a function for a call or a return
    int call = -1;
    int line = 0;
    int mask = 0;  // mask of an operation of a warp
    int d[4] = {}, a[4] = {}, b[4] = {}, c[4] = {};
    int64_t offset = 0;
};

struct Slot {
    int at = 0, bytes = 0;
};
// Offsets of arguments and results in the frame of a lane.
struct Function {
    std::string name;
    int begin = 0;
    std::vector<Slot> parameters, results;
};
struct Call {
    std::vector<Slot> given, results;
};

struct Program {
    std::string kernel;  // readable name of the kernel
    const ModuleText* module = nullptr;
    std::vector<Instruction> code;
    std::vector<Work> work;           // by the index of a warp in its block
    std::vector<Function> functions;  // the first is the kernel, whose offsets are those in a launch
    std::vector<Call> calls;
    std::vector<uint64_t> constants;
    int parameter_bytes = 0, register_bytes = 0, predicates = 2, frame_bytes = 0, local_bytes = 0;
};

// Whether products are fused with sums, which rounds once. With `as_ptxas`, a product is fused with the only sum that
// reads the product, if both are in one block of instructions.
enum class Contraction : bool { none, as_ptxas };

Program assemble(const ModuleText& module, const std::string& mangled, const std::string& kernel,
                 Contraction contraction);

}  // namespace ptx
