// Running a program over a grid.
#pragma once

#include "warp.hpp"

namespace ptx {

// Runs a launch, and sets its data; warps keep their memory from launch to launch.
void run(Launch& launch, std::vector<Warp>& warps);

}  // namespace ptx
