// Every function of cpp/math on vectors of float32, compiled twice for each instruction set: with and without the
// compiler's permission to contract products and sums to multiply-adds. contraction.cpp is compiled both ways.
#pragma once

#include <cstdint>
#include <vector>

namespace headrace::tests {

// Appends the outputs of all functions for n inputs, where n is a multiple of `granule` (sets.hpp).
using Evaluate = void (*)(const float* inputs, int64_t n, std::vector<float>& results);

// HR_SETS is defined by CMake: X(v2) X(v3) ...
#define X(name) extern const Evaluate evaluate_##name, evaluate_##name##_apart;
HR_SETS
#undef X

}  // namespace headrace::tests
