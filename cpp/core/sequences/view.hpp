// Views of arrays of sequences, for calls of the CPU and of a device.
#pragma once

#include <cstdint>
#include <cstring>

namespace headrace {

// A view of an array (rows, steps, columns), as in NumPy: strides are in bytes, and any alignment is allowed.
struct SequenceView {
    const char* data = nullptr;
    int64_t row_stride = 0, step_stride = 0, column_stride = 0;
    bool is_double = false;
};

// Loads steps [begin, end) of a row as [step][column].
template <class T>
void load_steps(const SequenceView& view, int64_t row, int64_t begin, int64_t end, int64_t columns, T* to) {
    const char* line = view.data + row * view.row_stride + begin * view.step_stride;
    for (int64_t t = begin; t < end; ++t, line += view.step_stride) {
        const char* at = line;
        for (int64_t c = 0; c < columns; ++c, at += view.column_stride)
            if (view.is_double) {
                double value;
                std::memcpy(&value, at, sizeof value);
                *to++ = T(value);
            } else {
                float value;
                std::memcpy(&value, at, sizeof value);
                *to++ = T(value);
            }
    }
}

}  // namespace headrace
