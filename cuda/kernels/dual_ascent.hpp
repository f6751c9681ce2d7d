// One step of dual ascent on the device: the counterpart of cpp/kernels/dual_ascent-inl.hpp.
#pragma once

#include <vector>

#include "../../cpp/core/views.hpp"
#include "../include/memory.cuh"

namespace headrace {

// Output lines [begin, end) of an affine map, which read input lines [first, last). Their part of the matrix starts at
// `matrix`: for each input line the elements of all output lines.
struct AscentTile {
    int begin, end, first, last;
    int64_t matrix;
};

// Memory layout of rows of this number of features, and the partition of sums over them: both depend only on shapes.
struct AscentLayout {
    int features, tile_rows;  // tiles are [feature][tile_rows]
    int64_t rows, chunk_rows, chunks;

    int64_t tiles() const { return (rows + tile_rows - 1) / tile_rows; }
    int sums() const { return features * ascent_sum_count + 1; }
};
template <class T>
AscentLayout ascent_layout(int64_t rows, int features);

// The affine map's block diagonal matrix as tiles: from the sizes of its blocks.
struct AscentStructure {
    std::vector<AscentTile> tiles;
    std::vector<int> block;    // first line of the block that each line of the affine map is in
    int64_t matrix = 0;        // matrix elements of all tiles
    int lines = 0, width = 0;  // most lines that a tile reads, and can hold
    bool in_place = false;     // one tile reads and writes all lines
    bool fused = false;        // each line is read by only one tile, which may map it
};
AscentStructure ascent_structure(const std::vector<int>& blocks);

// A matrix, block after block, row by row, in the tiles' layout.
template <class T>
std::vector<T> ascent_matrix(const AscentStructure& structure, const std::vector<int>& blocks,
                             const std::vector<double>& matrix);

// Data of one step, on the device.
template <class T>
struct AscentNumbers {
    const T *bend, *center, *square;  // of each coordinate's map z + bend sqrt(square + (z - center)²)
    const double* log_scale;          // the next affine map's term of the log-Jacobian
    const int* order;                 // line k of the affine map's input is coordinate order[k]
    const AscentTile* tiles;
    const T *matrix, *shift;
    const T *next_center, *next_square;  // of the next map; null: no sums
};

// Moves all rows from `z` to `moved`, which are the same where the structure is in place; where it is not fused, `z` is
// written, too. partial: for each sum and chunk of rows; the sums are those of views.hpp of each coordinate, and last
// that of the log-Jacobians. weights may be null. Rows beyond the last one become 0.
template <class T>
void ascent_step(const AscentLayout& layout, const AscentStructure& structure, const AscentNumbers<T>& numbers, T* z,
                 T* moved, double* log_jacobian, const T* weights, double* partial, cudaStream_t stream);

// sums[i] of partial[i][chunks], in a fixed order.
void ascent_sums(const double* partial, int64_t chunks, int count, double* sums, cudaStream_t stream);

// Rows in any strides to tiles, and tiles to adjacent rows.
template <class T>
void ascent_load(const AscentLayout& layout, const ArrayView& from, T* z, cudaStream_t stream);
template <class T>
void ascent_store(const AscentLayout& layout, const T* z, T* out, cudaStream_t stream);

// Squares of each row's distance from 0, in float64.
template <class T>
void ascent_squares(const AscentLayout& layout, const T* z, double* out, cudaStream_t stream);

}  // namespace headrace
