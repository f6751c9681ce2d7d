// Loops over the sums of a block in registers.
#pragma once

#include "../math/pack.hpp"

#ifdef __clang__
#define HR_UNROLLED _Pragma("clang loop unroll(full)")
#else
#define HR_UNROLLED _Pragma("GCC unroll 8")
#endif

namespace headrace {
namespace {

// Calls f(m, n) for each sum of a block of M x N. The loops are unrolled before other optimisations, because GCC keeps
// an array in memory that several rolled loops share, and the sums must stay in registers.
template <int M, int N, class F>
HR_FN void for_sums(F&& f) {
    HR_UNROLLED
    for (int m = 0; m < M; ++m) {
        HR_UNROLLED
        for (int n = 0; n < N; ++n) f(m, n);
    }
}

}  // namespace
}  // namespace headrace
