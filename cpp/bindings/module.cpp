#include "../core/isa.hpp"
#include "../core/threads.hpp"
#include "../core/version.hpp"
#include "bindings.hpp"
#include "structure.hpp"

#include <chrono>

namespace headrace {
namespace {

// GFLOP/s of single-precision multiply-adds in registers of one thread: the peak with which benchmarks compare their
// rates.
double fma_peak(double seconds) {
    using Clock = std::chrono::steady_clock;
    const KernelTable& table = *active_isa().table;
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

// Whether the calling thread is Python's main thread, which alone handles signals. The handler of a signal may run
// during the check, and raise an exception.
bool is_main_thread() {
    const auto main = py::module_::import("threading").attr("main_thread")();
    return main.attr("ident").cast<unsigned long>() == PyThread_get_thread_ident();
}

}  // namespace

bool Unlocked::ask(void* self) {
    auto& unlocked = *static_cast<Unlocked*>(self);
    if (unlocked.knows_thread_ && !unlocked.gets_signals_) return false;
    PyEval_RestoreThread(unlocked.state_);
    bool raised = PyErr_CheckSignals() != 0;
    if (!raised && !unlocked.knows_thread_) {
        try {
            unlocked.gets_signals_ = is_main_thread();
        } catch (py::error_already_set& error) {
            error.restore();
            raised = true;
        }
        unlocked.knows_thread_ = true;
    }
    unlocked.state_ = PyEval_SaveThread();
    return raised;
}

}  // namespace headrace

PYBIND11_MODULE(_cpu_of_main_interpreter, m, pybind11::mod_gil_not_used()) {
    using namespace headrace;
    m.doc() = "headrace on the CPU: programs and functional kernels. Private; use the headrace package.";
    m.attr("__version__") = version();
    m.attr("commit") = commit();
    active_isa();  // a bad HEADRACE_ISA becomes an ImportError

    m.def("isa", [] { return std::string(active_isa().name); });
    m.def("isa_of_tiles", [] { return std::string(name_of_isa_of_steps()); });
    m.def("isas", [] {
        std::vector<std::string> names;
        for (const InstructionSet& set : instruction_sets())
            if (set.supported && !set.emulated) names.emplace_back(set.name);
        return names;
    });
    m.def("isa_not_built", &set_not_built);
    m.def("num_threads", &num_threads);
    m.def("process_threads", &process_threads);
    m.def("set_num_threads", &set_num_threads, py::arg("n"));
    m.def("limit_thread", &limit_thread, py::arg("n"));
    m.def(
        "borrow_team",
        [](uintptr_t run, uintptr_t size) {
            borrow_team(reinterpret_cast<RunTeam>(run), reinterpret_cast<TeamSize>(size));
        },
        py::arg("run"), py::arg("size"));
    m.def("fma_peak", &fma_peak, py::arg("seconds"), py::call_guard<py::gil_scoped_release>());
    bind_structure(m);
    bind_program(m);
    bind_ops(m);
    bind_points(m);
    bind_sequences(m);
    bind_chains(m);
    bind_xla(m);
}

// Refuses sub-interpreters, because pybind11 would wait forever if a sub-interpreter is the first to import the module.
extern "C" PYBIND11_EXPORT PyObject* PyInit__cpu();   // NOLINT(bugprone-reserved-identifier): Python's name for it
extern "C" PYBIND11_EXPORT PyObject* PyInit__cpu() {  // NOLINT(bugprone-reserved-identifier)
    if (PyInterpreterState_Get() == PyInterpreterState_Main()) return PyInit__cpu_of_main_interpreter();
    PyErr_SetString(PyExc_ImportError, "headrace can be used in the main interpreter alone, not in a sub-interpreter");
    return nullptr;
}
