// Kernels with a bug each, which the emulation must show: tests/device/test_cuda_emulation.py.
#pragma once

#include <string>
#include <vector>

// What the kernel with this bug gives. Throws std::invalid_argument for an unknown name.
std::vector<float> planted(const std::string& bug);
