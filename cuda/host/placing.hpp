// Copies a compiled chain to a device: the arrays to which its steps point, the order of its networks' stages, and the
// layout of the tape of the backward pass.
#pragma once

#include "../../cpp/core/compiled.hpp"
#include "../../cpp/core/structure.hpp"
#include "../kernels/gradient.hpp"
#include "arena.hpp"
#include "device_chain.hpp"

namespace headrace {

template <class T>
struct Placed {
    DeviceChain<T> chain;
    SumTasks<T> sums;  // sums over rows that make the gradient by weights
};

template <class T>
Placed<T> place_chain(Arena& arena, const Structure& structure, const Compiled<T>& compiled);

}  // namespace headrace
