// All kinds of conditioners. advance-inl.hpp describes their functions.
#pragma once

#include "conditioners/masked-inl.hpp"

#ifdef HEADRACE_MORE_CPU_KERNELS
#include HEADRACE_MORE_CPU_KERNELS
#endif
