// One step of dual ascent on the device: the counterpart of cpp/kernels/dual_ascent-inl.hpp.
#pragma once

#include <vector>

#include "../../cpp/core/views.hpp"
#include "../include/memory.cuh"

namespace headrace {

// Output lines [begin, end) of an affine map, which read input lines [first, last). The tile's part of the matrix
// starts at `matrix`, with the elements of all output lines for each input line.
struct AscentTile {
    int begin, end, first, last;
    int64_t matrix;
};

// The memory layout of rows, and the partition of sums over rows, which depend only on the numbers of features and of
// rows.
struct AscentLayout {
    int features, tile_rows;  // tiles are [feature][tile_rows]
    int64_t rows, chunk_rows, chunks;

    int64_t tiles() const { return (rows + tile_rows - 1) / tile_rows; }
    int sums() const { return features * ascent_sum_count + 1; }
};
template <class T>
AscentLayout ascent_layout(int64_t rows, int features);

// The block diagonal matrix of the affine map as tiles, computed from the sizes of its blocks.
struct AscentStructure {
    std::vector<AscentTile> tiles;
    std::vector<int> block;    // first line of the block to which each line of the affine map belongs
    int64_t matrix = 0;        // number of matrix elements of all tiles
    int lines = 0, width = 0;  // largest number of lines that a tile reads, and that a tile can hold
    bool in_place = false;     // whether one tile reads and writes all lines
    bool fused = false;        // whether only one tile reads each line, so that the tile may map the line
};
AscentStructure ascent_structure(const std::vector<int>& blocks);

// The elements of a matrix, given block after block, row by row, in the layout of tiles.
template <class T>
std::vector<T> ascent_matrix(const AscentStructure& structure, const std::vector<int>& blocks,
                             const std::vector<double>& matrix);

// The parameters of one step, on the device.
template <class T>
struct AscentNumbers {
    const T *bend, *center, *square;  // parameters of each coordinate's map z + bend sqrt(square + (z - center)²)
    const double* log_scale;          // the term of the next affine map in the log-Jacobian
    const int* order;                 // line k of the affine map's input is coordinate order[k]
    const AscentTile* tiles;
    const T *matrix, *shift;
    const T *next_center, *next_square;  // center and square of the next map; null: no sums
};

// Moves all rows from `z` to `moved`, which are one array if the structure is in place. If the structure is not fused,
// `z` is overwritten. `partial` has a value for each sum and each chunk of rows; the sums are those of each coordinate
// (views.hpp), and then the sum of the log-Jacobians. weights may be null. Padding rows become 0.
template <class T>
void ascent_step(const AscentLayout& layout, const AscentStructure& structure, const AscentNumbers<T>& numbers, T* z,
                 T* moved, double* log_jacobian, const T* weights, double* partial, cudaStream_t stream);

// Computes sums[i], the sum over c of partial[i][c], in a fixed order.
void ascent_sums(const double* partial, int64_t chunks, int count, double* sums, cudaStream_t stream);

// ascent_load copies rows with any strides to tiles, and ascent_store copies tiles to adjacent rows.
template <class T>
void ascent_load(const AscentLayout& layout, const ArrayView& from, T* z, cudaStream_t stream);
template <class T>
void ascent_store(const AscentLayout& layout, const T* z, T* out, cudaStream_t stream);

// Computes the squared distance of each row from 0, in float64.
template <class T>
void ascent_squares(const AscentLayout& layout, const T* z, double* out, cudaStream_t stream);

}  // namespace headrace
