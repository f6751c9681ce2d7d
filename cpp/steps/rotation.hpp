// A step that multiplies the coordinates by a block diagonal matrix, [built slot][given slot], and gradients by its
// transpose. Block i maps coordinates in slots [first[i], first[i + 1]) to the same slots; a dense matrix is one block.
#pragma once

#include <cstdint>

namespace headrace {

template <class T>
struct RotationStep {
    static constexpr bool in_place = false;

    const T *matrix, *transpose, *zeros;  // block after block, row by row
    const uint32_t* row;                  // offset of each row of the matrix, whose length is the width of its block
    const int* first;
    int blocks;
};

}  // namespace headrace
