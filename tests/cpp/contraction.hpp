// Every function of cpp/math on vectors of float32, compiled twice for each instruction set: where the compiler may
// contract products and sums to multiply-adds, and where it may not. contraction.cpp is that source.
#pragma once

#include <cstdint>
#include <vector>

namespace headrace::tests {

// Appends what all functions make of n inputs, a multiple of `granule` (sets.hpp).
using Evaluate = void (*)(const float* inputs, int64_t n, std::vector<float>& results);

// HR_SETS comes from CMake: X(v2) X(v3) ...
#define X(name) extern const Evaluate evaluate_##name, evaluate_##name##_apart;
HR_SETS
#undef X

}  // namespace headrace::tests
