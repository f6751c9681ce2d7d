// Kinds of conditioners on a device, by overloads for their structs. A kind is computed position by position, as on the
// CPU (steps/network.cuh), by
// advance(team, c, known, from, to) parameters of the coordinates of positions [from, to)
// advance_back(team, c, known, from, to) gradients by inputs and weights, from those by parameters
// The team waits before and after each of these. A kind with another order has functions for a whole run and a whole
// backward pass instead, and the team has waited at the end of each:
// run_conditioner(team, c, d, run, t) all positions, and the map of their coordinates
// back_conditioner(team, c, d, tape, i, way) d: its step, the i-th of the chain
// chain.cuh and gradient.cuh have these functions for masked networks.
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
    bool is_recorded;           // whether these lines are on the tape
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
