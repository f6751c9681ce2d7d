// All kinds of conditioners: how each is placed on a device. place_conditioner(site, step, own, host, inputs): what the
// kind's struct points to, and where on the tape its values and gradients are; `inputs` is the line of what it reads.
#pragma once

#include "conditioners/masked.hpp"
#ifdef HEADRACE_MORE_PLACING
#include HEADRACE_MORE_PLACING
#endif
