// What every module's border to Python shares: refusals, and arrays of the host.
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

// NumPy arrays may be unaligned even where they are contiguous.
template <class T>
bool is_aligned(const Array<T>& a) {
    return reinterpret_cast<uintptr_t>(a.data()) % alignof(T) == 0;
}

// Contiguous numbers of this shape on the host; of a constant T, a read-only array may hold them.
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

// Floats in any strides, with one axis or two (otherwise `axes` alone has a meaning).
struct OpenedArray {
    ArrayView view;
    int64_t axes, rows, columns;
};

}  // namespace headrace
