// Runs a program over a grid.
#pragma once

#include "warp.hpp"

namespace ptx {

// Fills in the data of only this launch; warps keep their memory from launch to launch.
void run(Launch& launch, std::vector<Warp>& warps);

}  // namespace ptx
