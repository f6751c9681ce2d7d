// Kernels with a bug each, which the emulation must show: tests/device/test_cuda_emulation.py.
#pragma once

#include <string>
#include <vector>

// The result of the kernel with this bug. Throws std::invalid_argument for an unknown name.
std::vector<float> planted(const std::string& bug);
