// The module _cuda, and with the emulation of a device the module _emu.
#include "bindings.hpp"
#include "devices.hpp"

PYBIND11_MODULE(HEADRACE_MODULE, m, pybind11::mod_gil_not_used()) {
    using namespace headrace;
    m.doc() = "headrace on CUDA devices: programs and functional kernels. Private; use the headrace package.";

    // Errors are registered locally, because _cuda and _emu may be loaded in one process. Of pybind11's exception
    // translators, the one that was registered last is tried first.
    py::register_local_exception<CudaError>(m, "CudaError", PyExc_RuntimeError);
    // NOLINTNEXTLINE(performance-unnecessary-value-param): the signature is pybind11's
    py::register_local_exception_translator([](std::exception_ptr error) {
        try {
            if (error) std::rethrow_exception(error);
        } catch (const CudaOutOfMemory& e) {
            PyErr_SetString(PyExc_MemoryError, e.what());
        }
    });

    m.def("device_count", &device_count);
    m.def("reason", &reason_without_devices);
    m.def("device_name", &device_name, py::arg("device"));
    m.def("device_capability", &device_capability, py::arg("device"));
    m.def("device_reason", &device_reason, py::arg("device"));
    m.def("is_compiled_by_driver", &is_compiled_by_driver, py::arg("device"));
    m.def("driver_version", &driver_version);
    m.def("runtime_version", &runtime_version);
    m.def(
        "give_back",
        [](int device) {
            const py::gil_scoped_release nogil;
            const OnDevice on(device);
            trim_pool();
        },
        py::arg("device"));
    m.def("architectures", &architectures);
    bind_program(m);
    bind_optimizer(m);
    bind_ops(m);
    bind_points(m);
    bind_sequences(m);
    bind_xla(m);
#ifdef HR_EMULATE
    bind_emulation(m);
#endif
#ifdef HR_BIND_lanes
    bind_lanes(m);
#endif
}
