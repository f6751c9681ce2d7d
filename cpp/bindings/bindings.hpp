// The border to Python. Every size is checked here although Python has checked it: nothing that comes through may read
// or write out of bounds.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "../views.hpp"

namespace headrace {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style>;

void bind_program(py::module_& m);
void bind_ops(py::module_& m);
void bind_points(py::module_& m);

inline void require(bool condition, const char* message) {
    if (!condition) throw py::value_error(message);
}

// NumPy arrays may be unaligned even where they are contiguous.
template <class T>
bool is_aligned(const Array<T>& a) {
    return reinterpret_cast<uintptr_t>(a.data()) % alignof(T) == 0;
}

}  // namespace headrace
