// Muon (Jordan 2024): momentum by Nesterov's rule, made orthogonal as a matrix. The factors of a step, and its
// constants.
#pragma once

#include "adam.hpp"

namespace headrace {

// Factors of one step: those in common with Adam, and additional ones.
template <class T>
struct MuonStep {
    AdamStep<T> adam;
    T momentum, gain;  // gain: 1 - momentum
    T rate;            // singular values of an update, about
};

// Newton and Schulz: X becomes a X + b (X Xᵀ) X + c (X Xᵀ)² X. The singular values of a matrix of norm 1 that are above
// 0.0015 are between 0.68 and 1.21 after these steps.
constexpr int orthogonal_steps = 5;
constexpr double orthogonal_a = 3.4445, orthogonal_b = -4.7750, orthogonal_c = 2.0315;
constexpr double orthogonal_margin = 1.01;  // factor of the norm by which a matrix is divided: the norm is rounded
constexpr double orthogonal_least = 1e-12;  // added to it: a matrix of zeros stays one, and noise is not made large
// The singular values of an update at a learning rate of 1, about. One norm for all shapes needs the least change of
// the rate from table to table and from width to width, and its rates are near those of Adam.
constexpr double update_norm = 1.2;

}  // namespace headrace
