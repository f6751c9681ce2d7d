// Kinds of conditioners on a device. A masked network has stages of its own (chain.cuh, gradient.cuh); any other kind
// is run position by position, as on the CPU (cpp/kernels/steps/network-inl.hpp), by overloads for its struct:
//   advance(team, c, known, from, to)        positions [from, to): the parameters of their coordinates
//   advance_back(team, c, known, from, to)   from the gradients by these to those by what it read, and by its weights
// The team waits before and after each.
#pragma once

#include "units.cuh"

namespace headrace {
namespace {

template <class T, bool in_shared>
struct Known {
    const NetworkStep<T>& step;
    const Call<T>& call;
    const T* weights;           // its own first one
    Lines<T, in_shared> input;  // its context, then the coordinates that it reads, in their order
    Lines<T, in_shared> own;    // its lines
    bool is_recorded;           // they are those of the tape
};

template <class T>
struct KnownBack {
    const NetworkStep<T>& step;
    const Call<T>& call;
    const T* weights;
    Lines<T, false> input, input_gradient;
    Lines<T, false> values, gradients;  // its lines of the tape, and as many for gradients
};

// Calls f(own struct) of a conditioner that is run position by position; false: it is a masked network.
template <class T, class F>
__device__ bool with_positions(const DeviceStep<T>& d, const F& f) {
    bool is_run = false;
    with_conditioner(d.step.network.conditioner, [&]<class C>(const C& c) {
        if constexpr (!std::is_same_v<C, MaskedNetwork<T>>) {
            f(c);
            is_run = true;
        }
    });
    return is_run;
}

}  // namespace
}  // namespace headrace

#ifdef HEADRACE_MORE_CONDITIONER_KERNELS
#include HEADRACE_MORE_CONDITIONER_KERNELS
#endif
