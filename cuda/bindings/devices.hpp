// The devices that this process can use, and the reasons where one cannot be used: found without work on any of them.
#pragma once

#include <string>

#include "../include/memory.cuh"

namespace headrace {

// For each device: empty if kernels can run there, else the reason.
std::string device_reason(int device);

// Why no device at all can be used; empty if one can.
std::string reason_without_devices();

// Zero if no device can be used. Otherwise the number of all, because other libraries count unusable ones too.
int device_count();

std::string device_name(int device);
std::string device_capability(int device);  // "9.0"

// Whether this build has no machine code for a device, so that its driver compiles kernels at their first use.
bool is_compiled_by_driver(int device);

std::string architectures();  // "80-real 90-virtual": this build's code, in CMake's notation
int driver_version();         // 13000 is 13.0; 0 without a driver
int runtime_version();

}  // namespace headrace
