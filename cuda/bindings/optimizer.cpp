// Adam on a device for Python.
#include "../host/optimizer.hpp"

#include "../../cpp/bindings/initialised.hpp"
#include "../../cpp/bindings/program_calls.hpp"
#include "bindings.hpp"

HR_REFUSE_UNINITIALISED(headrace::DeviceAdam<float>);
HR_REFUSE_UNINITIALISED(headrace::DeviceAdam<double>);

namespace headrace {
namespace {

template <class T>
void bind_steps(py::class_<DeviceAdam<T>> adam) {
    using A = DeviceAdam<T>;
    adam.def(
            "average",
            [](A& adam, const py::object& out, uintptr_t stream) {
                require(adam.has_average(), "average: none is kept");
                T* const to = numbers<T>(out, {int64_t(adam.program().n_weights())},
                                         "out: expected a contiguous vector like the weights");
                const py::gil_scoped_release nogil;
                adam.average(to, stream_at(stream));
            },
            py::arg("out"), py::arg("stream"))
        .def(
            "step",
            [](A& adam, const py::object& gradient, double learning_rate, const py::object& norm, uintptr_t stream) {
                const T* const from = numbers<T>(gradient, {int64_t(adam.program().n_weights())},
                                                 "gradient: the vector has the wrong size or dtype");
                double* const to = output<double>(norm, {1}, "norm: expected one number of float64");
                const py::gil_scoped_release nogil;
                adam.step(from, learning_rate, to, stream_at(stream));
            },
            py::arg("gradient"), py::arg("learning_rate"), py::arg("norm"), py::arg("stream"));
}

}  // namespace

void bind_optimizer(py::module_& m) {
    bind_steps(bind_adam_of<DeviceAdam<float>, DeviceProgram<float>>(m, "AdamF32", py::module_local()));
    bind_steps(bind_adam_of<DeviceAdam<double>, DeviceProgram<double>>(m, "AdamF64", py::module_local()));
}

}  // namespace headrace
