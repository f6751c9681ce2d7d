// All kinds of conditioners: what they do, advance-inl.hpp says.
#pragma once

#include "conditioners/masked-inl.hpp"

#ifdef HEADRACE_MORE_CPU_KERNELS
#include HEADRACE_MORE_CPU_KERNELS
#endif
