// All kinds of conditioners: what they do, advance-inl.hpp says.
#pragma once

#include "conditioners/masked-inl.hpp"
