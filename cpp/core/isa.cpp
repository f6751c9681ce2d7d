#include "isa.hpp"

#include <cstdlib>
#include <stdexcept>

namespace headrace {

#ifdef HEADRACE_X86_64
extern const Table table_v2, table_v3, table_v4;
extern const Bf16Kernels bf16_v2[], bf16_v3[], bf16_v4[], bf16_v4_bf16[];
#else
extern const Table table_native;
extern const Bf16Kernels bf16_native[];
#ifdef HEADRACE_NATIVE_BF16
extern const Bf16Kernels bf16_native_bf16[];
#endif
#endif

const std::vector<InstructionSet>& instruction_sets() {
    static const std::vector<InstructionSet> sets = [] {
#ifdef HEADRACE_X86_64
        __builtin_cpu_init();
        return std::vector<InstructionSet>{
            {"v2", &table_v2, bf16_v2, bool(__builtin_cpu_supports("x86-64-v2"))},
            {"v3", &table_v3, bf16_v3, bool(__builtin_cpu_supports("x86-64-v3"))},
            {"v4", &table_v4, bf16_v4, bool(__builtin_cpu_supports("x86-64-v4"))},
            {"v4_bf16", &table_v4, bf16_v4_bf16,
             __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512bf16")},
        };
#else
        return std::vector<InstructionSet>{
            {"native", &table_native, bf16_native, true},
#ifdef HEADRACE_NATIVE_BF16
            {"native_bf16", &table_native, bf16_native_bf16, true},
#endif
        };
#endif
    }();
    return sets;
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
        supported += (supported.empty() ? "" : ", ") + std::string(set.name);
        best = &set;
    }
    if (wanted && *wanted)
        throw std::runtime_error("HEADRACE_ISA: expected one of " + supported + " on this processor, got " + wanted);
    if (!best) throw std::runtime_error("headrace needs at least x86-64-v2 (SSE4.2)");
    return *best;
}

}  // namespace

const InstructionSet& active_isa() {
    static const InstructionSet& set = choose();
    return set;
}

}  // namespace headrace
