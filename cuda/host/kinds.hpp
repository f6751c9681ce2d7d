// Kinds that have a file of their own for how they are placed on a device: what the kind's struct points to.
//   place_conditioner(site, step, own, host, inputs)   of conditioners, with their lines of the tape; `inputs` is the
//                                                      line of what it reads
//   place_step(site, own)                              of steps that work in place
#pragma once

#include "conditioners/masked.hpp"
#ifdef HEADRACE_MORE_PLACING
#include HEADRACE_MORE_PLACING
#endif
