// Additional device data in the structs of kinds of steps and of conditioners.
#pragma once

namespace headrace {

// The device data of a kind of step or conditioner, empty without a specialisation. Specialisations for conditioners
// are in plan.hpp, those for steps in device_chain.hpp.
template <class S>
struct DevicePart {};

// A step whose pointers and lines of the tape are on a device.
template <class S>
struct PlacedStep {
    S step;
    DevicePart<S> part;
};

}  // namespace headrace
