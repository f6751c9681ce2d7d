// All kinds of steps, and runs through a chain of steps. Each kind of step has overloads of the following functions for
// its struct, in steps/:
//
//   run_step(step, chain, call, buffers)              runs a tile, or a small batch if the kind has such a kernel
//   record_step(step, tape, call, number)             runs a tile, from one state on the tape to the next state
//   backward_step(step, tape, call, back, number, n)  computes a gradient on the tape from the gradient after the step
//
// `number` is the index of the step among all steps, and `n` its index among the steps that have weights.
#pragma once

#include "steps/density-inl.hpp"
#include "steps/elementwise-inl.hpp"
#include "steps/marginal-inl.hpp"
#include "steps/move-inl.hpp"
#include "steps/network-inl.hpp"
#include "steps/rotation-inl.hpp"
#include "steps/scale-inl.hpp"
#include "steps/support-inl.hpp"
#include "steps/vector-inl.hpp"

namespace headrace {
namespace {

// Runs all steps of a chain; the result is in b.given.
template <class T, class Buffers>
HR_FN void run_steps(const Chain<T>& chain, const Call<T>& call, Buffers& b) {
    for (int s = 0; s < chain.n_steps; ++s)
        with_step(chain.steps[s], [&]<class S>(const S& step) {
            if constexpr (requires { run_step(step, chain, call, b); }) run_step(step, chain, call, b);
            if constexpr (S::in_place) return;
            T* const given = b.given;
            b.given = b.built;
            b.built = given;
        });
}

}  // namespace
}  // namespace headrace
