// Programs on a device for Python: the calls of cpp/bindings/program_calls.hpp, with arrays of the device and the
// stream on which work is queued.
#include "../host/program.hpp"

#include <span>

#include "../../cpp/bindings/initialised.hpp"
#include "../../cpp/bindings/program_calls.hpp"
#include "../../cpp/bindings/structure.hpp"
#include "bindings.hpp"

HR_REFUSE_UNINITIALISED(headrace::DeviceProgram<float>);
HR_REFUSE_UNINITIALISED(headrace::DeviceProgram<double>);

namespace headrace {
namespace {

struct DeviceArrays {
    template <class T>
    using Program = DeviceProgram<T>;
    using Index = std::span<const int64_t>;

    static OpenedArray open(const py::object& given) {
        return open_array(given, "expected an array of float32 or float64");
    }
    template <class T>
    static T* numbers(const py::object& given, std::initializer_list<int64_t> shape, const char* message) {
        return headrace::numbers<T>(given, shape, message);
    }
    static bool is_double(const py::object& given) { return DeviceArray(given).is<double>(); }
    static int64_t length(const py::object& given, const char*) { return DeviceArray(given).count(); }
    // Indices of rows, which the caller has checked, because a check here would wait for the device.
    static Index index(const int64_t* rows, int64_t n, int64_t) { return {rows, size_t(n)}; }
    template <class T>
    static const T* weights(const DeviceProgram<T>&, const T* given) {
        return given;
    }
    template <class F>
    static void unlocked(const F& work) {
        const py::gil_scoped_release nogil;
        work();
    }
    static cudaStream_t stream(uintptr_t address) { return stream_at(address); }
};

Products products_of(const std::string& matmul) {
    if (matmul == "tf32") return Products::tf32;
    if (matmul == "3xtf32") return Products::three_tf32;
    require(matmul == "exact", ("matmul: expected 'exact', 'tf32' or '3xtf32', got '" + matmul + "'").c_str());
    return Products::exact;
}

template <class T>
void bind_program_of(py::module_& m, const char* name) {
    using P = DeviceProgram<T>;
    py::class_<P, std::shared_ptr<P>> program(m, name, py::module_local());
    bind_program_calls<DeviceArrays, T, uintptr_t>(program, py::arg("stream"));
    program
        .def(py::init([](int features, int context, const std::string& base, std::vector<StepSpec> steps,
                         size_t base_steps, std::vector<double> context_mean, std::vector<double> context_std,
                         const std::string& matmul, int device) {
                 const Products products = products_of(matmul);
                 require(products == Products::exact || std::is_same_v<T, float>,
                         ("matmul: expected 'exact' in float64, got '" + matmul + "'").c_str());
                 return std::make_shared<P>(features, context, base_of(base), std::move(steps), base_steps,
                                            ContextScale{std::move(context_mean), std::move(context_std)}, products,
                                            device);
             }),
             py::arg("features"), py::arg("context"), py::arg("base"), py::arg("steps"), py::arg("base_steps"),
             py::arg("context_mean"), py::arg("context_std"), py::arg("matmul"), py::arg("device"))
        .def_property_readonly("device", &P::device)
        .def(
            "weights",
            [](P& p, const py::object& out, uintptr_t stream) {
                T* const to = numbers<T>(out, {int64_t(p.n_weights())}, "out: expected a contiguous vector");
                const py::gil_scoped_release nogil;
                p.weights(to, stream_at(stream));
            },
            py::arg("out"), py::arg("stream"))
        .def(
            "set_weights",
            [](P& p, const py::object& weights, uintptr_t stream) {
                const T* const from =
                    numbers<T>(weights, {int64_t(p.n_weights())}, "weights: the vector has the wrong size or dtype");
                const py::gil_scoped_release nogil;
                p.set_weights(from, stream_at(stream));
            },
            py::arg("weights"), py::arg("stream"))
        .def("host_weights",
             [](P& p) {
                 std::vector<T> host;
                 {
                     const py::gil_scoped_release nogil;
                     host = p.host_weights();
                 }
                 return Array<T>(py::ssize_t(host.size()), host.data());
             })
        .def(
            "set_host_weights",
            [](P& p, const py::object& weights) {
                const T* const from = host_numbers<const T>(weights, {int64_t(p.n_weights())},
                                                            "weights: the vector has the wrong size or dtype");
                const py::gil_scoped_release nogil;
                p.set_host_weights(from);
            },
            py::arg("weights"));
}

}  // namespace

void bind_program(py::module_& m) {
    bind_structure(m);
    // `place` returns whether a tile's lines are in shared memory, and the bytes of a block's shared memory.
    m.def("rows_of_tile", &rows_of_tile, py::arg("rows"), py::arg("multiprocessors"),
          "For tests: rows of a tile on the way back.");
    m.def(
        "place",
        [](int64_t lines, int warps, int64_t number_bytes, int64_t shared_bytes) {
            const Place place = place_of(lines, warps, number_bytes, shared_bytes);
            return py::make_tuple(place.in_shared, place.shared_bytes);
        },
        py::arg("lines"), py::arg("warps"), py::arg("number_bytes"), py::arg("shared_bytes"));
    bind_program_of<float>(m, "ProgramF32");
    bind_program_of<double>(m, "ProgramF64");
}

}  // namespace headrace
