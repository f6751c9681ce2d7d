#include "../isa.hpp"
#include "../threads.hpp"
#include "bindings.hpp"
#include "structure.hpp"

#include <chrono>

namespace headrace {
namespace {

// GFLOP/s of single-precision multiply-adds in registers of one thread: the peak that benchmarks compare with.
double fma_peak(double seconds) {
    using Clock = std::chrono::steady_clock;
    const Table& table = *active_isa().table;
    constexpr int64_t rounds = 100000;
    const auto start = Clock::now();
    double best = 0, elapsed = 0, sink = 0;
    do {
        const auto begin = Clock::now();
        sink += table.fma_chain(rounds);
        const auto end = Clock::now();
        const std::chrono::duration<double> took = end - begin, total = end - start;
        best = std::max(best, double(rounds) * table.fma_chain_flops / took.count() * 1e-9);
        elapsed = total.count();
    } while (elapsed < seconds);
    return sink == 0.5 ? 0.0 : best;
}

}  // namespace
}  // namespace headrace

PYBIND11_MODULE(_cpu, m, pybind11::mod_gil_not_used()) {
    using namespace headrace;
    m.doc() = "headrace on the CPU: programs and functional kernels. Private; use the headrace package.";
    m.attr("__version__") = HEADRACE_VERSION;
    active_isa();  // a bad HEADRACE_ISA is an ImportError, and so is a bad HEADRACE_NUM_THREADS
    read_thread_environment();

    m.def("isa", [] { return std::string(active_isa().name); });
    m.def("isas", [] {
        std::vector<std::string> names;
        for (const InstructionSet& set : instruction_sets())
            if (set.supported) names.emplace_back(set.name);
        return names;
    });
    m.def("num_threads", &num_threads);
    m.def("set_num_threads", &set_num_threads, py::arg("n"));
    m.def("fma_peak", &fma_peak, py::arg("seconds"), py::call_guard<py::gil_scoped_release>());
    bind_structure(m);
    bind_program(m);
    bind_ops(m);
    bind_points(m);
}
