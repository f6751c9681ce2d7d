// Common data of the steps of a run and of its backward pass; the record that a run keeps of a tile, in global memory.
#pragma once

#include "../host/device_chain.hpp"
#include "tile.cuh"

namespace headrace {
namespace {

// Common data of every step of a run. Both constants are the kernel's: the products of networks, and whether it has the
// kinds of conditioners that others lack.
template <class T>
struct Run {
    const DeviceChain<T>& d;
    const Call<T>& call;
    Products products;
    bool has_all_kinds;
};

template <class T>
using TapeLines = Lines<T, false>;

template <class T>
struct Tape {
    const DeviceChain<T>& d;
    TapeLines<T> lines;

    __device__ TapeLines<T> state(int step) const { return lines.from(d.tape.states + int64_t(step) * d.slots()); }
    __device__ TapeLines<T> gradient(int step) const { return lines.from(d.tape.gradients + (step & 1) * d.slots()); }
};

// The backward pass of one tile. `grad_log_det`: the gradient by its lane's log-determinant.
template <class T>
struct WayBack {
    const Run<T>& run;
    const Back<T>& back;
    T grad_log_det;
    T* partial;
};

// Gradients by the context, which no step of its own changes.
template <class T>
__device__ void carry_context(const Team& team, const Tape<T>& t, int step) {
    copy_context(team, t.d.chain.context, t.gradient(step + 1), t.gradient(step));
}

}  // namespace
}  // namespace headrace
