// Differences between operating systems and processors, except kernels: no other file of the core depends on the system
// or the processor.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headrace {

constexpr size_t cache_line = 64;

// Allocates memory aligned to a cache line. Throws std::bad_alloc, in a separate function because kernels are compiled
// without exceptions.
void* allocate_aligned(size_t count, size_t size_of_one);
void free_aligned(void* memory) noexcept;

// Makes each forked child call the function from now on; does nothing where processes are not forked.
void call_in_forked_children(void (*function)());

// A short wait in a loop that polls for another thread's write.
void pause();

// Results of cpuid and xgetbv for an x86-64 processor and its system.
struct X86Registers {
    struct Leaf {
        uint32_t a, b, c, d;
    };
    Leaf zero{}, one{}, seven{}, seven_one{}, extended_one{};
    uint64_t enabled_state = 0;  // XCR0, which shows the registers that the system saves
};

// Instruction sets of a processor: levels of x86-64 as its psABI names them, and extensions for bf16.
struct X86Sets {
    bool v2, v3, v4, avx512_bf16, amx_bf16;
    bool intel;  // whether Intel made the processor
};
X86Sets x86_sets(const X86Registers& registers);

// The sets of this processor; none if it is not x86-64.
const X86Sets& x86_sets();

// Requests from the system that this process may use the registers for tiles. The signal stacks of threads that use
// these registers must be larger.
bool request_tiles();

}  // namespace headrace
