// The affine map of a step of dual ascent as tiles: the lines of each tile, and its matrix elements.
#include <algorithm>
#include <numeric>

#include "../include/launch.cuh"
#include "../kernels/dual_ascent.hpp"

namespace headrace {

AscentStructure ascent_structure(const std::vector<int>& blocks) {
    const int features = std::accumulate(blocks.begin(), blocks.end(), 0);
    std::vector<int> joined;  // sizes of blocks after joining small neighbours, or all blocks if one tile holds them
    const int room = features <= ascent_lines ? features : ascent_joined;
    for (int size : blocks) {
        if (!joined.empty() && joined.back() + size <= room) {
            joined.back() += size;
        } else {
            joined.push_back(size);
        }
    }
    AscentStructure s;
    s.lines = *std::max_element(joined.begin(), joined.end());
    s.fused = s.lines <= ascent_lines;
    s.in_place = joined.size() == 1 && s.fused;
    if (features <= 16) {
        s.width = s.lines;
    } else {
        int64_t least = INT64_MAX;
        for (int width : {64, 56, 48, 32}) {  // the width with the fewest unused lines is chosen
            const int64_t padded = int64_t(s.lines + width - 1) / width * width;
            if (padded < least) least = padded, s.width = width;
        }
    }
    int first = 0;
    for (int size : joined) {
        for (int begin = 0; begin < size; begin += s.width) {
            const int end = std::min(size, begin + s.width);
            s.tiles.push_back({first + begin, first + end, first, first + size, s.matrix});
            s.matrix += int64_t(size) * (end - begin);
        }
        first += size;
    }
    return s;
}

template <class T>
std::vector<T> ascent_matrix(const AscentStructure& structure, const std::vector<int>& blocks,
                             const std::vector<double>& matrix) {
    std::vector<T> tiled(size_t(structure.matrix));
    auto tile = structure.tiles.begin();
    size_t number = 0;
    int first = 0;
    for (int size : blocks) {
        for (int row = first; row < first + size; ++row) {
            while (row >= tile->end) ++tile;
            const size_t width = size_t(tile->end - tile->begin);
            T* const to = tiled.data() + tile->matrix + (row - tile->begin);
            for (int k = first; k < first + size; ++k) to[size_t(k - tile->first) * width] = T(matrix[number++]);
        }
        first += size;
    }
    return tiled;
}

template std::vector<float> ascent_matrix(const AscentStructure&, const std::vector<int>&, const std::vector<double>&);
template std::vector<double> ascent_matrix(const AscentStructure&, const std::vector<int>&, const std::vector<double>&);

}  // namespace headrace
