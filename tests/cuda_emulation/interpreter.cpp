// The interpreter of PTX for tests: the PTX in use, its kernels, a log of runs, and kernels written by hand.
#include "../../cuda/bindings/bindings.hpp"
#include "ptx/testing.hpp"

namespace headrace {
namespace {

// Calls f, and throws errors of the interpreter as errors of the emulation.
template <class F>
auto found(F&& f) {
    try {
        return f();
    } catch (const ptx::Error& error) {
        throw emu::Error(error.what());
    }
}
void fill(uint32_t (&three)[3], const std::array<uint32_t, 3>& given) {
    std::copy(given.begin(), given.end(), three);
}

// Counts for each warp of a block: instructions by class, and the cost of memory accesses.
py::list counts(const std::vector<ptx::Work>& warps) {
    py::list all;
    for (const ptx::Work& work : warps) {
        py::dict executed, one;
        for (size_t k = 0; k < work.executed.size(); ++k)
            if (work.executed[k]) executed[ptx::class_names[k]] = work.executed[k];
        one["executed"] = executed;
        one["shared passes"] = work.shared_passes;
        one["device passes"] = work.device_passes;
        one["device sectors"] = work.device_sectors;
        all.append(one);
    }
    return all;
}

}  // namespace

void bind_interpreter(py::module_& m) {
    m.def(
        "ptx_use", [](const std::string& folder) { found([&] { ptx::use(folder); }); }, py::arg("folder"),
        "Interprets the PTX of this folder from now on; kernels run on the host again for an empty name.");
    m.def(
        "ptx_know",
        [](const std::vector<std::tuple<std::string, std::string, size_t>>& findings) {
            std::vector<ptx::Known> all;
            for (const auto& [kernel, kind, lines] : findings) all.push_back({kernel, kind, lines});
            ptx::know(all);
        },
        py::arg("findings"), "Findings (part of a kernel's name, kind, lines) that are no error at so many lines.");
    m.def(
        "ptx_report",
        [] {
            const ptx::Report report = ptx::report();
            py::dict kernels, all;
            for (const auto& [name, kernel] : report.kernels) {
                py::dict one;
                one["launches"] = kernel.launches;
                one["most_blocks"] = kernel.most_blocks;
                one["ragged"] = kernel.ragged;
                one["warps"] = counts(kernel.warps);
                kernels[py::str(name)] = one;
            }
            all["kernels"] = kernels;
            all["known"] = report.known;
            return all;
        },
        "Of each kernel: launches, the most blocks of one, launches of several blocks of which not all were full; of "
        "each warp of its blocks instructions by class, passes and sectors; and the known findings that occurred.");
    m.def(
        "ptx_run",
        [](const std::string& text, const std::string& kernel, const std::array<uint32_t, 3>& grid,
           const std::array<uint32_t, 3>& threads, const std::vector<py::bytes>& parameters, size_t shared_bytes,
           bool contract, int order) {
            ptx::Geometry geometry{{}, {}, shared_bytes, order};
            fill(geometry.grid, grid);
            fill(geometry.threads, threads);
            std::vector<std::string> bytes(parameters.begin(), parameters.end());
            ptx::Arguments arguments;
            for (const std::string& one : bytes) arguments.emplace_back(one.data(), one.size());
            std::vector<ptx::Work> warps;
            found([&] { warps = ptx::run_text(text, kernel, geometry, arguments, contract); });
            return counts(warps);
        },
        py::arg("text"), py::arg("kernel"), py::arg("grid"), py::arg("threads"), py::arg("parameters"),
        py::arg("shared_bytes") = 0, py::arg("contract") = false, py::arg("order") = 0,
        "Runs a kernel of this PTX; parameters are the bytes of each. Returns what each warp of a block did, as "
        "ptx_report has it.");
    m.def("ptx_forget", &ptx::forget_arrays, "Forgets the arrays that kernels may reach.");
    m.def(
        "ptx_array", [](const py::handle& array) { DeviceArray given(array); }, py::arg("array"),
        "An array that kernels of ptx_run may reach.");
    m.def(
        "ptx_fresh",
        [](const py::handle& array, bool is_taken) {
            const DeviceArray given(array);
            if (is_taken) {
                ptx::memory_taken(given.data, size_t(given.count()) * (given.is<float>() ? 4 : 8));
            } else {
                ptx::memory_freed(given.data);
            }
        },
        py::arg("array"), py::arg("is_taken"),
        "Whether this array stands for device memory that was just taken, or given back.");
}

}  // namespace headrace
