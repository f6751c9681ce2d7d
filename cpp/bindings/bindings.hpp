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

// Below, N / D^2 of a spline may leave float32, and 1 - slope of a dual-ascent map be 1 there.
constexpr double least_curved_slope = 1e-6;

inline bool is_slope_of(const std::string& map, double slope) {
    return slope >= least_curved_slope || (map != "rq_spline" && map != "dual_ascent");
}

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
