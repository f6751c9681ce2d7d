// The buffers of kernels of steps: a tile of rows, or a small batch, with the slots of a chain and lines for units.
#pragma once

#include "../core/views.hpp"
#include "../math/pack.hpp"

namespace headrace {
namespace {

// A pointer to float32 values as a pointer to pairs of bf16 values in the same memory.
template <class T>
HR_FN uint32_t* as_pairs(T* numbers) {
    return reinterpret_cast<uint32_t*>(numbers);
}

template <class T>
HR_FN const uint32_t* as_pairs(const T* numbers) {
    return reinterpret_cast<const uint32_t*>(numbers);
}

template <class T>
struct TileBuffers {
    T *given, *built, *units;  // lines [slot][height] and [unit][height]
    T* sum;                    // log-determinants [height]
    uint32_t* pairs;           // pairs of bf16 values [pair][height]
    int vectors;               // number of used vectors, from the first on
    int64_t height;
    bool is_recorded = false;        // whether units are on the tape, where inputs of the backward pass are kept
    const Call<T>* drops = nullptr;  // seed and rows for dropout; null: no dropout
    int64_t row = 0;                 // index in the call of the tile's first row
};

// The number of used lanes of a line, rounded up to vectors; lines of a tape are longer than the last tile needs.
template <class T>
HR_FN int64_t used_lanes(const TileBuffers<T>& b) {
    return int64_t(b.vectors) * width<T>;
}

template <class T>
struct SmallBuffers {
    T *given, *built, *units;  // rows [row][stride]
    uint32_t* pairs;           // pairs of bf16 values [row][stride]
    T* sums;                   // sums of units in bf16 [row][stride]
    T* sum;                    // log-determinant of each row
    int rows;
    int64_t stride;
};

// ---- coordinates that pass through ----------------------------------------------------------------------------------

template <class T>
HR_FN void copy_slots(const TileBuffers<T>& b, const int* given, const int* built, int n) {
    for (int c = 0; c < n; ++c)
        for (int64_t i = 0; i < used_lanes(b); i += width<T>)
            store(b.built + built[c] * b.height + i, load(b.given + given[c] * b.height + i));
}

template <class T>
HR_FN void copy_slots(const SmallBuffers<T>& b, const int* given, const int* built, int n) {
    for (int r = 0; r < b.rows; ++r)
        for (int c = 0; c < n; ++c) b.built[r * b.stride + built[c]] = b.given[r * b.stride + given[c]];
}

}  // namespace
}  // namespace headrace
