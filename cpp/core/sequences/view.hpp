// An array of sequences, for calls of either device.
#pragma once

#include <cstdint>

namespace headrace {

// An array (rows, steps, columns) as NumPy describes it: strides in bytes, any alignment.
struct SequenceView {
    const char* data = nullptr;
    int64_t row_stride = 0, step_stride = 0, column_stride = 0;
    bool is_double = false;
};

}  // namespace headrace
