// A kind of step, or of conditioner, on a device: its own struct, and what the device adds to it.
#pragma once

namespace headrace {

// Nothing, of a kind that does not specialise it: of conditioners plan.hpp, of steps device_chain.hpp.
template <class S>
struct DevicePart {};

// All pointers, and lines of the tape, are the device's.
template <class S>
struct OnDevice {
    S step;
    DevicePart<S> part;
};

}  // namespace headrace
