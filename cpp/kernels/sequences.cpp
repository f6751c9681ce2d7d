// Kernels of causal networks, compiled separately for every instruction set: their table is the only symbol with
// external linkage.
#include "../core/set_name.hpp"
#include "sequences/back-inl.hpp"
#include "sequences/panel-inl.hpp"
#include "sequences/sweep-inl.hpp"
#include "sequences/window-inl.hpp"

namespace headrace {
namespace {

template <class T>
constexpr SequenceKernelsOf<T> sequence_kernels() {
    return {causal_window_begin<T>, causal_window<T>, causal_window_end<T>, causal_step<T>,
            causal_fold<T>,         causal_record<T>, causal_back<T>,       causal_sweep<T>};
}

}  // namespace

extern const SequenceKernels HR_JOIN(sequences_, HR_ISA);
const SequenceKernels HR_JOIN(sequences_, HR_ISA) = {sequence_kernels<float>(), sequence_kernels<double>()};

}  // namespace headrace
