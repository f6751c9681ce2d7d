// Device-only data in the struct of a kind of step or of conditioner.
#pragma once

namespace headrace {

// Nothing, of a kind that does not specialise it: of conditioners plan.hpp, of steps device_chain.hpp.
template <class S>
struct DevicePart {};

// A kind of step whose pointers and lines of the tape are a device's.
template <class S>
struct PlacedStep {
    S step;
    DevicePart<S> part;
};

}  // namespace headrace
