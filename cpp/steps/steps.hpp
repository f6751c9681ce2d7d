// THE list of kinds of steps. Each kind of step has a struct of sizes and pointers (a file beside this one), and
// overloads of functions for the struct:
//
//   for_arrays(s, features, f)   calls f(pointer, number of values) for each array to which s points, except arrays of
//                                a network's conditioner, so that the arrays can be copied
//
// Further overloads are in core/lowering.cpp, ready.hpp, kernels/steps/, cuda/host/placing.cpp and cuda/kernels/steps/.
// docs/notes/core.md lists the files to change for a new kind.
#pragma once

#include "../math/lane.hpp"
#include "density.hpp"
#include "elementwise.hpp"
#include "marginal.hpp"
#include "move.hpp"
#include "network.hpp"
#include "rotation.hpp"
#include "scale.hpp"
#include "summed.hpp"
#include "support.hpp"
#include "vector.hpp"

// Tests build a module with a further kind: this macro names the header that adds the kind to the list.
#ifdef HEADRACE_MORE_STEPS
#include HEADRACE_MORE_STEPS
#else
#define HR_MORE_STEPS(X)
#endif

// X(name, struct) for each kind of step.
#define HR_STEPS(X)                 \
    X(network, NetworkStep)         \
    X(elementwise, ElementwiseStep) \
    X(vector, VectorStep)           \
    X(rotation, RotationStep)       \
    X(scale, ScaleStep)             \
    X(support, SupportStep)         \
    X(marginal, MarginalStep)       \
    X(density, DensityStep)         \
    X(move, MoveStep)               \
    HR_MORE_STEPS(X)

namespace headrace {

enum class StepKind : int {
#define HR_KIND(name, type) name,
    HR_STEPS(HR_KIND)
#undef HR_KIND
};

template <class T>
struct Step {
    StepKind kind;
    union {
#define HR_MEMBER(name, type) type<T> name;
        HR_STEPS(HR_MEMBER)
#undef HR_MEMBER
    };
    const Summed* summed;  // gradients of the step's weights that are summed over the rows
    int n_summed;
};

namespace {

// Calls f with the step's struct.
#ifdef __CUDACC__
#pragma nv_exec_check_disable  // f may be host-only
#endif
template <class S, class F>
HR_FN void with_step(S& step, F&& f) {
    switch (step.kind) {
#define HR_CASE(name, type) \
    case StepKind::name: f(step.name); break;
        HR_STEPS(HR_CASE)
#undef HR_CASE
    }
}

// Makes the member of the given kind the active one in a Step, or in a struct with the same members.
#define HR_BECOME(name, type)                       \
    template <class Any, class T>                   \
    HR_FN auto& become(Any& step, const type<T>&) { \
        step.kind = StepKind::name;                 \
        return step.name;                           \
    }
HR_STEPS(HR_BECOME)
#undef HR_BECOME

template <template <class> class Kind, class T>
HR_FN Step<T> step_of(const Kind<T>& own) {
    Step<T> step{};
    become(step, own) = own;
    return step;
}

}  // namespace
}  // namespace headrace
