// The working set of the steps' kernels: a tile of rows, or a small batch, with the slots of a chain and lines for
// units.
#pragma once

#include "../core/views.hpp"
#include "../math/pack.hpp"

namespace headrace {
namespace {

// Pairs of bf16 values replace a float32.
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
    T *given, *built, *units;  // [slot][height], [unit][height]
    T* sum;                    // [height]: log-determinants
    uint32_t* pairs;           // [pair][height]: of bf16 values
    int vectors;               // in use, from the first
    int64_t height;
    bool is_recorded = false;        // units are on the tape, where inputs of the backward pass are kept
    const Call<T>* drops = nullptr;  // seed and rows for dropout, if it acts
    int64_t row = 0;                 // index in the call of the tile's first row
};

// The used lanes of a line, rounded up to vectors; a tape has longer lines where its last tile is low.
template <class T>
HR_FN int64_t used_lanes(const TileBuffers<T>& b) {
    return int64_t(b.vectors) * width<T>;
}

template <class T>
struct SmallBuffers {
    T *given, *built, *units;  // [row][stride]
    uint32_t* pairs;           // [row][stride]: of bf16 values
    T* sums;                   // [row][stride]: of units in bf16
    T* sum;                    // [row]
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
