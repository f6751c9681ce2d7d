// The devices that this process can use, and why other devices cannot be used, both without work on any device.
#pragma once

#include <string>

#include "../include/memory.cuh"

namespace headrace {

// The reason why kernels cannot run on a device; empty if they can.
std::string device_reason(int device);

// The reason why no device can be used; empty if one can.
std::string reason_without_devices();

// The number of devices: zero if no device can be used, otherwise the number of all, because other libraries also count
// unusable devices.
int device_count();

std::string device_name(int device);
std::string device_capability(int device);  // "9.0", for example

// Whether this build has no machine code for a device, so that its driver compiles kernels at their first use.
bool is_compiled_by_driver(int device);

std::string architectures();  // the code of this build in CMake's notation: "80-real 90-virtual", for example
int driver_version();         // 13000 stands for 13.0; 0 without a driver
int runtime_version();

}  // namespace headrace
