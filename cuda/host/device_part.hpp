// Device-only data in the struct of a kind of step or of conditioner.
#pragma once

namespace headrace {

// Empty for a kind without a specialisation: conditioners have theirs in plan.hpp, steps in device_chain.hpp.
template <class S>
struct DevicePart {};

// A kind of step whose pointers and lines of the tape are a device's.
template <class S>
struct PlacedStep {
    S step;
    DevicePart<S> part;
};

}  // namespace headrace
