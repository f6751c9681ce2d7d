// All kinds of conditioners, whose functions advance-inl.hpp describes.
#pragma once

#include "conditioners/masked-inl.hpp"

#ifdef HEADRACE_MORE_CPU_KERNELS
#include HEADRACE_MORE_CPU_KERNELS
#endif
