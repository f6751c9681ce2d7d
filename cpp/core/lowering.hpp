// From the transforms of a structure to the steps of a chain in one direction.
#pragma once

#include <memory>

#include "compiled.hpp"

namespace headrace {

// The steps from `first` on. Memory that the result points to belongs to it or to the structure.
template <class T>
std::shared_ptr<const Compiled<T>> lowered(const Structure& structure, bool inverse, size_t first, int number);

}  // namespace headrace
