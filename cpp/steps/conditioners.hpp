// THE list of kinds of conditioners of rows. A conditioner turns the available coordinates of a row into the raw
// parameters of a map, position by position: a position is the set of coordinates that it determines at once. Each kind
// of conditioner has a class of the host (core/conditioner.hpp), and for kernels a plain struct of sizes and pointers
// (a file in conditioners/) with these overloads:
//
//   positions(c, n)             the number of positions of a call whose map moves n coordinates
//   first_coordinate(c, p)      the first of the coordinates that position p determines, or n if p is positions(c, n)
//   parameters(c, from, kept)   the line of the parameters of coordinate 0, or the line that they would have if only
//                               positions from `from` on are computed; parameters of one coordinate are adjacent;
//                               `kept` is true in a run that keeps the inputs of the backward pass
//   state_lines(c)              the number of lines that are kept from position to position, before all other lines
//   scratch_lines(c, span)      the number of further lines that `span` positions computed at once need
//   tape_lines(c, n)            the number of all lines in such a run of n positions
//
// The functions of a kind are in kernels/conditioners/: advance, advance_back. A kind whose code would cost other kinds
// registers on a device has a static member `has_own_kernel`, true: kernels of chains without the kind are compiled
// without its code.
#pragma once

#include "../math/lane.hpp"
#include "conditioners/masked.hpp"

// Tests build a module with a further kind: this macro names the header that adds the kind to the list.
#ifdef HEADRACE_MORE_CONDITIONERS
#include HEADRACE_MORE_CONDITIONERS
#else
#define HR_MORE_CONDITIONERS(X)
#endif

// X(name, struct) for each kind of conditioner of rows.
#define HR_ROW_CONDITIONERS(X) \
    X(masked, MaskedNetwork)   \
    HR_MORE_CONDITIONERS(X)

namespace headrace {

template <class C>
constexpr bool has_own_kernel = requires { requires C::has_own_kernel; };

enum class ConditionerKind : int {
#define HR_KIND(name, type) name,
    HR_ROW_CONDITIONERS(HR_KIND)
#undef HR_KIND
};

template <class T>
struct AnyConditioner {
    ConditionerKind kind;
    union {
#define HR_MEMBER(name, type) type<T> name;
        HR_ROW_CONDITIONERS(HR_MEMBER)
#undef HR_MEMBER
    };
};

namespace {

// Calls f with the conditioner's struct.
#ifdef __CUDACC__
#pragma nv_exec_check_disable  // f may be host-only
#endif
template <class C, class F>
HR_FN void with_conditioner(C& conditioner, F&& f) {
    switch (conditioner.kind) {
#define HR_CASE(name, type) \
    case ConditionerKind::name: f(conditioner.name); break;
        HR_ROW_CONDITIONERS(HR_CASE)
#undef HR_CASE
    }
}

}  // namespace
}  // namespace headrace
