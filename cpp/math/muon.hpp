// Muon (Jordan 2024): momentum by Nesterov's rule, made orthogonal as a matrix. This file has the factors and constants
// of a step.
#pragma once

#include "adam.hpp"

namespace headrace {

// Factors of one step of Muon: the factors of Adam, and further ones that only Muon has.
template <class T>
struct MuonStep {
    AdamStep<T> adam;
    T momentum, gain;  // decay of the momentum, and gain = 1 - momentum
    T rate;            // approximate singular values of an update
};

// An iteration of Newton and Schulz: X becomes a X + b (X Xᵀ) X + c (X Xᵀ)² X. The singular values of a matrix of norm
// 1 that are above 0.0015 are between 0.68 and 1.21 after orthogonal_steps iterations.
constexpr int orthogonal_steps = 5;
constexpr double orthogonal_a = 3.4445, orthogonal_b = -4.7750, orthogonal_c = 2.0315;
constexpr double orthogonal_margin = 1.01;  // factor of the norm by which a matrix is divided, because the norm is
                                            // rounded
constexpr double orthogonal_least = 1e-12;  // added to the norm, so that zeros stay zeros and noise is not enlarged
// The approximate singular values of an update at a learning rate of 1. With one norm for all shapes the best learning
// rate varies least between tables and between widths, and is near the best rate of Adam.
constexpr double update_norm = 1.2;

}  // namespace headrace
