// The module _cuda; and, against the emulation of a device, _emu.
#include "bindings.hpp"

namespace headrace {
namespace {

std::string device_name(int device) {
    cudaDeviceProp properties;
    check_cuda(cudaGetDeviceProperties(&properties, device), "device");
    return properties.name;
}

// 13000 is 13.0; 0 without a driver.
int driver_version() {
    int version = 0;
    check_cuda(cudaDriverGetVersion(&version), "driver version");
    return version;
}

int runtime_version() {
    int version = 0;
    check_cuda(cudaRuntimeGetVersion(&version), "runtime version");
    return version;
}

std::string version_text(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// What the runtime means by a driver that is "insufficient": there is none, or it is older than the toolkit.
std::string without_driver() {
    const int driver = driver_version();
    if (driver == 0) return "there is no NVIDIA driver";
    const std::string built = version_text(runtime_version()), known = version_text(driver);
    return "headrace was built with CUDA " + built + ", and the driver knows CUDA up to " + known +
           ": update the driver, or build headrace with a toolkit of CUDA " + std::to_string(driver / 1000);
}

// Zero without a driver or without a device; then `reason` says which.
int device_count(std::string& reason) {
    int n = 0;
    const cudaError_t error = cudaGetDeviceCount(&n);
    if (error == cudaSuccess && n > 0) return n;
    cudaGetLastError();  // not the next call's fault
    reason = error == cudaSuccess                   ? "no CUDA device"
             : error == cudaErrorInsufficientDriver ? without_driver()
                                                    : cudaGetErrorString(error);
    return 0;
}

}  // namespace
}  // namespace headrace

PYBIND11_MODULE(HEADRACE_MODULE, m, pybind11::mod_gil_not_used()) {
    using namespace headrace;
    m.doc() = "headrace on CUDA devices: programs and functional kernels. Private; use the headrace package.";

    // Local, as _cuda and _emu may live in one process. The last one registered is asked first.
    py::register_local_exception<CudaError>(m, "CudaError", PyExc_RuntimeError);
    // NOLINTNEXTLINE(performance-unnecessary-value-param): the signature is pybind11's
    py::register_local_exception_translator([](std::exception_ptr error) {
        try {
            if (error) std::rethrow_exception(error);
        } catch (const CudaOutOfMemory& e) {
            PyErr_SetString(PyExc_MemoryError, e.what());
        }
    });

    m.def("device_count", [] {
        std::string reason;
        return device_count(reason);
    });
    m.def("reason", [] {
        std::string reason;
        device_count(reason);
        return reason;
    });
    m.def("device_name", &device_name, py::arg("device"));
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
    m.def("architectures", [] { return std::string(HEADRACE_CUDA_ARCHITECTURES); });
    bind_program(m);
    bind_optimizer(m);
    bind_ops(m);
    bind_points(m);
    bind_xla(m);
#ifdef HR_EMULATE
    bind_emulation(m);
#endif
#ifdef HR_BIND_lanes
    bind_lanes(m);
#endif
}
