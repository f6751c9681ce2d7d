// Functions that place conditioners on a device, in a file for each kind:
// place_conditioner(site, d, own, host, inputs) place the arrays of `own`, the conditioner of d.step; its lines of the
// tape and those of
// gradients by these; scratch lines; sums. `inputs` is the first line of the
// tape that it reads
#pragma once

#include "conditioners/masked.hpp"
#ifdef HEADRACE_MORE_PLACING
#include HEADRACE_MORE_PLACING
#endif
