// Functions that only _emu has: the order of threads, the log of calls, failing allocations, plans of networks, and
// kernels with planted bugs.
#include "../../cuda/bindings/bindings.hpp"
#include "../../cpp/bindings/structure.hpp"
#include "../../cuda/host/plan.hpp"
#include "planted.hpp"

namespace headrace {
namespace {

// The number of levels of each panel of a sequential network; 0 for phases that all warps compute together.
std::vector<int> panels_of(const MaskedConditioner& t) {
    std::vector<int> panels;
    const StagePlanStorage plan = sequential_stages(t);
    // A device loads sixteen bytes of weights at once, at multiples of sixteen bytes, which must be checked here
    // because loads of the host accept any address.
    for (const UnitRange& r : plan.stages)
        if (r.from % 4 != 0) throw std::logic_error("a panel's sums go on at a term that is no multiple of four");
    const std::vector<StagePhase>& phases = plan.phases;
    for (size_t q = 0; q < phases.size(); q += size_t(phases[q].levels) + 1) panels.push_back(phases[q].levels);
    return panels;
}

}  // namespace

void bind_emulated_xla(py::module_& m);  // defined in xla.cpp
void bind_interpreter(py::module_& m);   // defined in interpreter.cpp

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
        [](int n, int times) {
            const emu::Lock lock(emu::runtime().mutex);
            emu::runtime().allocations_until_failure = n;
            emu::runtime().failures = times;
        },
        py::arg("n"), py::arg("times") = 1, "The n-th next allocation, and so many in all, find no memory; 0: none.");
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
        py::arg("architecture"), "Of all devices: 80 and 90 differ in shared memory.");
    m.def(
        "set_built_for", [](const std::string& architectures) { emu::runtime().built_for = architectures; },
        py::arg("architectures"), "The architectures that the module has code for, in CMake's words.");
    m.def(
        "set_pools", [](bool has_pools) { emu::runtime().has_pools = has_pools; }, py::arg("has_pools"),
        "Whether devices have memory pools.");
    m.def(
        "set_lost", [](int error) { emu::runtime().lost = cudaError_t(error); }, py::arg("error"),
        "The error that the process's context died of, 700 for an illegal address; 0: none.");
    m.def(
        "set_multiprocessors", [](int n) { emu::runtime().multiprocessors = n; }, py::arg("n"),
        "How many a device has: what few rows are.");
    m.def(
        "set_devices",
        [](int n) {
            emu::runtime().devices = n;
            emu::runtime().device = 0;
        },
        py::arg("n"), "How many devices there are; the first one is current.");
    m.def(
        "set_driver", [](int version) { emu::runtime().driver = version; }, py::arg("version"),
        "The newest CUDA that the driver knows, 13000 for 13.0; 0: there is no driver.");
    m.def(
        "set_captured", [](uintptr_t stream) { emu::runtime().captured = stream; }, py::arg("stream"),
        "The stream that a graph is captured from; 0: none.");
    m.def(
        "set_busy", [](bool is_busy) { emu::runtime().is_busy = is_busy; }, py::arg("is_busy"),
        "Whether copies are done only once somebody waits for them, by what events say.");
    m.def(
        "pinned",
        [] {
            const emu::Lock lock(emu::runtime().mutex);
            std::vector<size_t> bytes;
            for (const auto& [p, n] : emu::runtime().pinned) bytes.push_back(n);
            return bytes;
        },
        "Bytes of each piece of pinned memory.");
    m.def("trims", [] { return emu::runtime().trims; }, "How often the pool was trimmed.");
    m.def(
        "untouched",
        [] {
            const emu::Lock lock(emu::runtime().mutex);
            size_t bytes = 0;
            for (const auto& [p, n] : emu::runtime().memory)
                for (size_t i = 0; i + 4 <= n; i += 4) {
                    uint32_t word = 0;
                    std::memcpy(&word, static_cast<const char*>(p) + i, 4);
                    if (word == UINT32_MAX) bytes += 4;
                }
            return bytes;
        },
        "Bytes of device memory that are as they were when it was taken.");
#ifdef __SANITIZE_ADDRESS__
    m.attr("sanitized") = true;
#else
    m.attr("sanitized") = false;
#endif
    m.def(
        "panels",
        [](const std::vector<StepSpec>& steps) {
            std::vector<std::vector<int>> found;
            for (const StepSpec& step : steps)
                if (const auto* const network = std::get_if<NetworkSpec>(&step))
                    found.push_back(panels_of(static_cast<const MaskedConditioner&>(*network->conditioner)));
            return found;
        },
        py::arg("steps"),
        "Of each network of these steps, run level by level: how many levels each of its panels has, or 0 where all "
        "warps work together.");
    m.def("planted", &planted, py::arg("bug"));
    bind_interpreter(m);
    bind_emulated_xla(m);
}

}  // namespace headrace
