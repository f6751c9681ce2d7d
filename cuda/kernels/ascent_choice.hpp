// The choice of kinks between two steps of an ascent, on the device: the positions of the next kinks, and the bends of
// coordinates there from the last sums, by cpp/math/kink.hpp.
#pragma once

#include "../../cpp/math/kink.hpp"
#include "dual_ascent.hpp"

namespace headrace {

// A turn z = U x[order] on the device; `matrix` in the form of the structure's tiles.
struct Turn {
    const double* matrix;
    const int* order;
    const AscentTile* tiles;
};

// Buffers for a step, on the device.
template <class T>
struct AscentPlaces {
    T *bend, *center, *square, *matrix, *shift, *next_center, *next_square;
    double* log_scale;

    AscentNumbers<T> numbers(const Turn& turn) const {
        return {bend, center, square, log_scale, turn.order, turn.tiles, matrix, shift, next_center, next_square};
    }
};

// All kinks as a x + b + c r = x.
void ascent_identity(int features, Kink* kinks, cudaStream_t stream);

// The step that takes coordinates through the kinks, and then turns them.
template <class T>
void ascent_prepare(const Turn& turn, int features, const Kink* kinks, const AscentPlaces<T>& places,
                    cudaStream_t stream);

// The next kinks' centers and squares: coordinate k of row rows[k] of the anchors, or drawn[k] where that is below 0.
void ascent_aim(const AscentLayout& anchors, const double* z, const int64_t* rows, const double* drawn,
                const KinkRule& rule, Kink* kinks, cudaStream_t stream);

// The buffers as arguments of the step whose sums choose the kinks.
template <class T>
void ascent_next(int features, const Kink* kinks, const AscentPlaces<T>& places, cudaStream_t stream);

// a, b and c of the kinks from the sums at them.
void ascent_choose(int features, const double* sums, const KinkRule& rule, Kink* kinks, cudaStream_t stream);

// The mean over rows of their log-Jacobian - λ |z|² / 2, from these sums.
void ascent_judge(int features, const double* sums, double precision, double total, double* out, cudaStream_t stream);

}  // namespace headrace
