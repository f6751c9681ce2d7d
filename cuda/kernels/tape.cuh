// Data that the steps of a run and of its backward pass share, and the tape, which is the record of a tile in global
// memory.
#pragma once

#include "../host/device_chain.hpp"
#include "tile.cuh"

namespace headrace {
namespace {

// Data that all steps of a run share. Two members are constants of the kernel: the products of networks, and whether
// the kernel has the kinds of conditioners that other kernels lack.
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

// The arguments of the backward pass of one tile. `grad_log_det` is the gradient by the log-determinant of the lane's
// row.
template <class T>
struct WayBack {
    const Run<T>& run;
    const Back<T>& back;
    T grad_log_det;
    T* partial;
};

// Copies gradients by the context past a step that does not change them.
template <class T>
__device__ void carry_context(const Team& team, const Tape<T>& t, int step) {
    copy_context(team, t.d.chain.context, t.gradient(step + 1), t.gradient(step));
}

}  // namespace
}  // namespace headrace
