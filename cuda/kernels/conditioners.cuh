// Kinds of conditioners on a device, by overloads for their struct. A kind is run position by position, like on the CPU
// (steps/network.cuh), by
//   advance(team, c, known, from, to)        positions [from, to): the parameters of their coordinates
//   advance_back(team, c, known, from, to)   from the gradients by these to those by its inputs, and by its weights
// The team waits before and after each. A kind with another order has a whole run and a whole backward pass in their
// place, after each of which the team has waited:
//   run_conditioner(team, c, d, run, t)           all its positions, and their coordinates through the map
//   back_conditioner(team, c, d, tape, i, way)    d: the step that it is part of, the i-th
// A masked network's are in chain.cuh and gradient.cuh.
#pragma once

#include "tape.cuh"
#include "units.cuh"

namespace headrace {
namespace {

template <class T, bool in_shared>
struct Known {
    const NetworkStep<T>& step;
    const Call<T>& call;
    const T* weights;           // its first weight
    Lines<T, in_shared> input;  // its context, then its input coordinates, in their order
    Lines<T, in_shared> own;    // its lines
    bool is_recorded;           // whether these are lines of the tape
};

template <class T>
struct KnownBack {
    const NetworkStep<T>& step;
    const Call<T>& call;
    const T* weights;
    Lines<T, false> input, input_gradient;
    Lines<T, false> values, gradients;  // its lines of the tape, and the same number for gradients
};

}  // namespace
}  // namespace headrace

#ifdef HEADRACE_MORE_CONDITIONER_KERNELS
#include HEADRACE_MORE_CONDITIONER_KERNELS
#endif
