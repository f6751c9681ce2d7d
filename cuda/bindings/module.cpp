// The module _cuda; and, against the emulation of a device, _emu.
#include "bindings.hpp"

namespace headrace {
namespace {

// Zero without a driver or without a device; then `reason` has the runtime's words for it.
int device_count(std::string& reason) {
    int n = 0;
    const cudaError_t error = cudaGetDeviceCount(&n);
    if (error == cudaSuccess && n > 0) return n;
    cudaGetLastError();  // not the next call's fault
    reason = error == cudaSuccess ? "no CUDA device" : cudaGetErrorString(error);
    return 0;
}

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
    m.def("architectures", [] { return std::string(HEADRACE_CUDA_ARCHITECTURES); });
#ifdef HR_EMULATE
    bind_emulation(m);
#endif
    bind_program(m);
    bind_optimizer(m);
    bind_ops(m);
    bind_points(m);
#ifdef HR_BIND_lanes
    bind_lanes(m);
#endif
}
