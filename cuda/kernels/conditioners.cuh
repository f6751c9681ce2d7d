// Kinds of conditioners on a device: overloads of functions for the structs of cpp/steps. Two functions compute a kind
// position by position, as on the CPU (steps/network.cuh); the team waits before and after each:
//
// - advance(team, c, known, from, to) computes the parameters of the coordinates of positions [from, to).
// - advance_back(team, c, known, from, to) computes gradients by inputs and weights from gradients by parameters.
//
// A kind of conditioner that is not computed by position has two other functions, which end with a wait of the team:
//
// - run_conditioner(team, c, d, run, t) computes all positions, and maps their coordinates.
// - back_conditioner(team, c, d, tape, i, way) is the backward pass of step d, which is the i-th of the chain.
//
// Masked networks have run_conditioner in chain.cuh and back_conditioner in gradient.cuh.
#pragma once

#include "tape.cuh"
#include "units.cuh"

namespace headrace {
namespace {

template <class T, bool in_shared>
struct Known {
    const NetworkStep<T>& step;
    const Call<T>& call;
    const T* weights;           // first weight of the conditioner
    Lines<T, in_shared> input;  // context of the conditioner, then its input coordinates, in the order of its inputs
    Lines<T, in_shared> own;    // lines of the conditioner
    bool is_recorded;           // whether the conditioner's lines are on the tape
};

template <class T>
struct KnownBack {
    const NetworkStep<T>& step;
    const Call<T>& call;
    const T* weights;
    Lines<T, false> input, input_gradient;
    Lines<T, false> values, gradients;  // lines of the conditioner on the tape, and as many for gradients
};

}  // namespace
}  // namespace headrace

#ifdef HEADRACE_MORE_CONDITIONER_KERNELS
#include HEADRACE_MORE_CONDITIONER_KERNELS
#endif
