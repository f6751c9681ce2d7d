// Kinds of steps on a device that work in place and have a file of their own, by overloads for their struct:
//   run_in_place(team, s, given, built, context, features)   from lines to lines, which may be the same; the
//   log-determinant back_in_place(team, s, given, built, after, before, context, features, grad_log_det)   from
//   gradients to gradients
// The team waits before and after each. Other kinds are cases in chain.cuh and gradient.cuh.
#pragma once

#include "tile.cuh"

#ifdef HEADRACE_MORE_STEP_KERNELS
#include HEADRACE_MORE_STEP_KERNELS
#endif
