// Kernels of one instruction set, compiled once for every set. The table is the only symbol with external linkage,
// which CI checks.
#include "../core/table.hpp"
#include "../core/set_name.hpp"

#include "adam-inl.hpp"
#include "backward-inl.hpp"
#include "chain-inl.hpp"
#include "coupling-inl.hpp"
#include "dual_ascent-inl.hpp"
#include "muon-inl.hpp"
#include "vector_rows-inl.hpp"

namespace headrace {
namespace {

template <class T>
constexpr KernelsOf<T> kernels() {
    return {run_tile<T>,
            run_small<T>,
            fold_context<T>,
            coupling<T>,
            coupling_backward<T>,
            vector_rows<T>,
            vector_rows_backward<T>,
            ascent_block<T>,
            ascent_load<T>,
            ascent_store<T>,
            record_tile<T>,
            backward_tile<T>,
            sum_weights<T>,
            adam<T>,
            sum_squares<T>,
            muon<T>,
            flush<T>,
            width<T>};
}

constexpr int chains = 12;

double fma_chain(int64_t rounds) noexcept {
    PackF sum[chains];
    for (int i = 0; i < chains; ++i) sum[i] = splat<PackF>(i + 1);
    const PackF factor = splat<PackF>(0.999), term = splat<PackF>(1e-3);
    for (int64_t k = 0; k < rounds; ++k)
        for (int i = 0; i < chains; ++i) sum[i] = sum[i] * factor + term;
    for (int i = 1; i < chains; ++i) sum[0] += sum[i];
    return double(reduce_add(sum[0]));
}

}  // namespace

extern const KernelTable HR_JOIN(table_, HR_ISA);
const KernelTable HR_JOIN(table_, HR_ISA) = {kernels<float>(), kernels<double>(), fma_chain,
                                             2.0 * chains * width<float>};

}  // namespace headrace
