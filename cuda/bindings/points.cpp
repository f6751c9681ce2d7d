// Points of dual ascent on the device, for Python.
#include "../host/ascent.hpp"

#include "../../cpp/bindings/initialised.hpp"
#include "../../cpp/bindings/points_calls.hpp"
#include "bindings.hpp"

HR_REFUSE_UNINITIALISED(headrace::DevicePoints<float>);
HR_REFUSE_UNINITIALISED(headrace::DevicePoints<double>);
HR_REFUSE_UNINITIALISED(headrace::DeviceAscent<float>);
HR_REFUSE_UNINITIALISED(headrace::DeviceAscent<double>);

namespace headrace {
namespace {

template <class T>
py::object step(DevicePoints<T>& points, const Doubles& maps, double log_scale, const Doubles& matrix,
                const Doubles& shift, const py::object& next, std::vector<int> blocks, std::vector<int> order,
                uintptr_t stream) {
    const auto take = [&](const PointsStep& s, bool) { return points.step(s, stream_at(stream)); };
    return step_points(points.features(), maps, log_scale, matrix, shift, next, std::move(blocks), std::move(order),
                       take);
}

// An array with one value for each row.
template <class T>
auto of_rows(void (DevicePoints<T>::*verb)(double*, cudaStream_t)) {
    return [verb](DevicePoints<T>& p, const py::object& out, uintptr_t stream) {
        double* const to = numbers<double>(out, {p.count()}, "out: expected contiguous (rows,) of float64");
        const py::gil_scoped_release nogil;
        (p.*verb)(to, stream_at(stream));
    };
}

template <class T>
void bind_points_of(py::module_& m, const char* name) {
    using P = DevicePoints<T>;
    py::class_<P, std::shared_ptr<P>>(m, name, py::module_local())
        .def(py::init([](const py::object& x, const py::object& weights, int device, uintptr_t stream) {
                 const OpenedArray a = points_of(open_array(x, "x: expected float32 or float64"));
                 const T* const w = output<const T>(weights, {a.rows}, expects_weights);
                 const py::gil_scoped_release nogil;
                 return std::make_shared<P>(a.view, a.rows, int(a.columns), w, device, stream_at(stream));
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
        .def("squares", of_rows<T>(&P::squares), py::arg("out"), py::arg("stream"))
        .def("log_jacobian", of_rows<T>(&P::log_jacobian), py::arg("out"), py::arg("stream"));
}

template <class T>
void bind_ascent_of(py::module_& m, const char* name) {
    using A = DeviceAscent<T>;
    py::class_<A> ascent(m, name, py::module_local());
    bind_kinks<A, stream_at, uintptr_t>(ascent, py::arg("stream"));
    ascent.def(
        py::init([](std::shared_ptr<DevicePoints<T>> points, std::shared_ptr<DevicePoints<double>> anchors,
                    std::shared_ptr<DevicePoints<T>> held_out, double total, double held_out_total, double precision,
                    double neighbours, const std::string& rule, int64_t most, uintptr_t stream) {
            require(points && anchors, "points, anchors: expected points");
            const KinkRule of = rule_of(precision, total, neighbours, rule);
            return std::make_unique<A>(std::move(points), std::move(anchors), std::move(held_out), held_out_total, of,
                                       most, stream_at(stream));
        }),
        py::arg("points"), py::arg("anchors"), py::arg("held_out"), py::arg("total"), py::arg("held_out_total"),
        py::arg("precision"), py::arg("neighbours"), py::arg("rule"), py::arg("most"), py::arg("stream"));
}

}  // namespace

void bind_points(py::module_& m) {
    bind_points_of<float>(m, "PointsF32");
    bind_points_of<double>(m, "PointsF64");
    bind_ascent_of<float>(m, "AscentF32");
    bind_ascent_of<double>(m, "AscentF64");
}

}  // namespace headrace
