#include "isa.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#include "platform.hpp"
#include "set_name.hpp"

namespace headrace {

// HEADRACE_SETS is X(v2) X(v4), for example: those that CMakeLists.txt compiles, the best one last.
#define X(set)                             \
    extern const KernelTable table_##set;  \
    extern const Bf16Kernels bf16_##set[]; \
    extern const SequenceKernels sequences_##set;
HEADRACE_SETS
#undef X
#ifdef HEADRACE_WIDE_SET
extern const Bf16Kernels HR_JOIN(bf16_, HR_JOIN(HEADRACE_WIDE_SET, _bf16))[],
    HR_JOIN(bf16_, HR_JOIN(HEADRACE_WIDE_SET, _amx))[];
extern const Bf16Kernels bf16_amx_emulated[];
#endif

namespace {

#ifdef HEADRACE_AMX
// Whether the processor has the instructions for tiles of bf16, and the system lets this process use their registers.
// The request for these registers has a cost, so it is made only where HEADRACE_ISA names the set.
bool may_use_tiles(const char* name) {
    if (!x86_sets().amx_bf16) return false;
    const char* const wanted = std::getenv("HEADRACE_ISA");
    return !wanted || std::string(wanted) != name || request_tiles();
}
#endif

// Whether the processor has a set, by its name in HEADRACE_SETS.
[[maybe_unused]] bool has_native() {
    return true;
}
[[maybe_unused]] bool has_v2() {
    return x86_sets().v2;
}
[[maybe_unused]] bool has_v3() {
    return x86_sets().v3;
}
[[maybe_unused]] bool has_v4() {
    return x86_sets().v4;
}

std::vector<InstructionSet> compiled_sets() {
#define X(set) {#set, &table_##set, bf16_##set, &sequences_##set, has_##set()},
    std::vector<InstructionSet> sets = {HEADRACE_SETS};
#undef X
#ifdef HEADRACE_WIDE_SET
    const KernelTable* const table = &HR_JOIN(table_, HEADRACE_WIDE_SET);
    const SequenceKernels* const sequences = &HR_JOIN(sequences_, HEADRACE_WIDE_SET);
#define HR_TEXT_(text) #text
#define HR_TEXT(text) HR_TEXT_(text)
#define HR_NAME(kind) HR_TEXT(HR_JOIN(HEADRACE_WIDE_SET, kind))
    [[maybe_unused]] const bool wide = HR_JOIN(has_, HEADRACE_WIDE_SET)() && x86_sets().v4;
    [[maybe_unused]] const bool dot = wide && x86_sets().avx512_bf16;
#ifdef HEADRACE_BF16_DOT
    sets.push_back({HR_NAME(_bf16), table, HR_JOIN(bf16_, HR_JOIN(HEADRACE_WIDE_SET, _bf16)), sequences, dot});
#endif
#ifdef HEADRACE_AMX
    const bool tiles = dot && may_use_tiles(HR_NAME(_amx));
    sets.push_back({HR_NAME(_amx), table, HR_JOIN(bf16_, HR_JOIN(HEADRACE_WIDE_SET, _amx)), sequences, tiles, true});
#endif
#ifdef HEADRACE_AMX_EMULATION
    sets.push_back({"amx_emulated", table, bf16_amx_emulated, sequences, wide, true, true});
#endif
#endif
    return sets;
}

}  // namespace

const std::vector<InstructionSet>& instruction_sets() {
    static const std::vector<InstructionSet> sets = compiled_sets();
    return sets;
}

std::string set_not_built() {
    std::string_view best = has_v4() ? "v4" : has_v3() ? "v3" : has_v2() ? "v2" : "", built;
#define X(set) built = has_##set() ? #set : built;
    HEADRACE_SETS
#undef X
    return std::string(built == "native" || built >= best ? "" : best);
}

namespace {

const InstructionSet& choose() {
    const auto& sets = instruction_sets();
    const char* wanted = std::getenv("HEADRACE_ISA");
    std::string supported;
    const InstructionSet* best = nullptr;
    for (const InstructionSet& set : sets) {
        if (!set.supported) continue;
        if (wanted && *wanted && std::string(wanted) == set.name) return set;
        if (set.emulated) continue;
        supported += (supported.empty() ? "" : ", ") + std::string(set.name);
        if (!set.on_request) best = &set;
    }
    if (wanted && *wanted)
        throw std::runtime_error("HEADRACE_ISA: expected one of " + supported +
                                 ", which this build has and this processor runs, got " + wanted);
    if (!best) throw std::runtime_error("headrace needs at least x86-64-v2 (SSE4.2)");
    return *best;
}

}  // namespace

const InstructionSet& active_isa() {
    static const InstructionSet& set = choose();
    return set;
}

}  // namespace headrace
