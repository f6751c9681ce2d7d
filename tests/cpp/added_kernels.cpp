// Kernels of programs for test_added.cpp: those of the compiler's default instruction set, with an additional
// conditioner.
#include "../../cpp/core/table.hpp"

#include "../../cpp/core/isa.hpp"
#include "../../cpp/kernels/backward-inl.hpp"

namespace headrace {

// Replaces isa.cpp, which lists the kernels of the library.
const InstructionSet& active_isa() {
    static const KernelTable table = [] {
        KernelTable made{};
        made.f64.run_tile = run_tile<double>;
        made.f64.run_small = run_small<double>;
        made.f64.record_tile = record_tile<double>;
        made.f64.backward_tile = backward_tile<double>;
        made.f64.sum_weights = sum_weights<double>;
        made.f64.width = width<double>;
        return made;
    }();
    static const InstructionSet set{"test", &table, nullptr, nullptr, nullptr, true};
    return set;
}

const InstructionSet& isa_of_steps() {
    return active_isa();
}

}  // namespace headrace
