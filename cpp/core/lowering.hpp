// Conversion of a structure's transforms to the steps of a chain in one direction.
#pragma once

#include <memory>

#include "compiled.hpp"

namespace headrace {

// The steps of the transforms from `first` on. The result or the structure owns the memory to which the steps point.
template <class T>
std::shared_ptr<const Compiled<T>> lowered(const Structure& structure, bool inverse, size_t first, int number);

}  // namespace headrace
