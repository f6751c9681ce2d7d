// Placement of the kinds of conditioners on a device, each in a file of its own:
//   place_conditioner(site, d, own, host, inputs)   what `own`, d.step's, points to; its lines of the tape and those of
//                                                   gradients by them; scratch lines; sums. `inputs` is the line of the
//                                                   tape from which on it reads
#pragma once

#include "conditioners/masked.hpp"
#ifdef HEADRACE_MORE_PLACING
#include HEADRACE_MORE_PLACING
#endif
