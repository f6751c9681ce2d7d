// Points of a dual ascent on the device, for Python.
#include "../host/ascent.hpp"

#include <algorithm>
#include <cstring>

#include "../../cpp/bindings/initialised.hpp"
#include "bindings.hpp"

HR_REFUSE_UNINITIALISED(headrace::DevicePoints<float>);
HR_REFUSE_UNINITIALISED(headrace::DevicePoints<double>);
HR_REFUSE_UNINITIALISED(headrace::DeviceAscent<float>);
HR_REFUSE_UNINITIALISED(headrace::DeviceAscent<double>);

namespace headrace {
namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

// Column c of (features, columns).
std::vector<double> column(const Doubles& a, int features, int columns, int c, const char* message) {
    require(a.ndim() == 2 && a.shape(0) == features && a.shape(1) == columns, message);
    std::vector<double> out(size_t(a.shape(0)));
    for (py::ssize_t i = 0; i < a.shape(0); ++i) out[size_t(i)] = a.at(i, c);
    return out;
}

// The few numbers of a step come from the host. `matrix`: its blocks of these sizes, row by row, one after another.
template <class T>
py::object step(DevicePoints<T>& points, const Doubles& maps, double log_scale, const Doubles& matrix,
                const Doubles& shift, const py::object& next, std::vector<int> blocks, std::vector<int> order,
                uintptr_t stream) {
    const int n = points.features();
    constexpr const char* expects_maps = "maps: expected (features, 3): bend, center, square";
    PointsStep s{};
    s.bend = column(maps, n, 3, 0, expects_maps);
    s.center = column(maps, n, 3, 1, expects_maps);
    s.square = column(maps, n, 3, 2, expects_maps);
    s.log_scale = log_scale;
    s.matrix.assign(matrix.data(), matrix.data() + matrix.size());
    s.blocks = std::move(blocks);
    s.order = std::move(order);
    require(shift.size() == n, "shift: expected (features,)");
    s.shift.assign(shift.data(), shift.data() + n);
    if (!next.is_none()) {
        const auto a = py::cast<Doubles>(next);
        s.next_center = column(a, n, 2, 0, "next: expected (features, 2): center, square");
        s.next_square = column(a, n, 2, 1, "next: expected (features, 2): center, square");
    }
    std::vector<double> sums;
    {
        const py::gil_scoped_release nogil;
        sums = points.step(s, stream_at(stream));
    }
    if (next.is_none()) return py::none();
    Doubles out({n, ascent_sum_count});
    std::copy(sums.begin(), sums.end(), out.mutable_data());
    return out;
}

template <class T>
void bind_points_of(py::module_& m, const char* name) {
    using P = DevicePoints<T>;
    py::class_<P, std::shared_ptr<P>>(m, name, py::module_local())
        .def(py::init([](const py::object& x, const py::object& weights, int device, uintptr_t stream) {
                 const DeviceArray a(x);
                 require(a.is_float(), "x: expected float32 or float64");
                 require(a.shape.size() == 2 && a.shape[1] >= 1 && a.shape[1] <= 8192, "x: expected (rows, features)");
                 a.require_alignment();
                 const ArrayView view{a.data, a.strides[0], a.strides[1], a.is<double>(), nullptr};
                 const T* w = output<T>(weights, {a.shape[0]}, "weights: expected contiguous (rows,) of the dtype");
                 const py::gil_scoped_release nogil;
                 return std::make_shared<P>(view, a.shape[0], int(a.shape[1]), w, device, stream_at(stream));
             }),
             py::arg("x"), py::arg("weights"), py::arg("device"), py::arg("stream"))
        .def("step", &step<T>, py::arg("maps"), py::arg("log_scale"), py::arg("matrix"), py::arg("shift"),
             py::arg("next"), py::arg("blocks"), py::arg("order"), py::arg("stream"))
        .def(
            "values",
            [](P& p, const py::object& out, uintptr_t stream) {
                T* const to = numbers<T>(out, {p.count(), p.features()}, "out: expected contiguous (rows, features)");
                const py::gil_scoped_release nogil;
                p.values(to, stream_at(stream));
            },
            py::arg("out"), py::arg("stream"))
        .def(
            "squares",
            [](P& p, const py::object& out, uintptr_t stream) {
                double* const to = numbers<double>(out, {p.count()}, "out: expected contiguous (rows,) of float64");
                const py::gil_scoped_release nogil;
                p.squares(to, stream_at(stream));
            },
            py::arg("out"), py::arg("stream"))
        .def(
            "log_jacobian",
            [](P& p, const py::object& out, uintptr_t stream) {
                double* const to = numbers<double>(out, {p.count()}, "out: expected contiguous (rows,) of float64");
                const py::gil_scoped_release nogil;
                p.log_jacobian(to, stream_at(stream));
            },
            py::arg("out"), py::arg("stream"));
}

template <class T>
void bind_ascent_of(py::module_& m, const char* name) {
    using A = DeviceAscent<T>;
    py::class_<A>(m, name, py::module_local())
        .def(py::init([](std::shared_ptr<DevicePoints<T>> points, std::shared_ptr<DevicePoints<double>> anchors,
                         std::shared_ptr<DevicePoints<T>> held_out, double total, double held_out_total,
                         double precision, double neighbours, const std::string& rule, int64_t most, uintptr_t stream) {
                 require(points && anchors, "points, anchors: expected points");
                 require(rule == "newton" || rule == "gradient", "rule: expected newton or gradient");
                 const KinkRule of{precision, total, neighbours, rule == "newton"};
                 return std::make_unique<A>(std::move(points), std::move(anchors), std::move(held_out), held_out_total,
                                            of, most, stream_at(stream));
             }),
             py::arg("points"), py::arg("anchors"), py::arg("held_out"), py::arg("total"), py::arg("held_out_total"),
             py::arg("precision"), py::arg("neighbours"), py::arg("rule"), py::arg("most"), py::arg("stream"))
        .def(
            "kink",
            [](A& ascent, const Doubles& matrix, const std::vector<int>& blocks, const std::vector<int>& order,
               const std::vector<int64_t>& rows, const std::vector<double>& drawn, uintptr_t stream) {
                const std::vector<double> numbers(matrix.data(), matrix.data() + matrix.size());
                const py::gil_scoped_release nogil;
                ascent.kink(numbers, blocks, order, rows, drawn, stream_at(stream));
            },
            py::arg("matrix"), py::arg("blocks"), py::arg("order"), py::arg("rows"), py::arg("drawn"),
            py::arg("stream"))
        .def(
            "finish",
            [](A& ascent, uintptr_t stream) {
                const py::gil_scoped_release nogil;
                ascent.finish(stream_at(stream));
            },
            py::arg("stream"))
        .def(
            "kinks",
            [](A& ascent, uintptr_t stream) {
                std::vector<Kink> kinks;
                {
                    const py::gil_scoped_release nogil;
                    kinks = ascent.kinks(stream_at(stream));
                }
                Doubles out({py::ssize_t(ascent.count()), py::ssize_t(ascent.features()), py::ssize_t(5)});
                static_assert(sizeof(Kink) == 5 * sizeof(double));
                if (!kinks.empty()) std::memcpy(out.mutable_data(), kinks.data(), kinks.size() * sizeof(Kink));
                return out;
            },
            py::arg("stream"), "(kinks, features, 5): a, b, c, center, square.")
        .def(
            "log_likelihoods",
            [](A& ascent, uintptr_t stream) {
                std::vector<double> found;
                {
                    const py::gil_scoped_release nogil;
                    found = ascent.log_likelihoods(stream_at(stream));
                }
                Doubles out({py::ssize_t(found.size() / 2), py::ssize_t(2)});
                std::copy(found.begin(), found.end(), out.mutable_data());
                return out;
            },
            py::arg("stream"), "(kinks, 2): of the points and of those held out.");
}

}  // namespace

void bind_points(py::module_& m) {
    bind_points_of<float>(m, "PointsF32");
    bind_points_of<double>(m, "PointsF64");
    bind_ascent_of<float>(m, "AscentF32");
    bind_ascent_of<double>(m, "AscentF64");
}

}  // namespace headrace
