#include "isa.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#include "platform.hpp"
#include "set_name.hpp"

namespace headrace {

// HEADRACE_SETS has the instruction sets that CMakeLists.txt compiles, the best one last: X(v2) X(v4), for example.
#define X(set)                                                       \
    extern const KernelTable table_##set;                            \
    extern const Bf16Kernels bf16_pairs_##set[], bf16_steps_##set[]; \
    extern const SequenceKernels sequences_##set;
HEADRACE_SETS
#undef X
#ifdef HEADRACE_WIDE_SET
extern const Bf16Kernels HR_JOIN(bf16_pairs_, HR_JOIN(HEADRACE_WIDE_SET, _bf16))[],
    HR_JOIN(bf16_steps_, HR_JOIN(HEADRACE_WIDE_SET, _bf16))[], HR_JOIN(bf16_steps_, HR_JOIN(HEADRACE_WIDE_SET, _amx))[];
extern const Bf16Kernels bf16_steps_amx_emulated[];
#endif

namespace {

// Whether the processor has a set; the functions are named as in HEADRACE_SETS.
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

// Kernels of one set for tiles of rows and of another set for small batches; tiles and small batches have separate
// weights.
struct Mixed {
    Bf16Kernels kernels[most_bf16_parts];
    Mixed(const Bf16Kernels* few, const Bf16Kernels* many) {
        for (int i = 0; i < most_bf16_parts; ++i) {
            Bf16Kernels& both = kernels[i] = many[i];
            both.round_row = few[i].round_row;
            both.add = few[i].add;
            both.finish = few[i].finish;
            both.layout.row_words = few[i].layout.row_words;
            both.layout.apart = true;
            both.round_weights = few[i].round_weights;
            if (!both.round_tile_weights) both.round_tile_weights = many[i].round_weights;
        }
    }
};

#define HR_TEXT_(text) #text
#define HR_TEXT(text) HR_TEXT_(text)
#define HR_NAME(kind) HR_TEXT(HR_JOIN(HEADRACE_WIDE_SET, kind))

// The set with the fastest products in bf16 for a processor: the first line of the table whose requirements the
// processor meets. The choice needs no timing at run time. VDPBF16PS takes half the time of the multiply-adds that it
// replaces on Zen 4 and Zen 5, and twice that time on Intel's Xeons. On Intel's processors only small batches are
// faster with VDPBF16PS, because small batches wait for the bytes of weights.
struct FastestProducts {
    bool tiles, intel;  // requirements of the line: that the processor has tiles, and that Intel made it
    const char* set;
};
#ifdef HEADRACE_WIDE_SET
constexpr FastestProducts fastest_products[] = {
    {true, false, HR_NAME(_amx)},
    {false, true, HR_NAME(_bf16_few)},
    {false, false, HR_NAME(_bf16)},
};
#else
constexpr FastestProducts fastest_products[] = {{true, false, ""}};
#endif

std::vector<InstructionSet> compiled_sets() {
#define X(set) {#set, &table_##set, bf16_pairs_##set, bf16_steps_##set, &sequences_##set, has_##set()},
    std::vector<InstructionSet> sets = {HEADRACE_SETS};
#undef X
#ifdef HEADRACE_WIDE_SET
    const KernelTable* const table = &HR_JOIN(table_, HEADRACE_WIDE_SET);
    const SequenceKernels* const sequences = &HR_JOIN(sequences_, HEADRACE_WIDE_SET);
    [[maybe_unused]] const bool wide = HR_JOIN(has_, HEADRACE_WIDE_SET)() && x86_sets().v4;
    [[maybe_unused]] const bool dot = wide && x86_sets().avx512_bf16;
    [[maybe_unused]] const Bf16Kernels* pairs = HR_JOIN(bf16_pairs_, HEADRACE_WIDE_SET);
#ifdef HEADRACE_AMX_EMULATION
    const InstructionSet emulated = {"amx_emulated", table, pairs, bf16_steps_amx_emulated,
                                     sequences,      wide,  false, true};
#endif
#ifdef HEADRACE_BF16_DOT
    const Bf16Kernels *const steps = HR_JOIN(bf16_steps_, HEADRACE_WIDE_SET),
                             *const pairs_by_dot = HR_JOIN(bf16_pairs_, HR_JOIN(HEADRACE_WIDE_SET, _bf16)),
                             *const steps_by_dot = HR_JOIN(bf16_steps_, HR_JOIN(HEADRACE_WIDE_SET, _bf16));
    static const Mixed few_pairs(pairs_by_dot, pairs), few_steps(steps_by_dot, steps);
    sets.push_back({HR_NAME(_bf16_few), table, few_pairs.kernels, few_steps.kernels, sequences, dot});
    sets.push_back({HR_NAME(_bf16), table, pairs_by_dot, steps_by_dot, sequences, dot});
    pairs = pairs_by_dot;
#endif
#ifdef HEADRACE_AMX
    const Bf16Kernels* const by_tiles = HR_JOIN(bf16_steps_, HR_JOIN(HEADRACE_WIDE_SET, _amx));
    sets.push_back({HR_NAME(_amx), table, pairs, by_tiles, sequences, dot && x86_sets().amx_bf16, true});
#endif
#ifdef HEADRACE_AMX_EMULATION
    sets.push_back(emulated);
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

// The set that HEADRACE_ISA names; null: any.
const char* wanted_set() {
    const char* const wanted = std::getenv("HEADRACE_ISA");
    return wanted && *wanted ? wanted : nullptr;
}

const InstructionSet* fastest(bool with_tiles) {
    for (const FastestProducts& line : fastest_products) {
        if ((line.tiles && !with_tiles) || (line.intel && !x86_sets().intel)) continue;
        for (const InstructionSet& set : instruction_sets())
            if (set.supported && std::string_view(set.name) == line.set) return &set;
    }
    return nullptr;
}

const InstructionSet& choose() {
    const char* const wanted = wanted_set();
    std::string supported;
    const InstructionSet* best = nullptr;
    for (const InstructionSet& set : instruction_sets()) {
        if (!set.supported) continue;
        if (wanted && std::string_view(wanted) == set.name && (!set.tiles || request_tiles())) return set;
        if (set.emulated) continue;
        supported += (supported.empty() ? "" : ", ") + std::string(set.name);
        if (!set.tiles) best = &set;
    }
    if (wanted)
        throw std::runtime_error("HEADRACE_ISA: expected one of " + supported +
                                 ", which this build has and this processor runs, got " + wanted);
    if (!best) throw std::runtime_error("headrace needs at least x86-64-v2 (SSE4.2)");
    const InstructionSet* const products = fastest(false);
    return products ? *products : *best;
}

const InstructionSet& expected_for_steps() {
    const InstructionSet* const set = wanted_set() ? nullptr : fastest(true);
    return set ? *set : active_isa();
}

std::atomic<const InstructionSet*> chosen_for_steps{nullptr};

}  // namespace

const InstructionSet& active_isa() {
    static const InstructionSet& set = choose();
    return set;
}

bool is_granted(const InstructionSet& expected, bool (*request)()) {
    return !expected.tiles || request();
}

const InstructionSet& isa_of_steps() {
    static const InstructionSet& set = []() -> const InstructionSet& {
        const InstructionSet& expected = expected_for_steps();
        const InstructionSet& used = is_granted(expected, request_tiles) ? expected : active_isa();
        chosen_for_steps = &used;
        return used;
    }();
    return set;
}

const char* name_of_isa_of_steps() {
    const InstructionSet* const chosen = chosen_for_steps;
    return (chosen ? *chosen : expected_for_steps()).name;
}

}  // namespace headrace
