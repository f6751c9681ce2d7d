// The choice of kinks between two steps of dual ascent, on the device: the positions of the next kinks, and the bends
// at the present kinks, which cpp/math/kink.hpp computes from the last sums.
#pragma once

#include "../../cpp/math/kink.hpp"
#include "dual_ascent.hpp"

namespace headrace {

// A rotation z = U x[order] on the device; `matrix` has the layout of the structure's tiles.
struct Turn {
    const double* matrix;
    const int* order;
    const AscentTile* tiles;
};

// Buffers for the parameters of a step, on the device.
template <class T>
struct AscentPlaces {
    T *bend, *center, *square, *matrix, *shift, *next_center, *next_square;
    double* log_scale;

    AscentNumbers<T> numbers(const Turn& turn) const {
        return {bend, center, square, log_scale, turn.order, turn.tiles, matrix, shift, next_center, next_square};
    }
};

// Sets all kinks to the identity a x + b + c r = x.
void ascent_identity(int features, Kink* kinks, cudaStream_t stream);

// Computes the step that moves coordinates through the kinks and then rotates them.
template <class T>
void ascent_prepare(const Turn& turn, int features, const Kink* kinks, const AscentPlaces<T>& places,
                    cudaStream_t stream);

// Sets centers and squares of the next kinks: the center of coordinate k is that of row rows[k] of the anchors, or
// drawn[k] where rows[k] is below 0.
void ascent_aim(const AscentLayout& anchors, const double* z, const int64_t* rows, const double* drawn,
                const KinkRule& rule, Kink* kinks, cudaStream_t stream);

// Copies the kinks to the buffers, for the step that computes the sums from which bends are chosen.
template <class T>
void ascent_next(int features, const Kink* kinks, const AscentPlaces<T>& places, cudaStream_t stream);

// Computes a, b and c of the kinks from the sums for these kinks.
void ascent_choose(int features, const double* sums, const KinkRule& rule, Kink* kinks, cudaStream_t stream);

// Computes the mean over rows of log-Jacobian - λ |z|² / 2 from the sums of a step.
void ascent_judge(int features, const double* sums, double precision, double total, double* out, cudaStream_t stream);

}  // namespace headrace
