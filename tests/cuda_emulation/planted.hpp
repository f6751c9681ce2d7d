// Kernels with one bug each, which the emulation must detect (tests/device/test_cuda_emulation.py).
#pragma once

#include <string>
#include <vector>

// The result of the kernel with the named bug. Throws std::invalid_argument for an unknown name.
std::vector<float> planted(const std::string& bug);
