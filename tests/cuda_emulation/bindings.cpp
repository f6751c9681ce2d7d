// What only _emu has: how threads are ordered, what was called, allocations that fail, and kernels with planted bugs.
#include "../../cuda/bindings/bindings.hpp"
#include "planted.hpp"

namespace headrace {

void bind_emulation(py::module_& m) {
    py::register_local_exception<emu::Error>(m, "EmulationError", PyExc_RuntimeError);
    m.def("schedule", &emu::schedule, py::arg("order"),
          "The order of threads: 0 ascending, 1 descending, more: shuffled, from this seed.");
    m.def(
        "log",
        [] {
            const emu::Lock lock(emu::runtime().mutex);
            std::vector<std::pair<std::string, uintptr_t>> calls;
            for (const emu::Call& call : emu::runtime().log)
                calls.emplace_back(call.name, reinterpret_cast<uintptr_t>(call.stream));
            emu::runtime().log.clear();
            return calls;
        },
        "(call, stream) since the last log, the newest 65,536.");
    m.def(
        "fail_allocation",
        [](int n) {
            const emu::Lock lock(emu::runtime().mutex);
            emu::runtime().allocations_until_failure = n;
        },
        py::arg("n"), "The n-th next allocation finds no memory; 0: none.");
    m.def(
        "allocated",
        [] {
            const emu::Lock lock(emu::runtime().mutex);
            size_t bytes = 0;
            for (const auto& [p, n] : emu::runtime().memory) bytes += n;
            return bytes;
        },
        "Bytes of device memory that were not given back.");
    m.def(
        "set_architecture", [](int architecture) { emu::runtime().architecture = architecture; },
        py::arg("architecture"), "80 or 90, which differ in shared memory.");
    m.def(
        "set_devices",
        [](int n) {
            emu::runtime().devices = n;
            emu::runtime().device = 0;
        },
        py::arg("n"), "How many devices there are; the first one is current.");
#ifdef __SANITIZE_ADDRESS__
    m.attr("sanitized") = true;
#else
    m.attr("sanitized") = false;
#endif
    m.def("planted", &planted, py::arg("bug"));
}

}  // namespace headrace
