// Points of a dual ascent for Python.
#include "../points.hpp"

#include <algorithm>

#include "bindings.hpp"

namespace headrace {
namespace {

using Doubles = Array<double>;

std::vector<double> numbers(const Doubles& a, py::ssize_t size, const char* message) {
    require(a.size() == size, message);
    return std::vector<double>(a.data(), a.data() + a.size());
}

// Column c of (features, columns).
std::vector<double> column(const Doubles& a, int features, int columns, int c, const char* message) {
    require(a.ndim() == 2 && a.shape(0) == features && a.shape(1) == columns, message);
    std::vector<double> out;
    for (py::ssize_t i = 0; i < a.shape(0); ++i) out.push_back(a.at(i, c));
    return out;
}

// `matrix`: its blocks of these sizes, row by row, one after another.
template <class T>
py::object step(Points<T>& points, const Doubles& maps, double log_scale, const Doubles& matrix, const Doubles& shift,
                const py::object& next, std::vector<int> blocks, std::vector<int> order) {
    const int n = points.features();
    constexpr const char* expects_maps = "maps: expected (features, 3): bend, center, square";
    typename Points<T>::Step s{};
    s.bend = column(maps, n, 3, 0, expects_maps);
    s.center = column(maps, n, 3, 1, expects_maps);
    s.square = column(maps, n, 3, 2, expects_maps);
    s.log_scale = log_scale;
    s.matrix.assign(matrix.data(), matrix.data() + matrix.size());
    s.blocks = std::move(blocks);
    s.order = std::move(order);
    s.shift = numbers(shift, n, "shift: expected (features,)");
    if (!next.is_none()) {
        const auto a = py::cast<Doubles>(next);
        s.next_center = column(a, n, 2, 0, "next: expected (features, 2): center, square");
        s.next_square = column(a, n, 2, 1, "next: expected (features, 2): center, square");
    }
    std::vector<double> sums;
    {
        const py::gil_scoped_release nogil;
        sums = points.step(s);
    }
    if (next.is_none()) return py::none();
    Doubles out({n, ascent_sum_count});
    std::copy(sums.begin(), sums.end(), out.mutable_data());
    return out;
}

// A number for each row.
template <class T>
Doubles of_rows(const Points<T>& points, void (Points<T>::*verb)(double*) const) {
    Doubles out(py::ssize_t(points.count()));
    double* const numbers = out.mutable_data();
    {
        const py::gil_scoped_release nogil;
        (points.*verb)(numbers);
    }
    return out;
}

template <class T>
void bind_points_of(py::module_& m, const char* name) {
    py::class_<Points<T>>(m, name)
        .def(py::init([](const py::array& x, const py::object& weights) {
                 const bool is_double = py::isinstance<py::array_t<double>>(x);
                 require(is_double || py::isinstance<py::array_t<float>>(x), "x: expected float32 or float64");
                 require(x.ndim() == 2 && x.shape(1) >= 1 && x.shape(1) <= 8192, "x: expected (rows, features)");
                 const ArrayView view{static_cast<const char*>(x.data()), x.strides(0), x.strides(1), is_double,
                                      nullptr};
                 const T* w = nullptr;
                 if (!weights.is_none()) {
                     require(py::isinstance<Array<T>>(weights), "weights: expected contiguous numbers of the dtype");
                     const auto a = py::reinterpret_borrow<Array<T>>(weights);
                     require(a.ndim() == 1 && a.shape(0) == x.shape(0) && is_aligned(a), "weights: expected (rows,)");
                     w = a.data();
                 }
                 const py::gil_scoped_release nogil;
                 return std::make_unique<Points<T>>(view, x.shape(0), int(x.shape(1)), w);
             }),
             py::arg("x"), py::arg("weights"))
        .def("step", &step<T>, py::arg("maps"), py::arg("log_scale"), py::arg("matrix"), py::arg("shift"),
             py::arg("next"), py::arg("blocks"), py::arg("order"))
        .def("values",
             [](const Points<T>& p) {
                 Array<T> out({py::ssize_t(p.count()), py::ssize_t(p.features())});
                 T* const numbers = out.mutable_data();
                 {
                     const py::gil_scoped_release nogil;
                     p.values(numbers);
                 }
                 return out;
             })
        .def("squares", [](const Points<T>& p) { return of_rows(p, &Points<T>::squares); })
        .def("log_jacobian", [](const Points<T>& p) { return of_rows(p, &Points<T>::log_jacobian); });
}

}  // namespace

void bind_points(py::module_& m) {
    bind_points_of<float>(m, "PointsF32");
    bind_points_of<double>(m, "PointsF64");
}

}  // namespace headrace
