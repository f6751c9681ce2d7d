// Code that the bindings of every module use: errors for invalid arguments, and host arrays.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <initializer_list>
#include <type_traits>

#include "../core/views.hpp"

namespace headrace {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style>;

inline void require(bool condition, const char* message) {
    if (!condition) throw py::value_error(message);
}

// Whether an array is aligned; even a contiguous NumPy array may be unaligned.
template <class T>
bool is_aligned(const Array<T>& a) {
    return reinterpret_cast<uintptr_t>(a.data()) % alignof(T) == 0;
}

// The values of a contiguous host array of the given shape; for a constant T the array may be read-only.
template <class T>
T* host_numbers(const py::handle& given, std::initializer_list<int64_t> shape, const char* message) {
    using A = Array<std::remove_const_t<T>>;
    require(py::isinstance<A>(given), message);
    auto a = py::reinterpret_borrow<A>(given);
    require(std::equal(a.shape(), a.shape() + a.ndim(), shape.begin(), shape.end()) && is_aligned(a), message);
    if constexpr (std::is_const_v<T>) {
        return a.data();
    } else {
        return a.mutable_data();  // throws for a read-only array
    }
}

// A view of an array of floats with any strides and one or two axes; for other numbers of axes only `axes` is set.
struct OpenedArray {
    ArrayView view;
    int64_t axes, rows, columns;
};

inline OpenedArray open_host_array(const py::handle& given, const char* message) {
    const bool is_double = py::isinstance<py::array_t<double>>(given);
    require(is_double || py::isinstance<py::array_t<float>>(given), message);
    const auto a = py::reinterpret_borrow<py::array>(given);
    const int64_t axes = a.ndim();
    return {{static_cast<const char*>(a.data()), axes > 0 ? a.strides(0) : 0, axes > 1 ? a.strides(1) : 0, is_double,
             nullptr},
            axes,
            axes > 0 ? a.shape(0) : 0,
            axes > 1 ? a.shape(1) : 0};
}

}  // namespace headrace
