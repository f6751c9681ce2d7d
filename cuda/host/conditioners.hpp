// Functions that place conditioners on a device, one file for each kind of conditioner.
//
// place_conditioner(site, d, own, host, inputs) places `own`, the conditioner of d.step: its arrays, its lines of
// values and of gradients on the tape, its scratch lines, and its sums over rows. `inputs` is the first line of the
// tape that the conditioner reads.
#pragma once

#include "conditioners/masked.hpp"
#ifdef HEADRACE_MORE_PLACING
#include HEADRACE_MORE_PLACING
#endif
