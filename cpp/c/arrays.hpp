// A caller's arrays: checks before the core reads them, and memory for results that the core cannot write in place.
#pragma once

#include <vector>

#include "../core/views.hpp"
#include "failure.hpp"

namespace headrace {

// The range of bytes of an array's values, relative to its `data` pointer, and whether no two values overlap.
struct Extent {
    int64_t begin = 0, end = 0;          // range of the whole array
    int64_t row_begin = 0, row_end = 0;  // range of the first row
    int64_t row_stride = 0;              // distance of rows in bytes
    bool is_distinct = true;
};

template <class Given>
Extent extent_of(const char* name, const Given& a) {
    const int64_t size = a.dtype == HEADRACE_FLOAT64 ? 8 : 4;
    const auto far = [&](int64_t stride, int64_t count) {  // bytes from the first value to the last
        int64_t bytes = 0;
        const bool overflows = __builtin_mul_overflow(stride, size, &bytes) ||
                               __builtin_mul_overflow(bytes, count > 0 ? count - 1 : 0, &bytes) ||
                               bytes > INT64_MAX / 8 || bytes < -(INT64_MAX / 8);
        require(!overflows, HEADRACE_BAD_ARGUMENT, name, ": expected strides within memory");
        return bytes;
    };
    Extent e;
    const int64_t by_row = far(a.row_stride, a.rows), by_column = far(a.column_stride, a.columns);
    e.row_begin = by_column < 0 ? by_column : 0;
    e.row_end = (by_column > 0 ? by_column : 0) + size;
    e.begin = e.row_begin + (by_row < 0 ? by_row : 0);
    e.end = e.row_end + (by_row > 0 ? by_row : 0);
    e.row_stride = a.rows > 1 ? a.row_stride * size : 0;
    const int64_t row = a.row_stride < 0 ? -a.row_stride : a.row_stride;
    const int64_t column = a.column_stride < 0 ? -a.column_stride : a.column_stride;
    const bool steps = (a.rows < 2 || row > 0) && (a.columns < 2 || column > 0);
    const bool rows_are_apart = a.rows < 2 || row > column * (a.columns - 1);
    const bool columns_are_apart = a.columns < 2 || column > row * (a.rows - 1);
    e.is_distinct = steps && (rows_are_apart || columns_are_apart);
    return e;
}

// Checks dtype, shape and pointer of an array.
template <class Given>
void check_array(const char* name, const Given& a, int64_t columns, headrace_code wrong_shape) {
    require(a.dtype == HEADRACE_FLOAT32 || a.dtype == HEADRACE_FLOAT64, HEADRACE_BAD_DTYPE, name,
            ": dtype: expected HEADRACE_FLOAT32 or HEADRACE_FLOAT64, got ", a.dtype);
    require(a.rows >= 0, wrong_shape, name, ": rows: expected at least 0, got ", a.rows);
    require(a.columns == columns, wrong_shape, name, ": expected ", columns, " columns, got ", a.columns);
    require(a.data != nullptr || a.rows == 0, HEADRACE_BAD_ARGUMENT, name, ": data: expected memory, got NULL");
    const uintptr_t size = a.dtype == HEADRACE_FLOAT64 ? sizeof(double) : sizeof(float);
    require(reinterpret_cast<uintptr_t>(a.data) % size == 0, HEADRACE_BAD_ARGUMENT, name,
            ": data: expected memory that is aligned as its type requires");
}

inline ArrayView opened(const char* name, const headrace_input& a) {
    extent_of(name, a);
    const int64_t size = a.dtype == HEADRACE_FLOAT64 ? 8 : 4;
    return {static_cast<const char*>(a.data), a.row_stride * size, a.column_stride * size, a.dtype == HEADRACE_FLOAT64,
            nullptr};
}

template <class A, class B>
bool are_apart(const A& a, const Extent& x, const B& b, const Extent& y) {
    if (a.rows == 0 || b.rows == 0) return true;
    const int64_t between = int64_t(reinterpret_cast<uintptr_t>(b.data) - reinterpret_cast<uintptr_t>(a.data));
    if (x.end <= between + y.begin || between + y.end <= x.begin) return true;
    // Two sets of columns of one table do not overlap if their rows have equal distances and their ranges of bytes
    // within a row are disjoint.
    const int64_t stride = x.row_stride < 0 ? -x.row_stride : x.row_stride;
    if (stride == 0 || (y.row_stride != x.row_stride && y.row_stride != -x.row_stride)) return false;
    const int64_t x_size = x.row_end - x.row_begin, y_size = y.row_end - y.row_begin;
    int64_t offset = (between + y.row_begin - x.row_begin) % stride;
    if (offset < 0) offset += stride;
    return offset >= x_size && offset + y_size <= stride;
}

// The memory into which the core writes the rows of a result: the caller's, or memory of this object.
template <class T>
class Result {
  public:
    // `given` is null where the caller does not need the result.
    Result(const char* name, const headrace_output* given, int64_t rows, int64_t columns)
        : name_(name), rows_(rows), columns_(columns) {
        if (!given) return;
        is_wanted_ = true;
        out_ = *given;
        check_array(name, out_, columns, HEADRACE_BAD_ARGUMENT);
        require(out_.rows == rows, HEADRACE_BAD_ARGUMENT, name, ": expected ", rows, " rows, got ", out_.rows);
        require(sizeof(T) == sizeof(float) || is_double(), HEADRACE_BAD_DTYPE, name,
                ": expected HEADRACE_FLOAT64, as the model is, got HEADRACE_FLOAT32");
        extent_ = extent_of(name, out_);
        require(extent_.is_distinct || rows == 0, HEADRACE_OVERLAP, name,
                ": expected strides by which no two values share memory");
    }

    bool is_wanted() const { return is_wanted_; }
    bool is_double() const { return is_wanted_ && out_.dtype == HEADRACE_FLOAT64; }
    const char* name() const { return name_; }

    void check_apart(const Result& other) const {
        if (is_wanted_ && other.is_wanted_)
            require(are_apart(out_, extent_, other.out_, other.extent_), HEADRACE_OVERLAP, other.name_,
                    ": expected memory of its own, got some of ", name_);
    }
    // Results that overlap an input are written only after the last row of the input was read, unless result and input
    // are the same array.
    void keep_apart(const headrace_input& input, const Extent& extent) {
        if (!is_wanted_ || are_apart(out_, extent_, input, extent)) return;
        const bool is_same = input.data == out_.data && input.dtype == out_.dtype && input.rows == out_.rows &&
                             input.columns == out_.columns && input.row_stride == out_.row_stride &&
                             input.column_stride == out_.column_stride;
        is_read_ = is_read_ || !is_same;
    }

    // Memory for values of T, or null where no values are wanted.
    T* values() { return is_wanted_ ? memory(own_) : nullptr; }
    // Memory for double results of a model of float.
    double* wide_values() { return is_wanted_ ? memory(wide_) : nullptr; }

    // Copies results to the caller's memory where the core wrote them elsewhere.
    void finish() const {
        if (!own_.empty()) copy_from(own_);
        if (!wide_.empty()) copy_from(wide_);
    }

  private:
    template <class Number>
    Number* memory(std::vector<Number>& own) {
        const bool is_of_type = is_double() == (sizeof(Number) == sizeof(double));
        const bool is_contiguous =
            (out_.column_stride == 1 || columns_ == 1) && (out_.row_stride == columns_ || rows_ == 1);
        if (is_of_type && is_contiguous && !is_read_) return static_cast<Number*>(out_.data);
        own.resize(size_t(rows_) * size_t(columns_));
        return own.data();
    }
    template <class Number>
    void copy_from(const std::vector<Number>& own) const {
        if (is_double()) {
            copy_to(own, static_cast<double*>(out_.data));
        } else {
            copy_to(own, static_cast<float*>(out_.data));
        }
    }
    template <class Number, class Out>
    void copy_to(const std::vector<Number>& own, Out* to) const {
        for (int64_t r = 0; r < rows_; ++r)
            for (int64_t c = 0; c < columns_; ++c)
                to[r * out_.row_stride + c * out_.column_stride] = Out(own[size_t(r * columns_ + c)]);
    }

    const char* name_;
    int64_t rows_, columns_;
    bool is_wanted_ = false;
    headrace_output out_{};
    Extent extent_;
    bool is_read_ = false;
    std::vector<T> own_;
    std::vector<double> wide_;
};

}  // namespace headrace
