#include "isa.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(HEADRACE_AMX) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace headrace {

#ifdef HEADRACE_X86_64
extern const Table table_v2, table_v3, table_v4;
extern const Bf16Kernels bf16_v2[], bf16_v3[], bf16_v4[], bf16_v4_bf16[], bf16_v4_amx[];
#else
extern const Table table_native;
extern const Bf16Kernels bf16_native[], bf16_native_bf16[], bf16_native_amx[];
#endif
extern const Bf16Kernels bf16_amx_emulated[];

namespace {

#ifdef HEADRACE_AMX
// Whether the processor has the instructions for tiles of bf16, and the system lets this process use their registers.
// It has to be asked for that, and is where HEADRACE_ISA names the set: signal stacks of threads must be larger then.
bool may_use_tiles(const char* name) {
#ifdef __linux__
    constexpr unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24;  // leaf 7, EDX
    constexpr long request_permission = 0x1023, tile_data = 18;   // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    if (!(d & amx_bf16) || !(d & amx_tile)) return false;
    const char* const wanted = std::getenv("HEADRACE_ISA");
    return !wanted || std::string(wanted) != name || syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return name && false;
#endif
}
#endif

std::vector<InstructionSet> compiled_sets() {
    std::vector<InstructionSet> sets;
#ifdef HEADRACE_X86_64
    __builtin_cpu_init();
    const bool v4 = __builtin_cpu_supports("x86-64-v4"), dot = v4 && __builtin_cpu_supports("avx512bf16");
    sets = {
        {"v2", &table_v2, bf16_v2, bool(__builtin_cpu_supports("x86-64-v2"))},
        {"v3", &table_v3, bf16_v3, bool(__builtin_cpu_supports("x86-64-v3"))},
        {"v4", &table_v4, bf16_v4, v4},
        {"v4_bf16", &table_v4, bf16_v4_bf16, dot},
    };
    [[maybe_unused]] const Table* const table = &table_v4;
#ifdef HEADRACE_AMX
    sets.push_back({"v4_amx", table, bf16_v4_amx, dot && may_use_tiles("v4_amx"), true});
#endif
#else
    sets = {{"native", &table_native, bf16_native, true}};
    [[maybe_unused]] const Table* const table = &table_native;
#ifdef HEADRACE_NATIVE_BF16
    sets.push_back({"native_bf16", table, bf16_native_bf16, true});
#endif
#ifdef HEADRACE_AMX
    sets.push_back({"native_amx", table, bf16_native_amx, may_use_tiles("native_amx"), true});
#endif
#endif
#ifdef HEADRACE_AMX_EMULATION
    sets.push_back({"amx_emulated", table, bf16_amx_emulated, bool(__builtin_cpu_supports("x86-64-v4")), true, true});
#endif
    return sets;
}

}  // namespace

const std::vector<InstructionSet>& instruction_sets() {
    static const std::vector<InstructionSet> sets = compiled_sets();
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
        if (set.emulated) continue;
        supported += (supported.empty() ? "" : ", ") + std::string(set.name);
        if (!set.on_request) best = &set;
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
