// Programs on a device for Python. Signatures are those of cpp/bindings/program.cpp, with arrays of the device and the
// stream on which work is queued.
#include "../host/program.hpp"

#include <type_traits>

#include "../../cpp/bindings/initialised.hpp"
#include "../../cpp/bindings/structure.hpp"
#include "bindings.hpp"

HR_REFUSE_UNINITIALISED(headrace::DeviceProgram<float>);
HR_REFUSE_UNINITIALISED(headrace::DeviceProgram<double>);

namespace headrace {
namespace {

// (rows, columns) in any strides.
ArrayView matrix(const py::object& given, int64_t columns, int64_t& rows, const char* message) {
    const DeviceArray a(given);
    require(a.is_float(), "expected an array of float32 or float64");
    require(a.shape.size() == 2 && a.shape[1] == columns, message);
    a.require_alignment();
    rows = a.shape[0];
    return {a.data, a.strides[0], a.strides[1], a.is<double>(), nullptr};
}

ArrayView vector(const py::object& given, int64_t rows, const char* message) {
    if (given.is_none()) return {};
    const DeviceArray a(given);
    require(a.is_float(), "expected an array of float32 or float64");
    require(a.has_shape({rows}), message);
    a.require_alignment();
    return {a.data, a.strides[0], 0, a.is<double>(), nullptr};
}

template <class T>
const T* parameters_of(const DeviceProgram<T>& program, const py::object& given) {
    return output<T>(given, {int64_t(program.n_weights())}, "parameters: expected a contiguous vector in the dtype");
}

// A request, and the views that it points to.
template <class T>
struct Opened {
    Request<T> request;
    ArrayView input, context;

    void open_context(const DeviceProgram<T>& program, const py::object& given, int64_t rows) {
        require(given.is_none() == (program.context() == 0), "context: expected if and only if the program reads one");
        if (given.is_none()) return;
        int64_t given_rows;
        constexpr const char* message = "context: expected (rows, context) or (1, context)";
        context = matrix(given, program.context(), given_rows, message);
        require(given_rows == rows || given_rows == 1, message);
        request.one_context_row = given_rows == 1;
        if (request.one_context_row) context.row_stride = 0;
        request.context = &context;
    }
};

// Values go to an array of T, or of float64 where the data end has them without a rounding.
template <class T>
void open_value(Request<T>& request, const py::object& value, int64_t rows, int64_t columns) {
    constexpr const char* message = "value: expected a C-contiguous (rows, features)";
    if constexpr (!std::is_same_v<T, double>) {
        if (!value.is_none() && DeviceArray(value).is<double>()) {
            require(!request.inverse, "value: expected the program's dtype on the latent side");
            request.wide_value = output<double>(value, {rows, columns}, message);
            return;
        }
    }
    request.value = output<T>(value, {rows, columns}, message);
}

template <class T>
void run(DeviceProgram<T>& program, bool inverse, const py::object& input, int64_t rows, uint64_t seed,
         const py::object& context, const py::object& value, const py::object& log_det, const py::object& log_prob,
         const py::object& parameters, uintptr_t stream) {
    Opened<T> opened;
    Request<T>& request = opened.request;
    request.inverse = inverse;
    // log_prob and samples start from the standard density, to_data and to_latent from the base.
    request.with_base = input.is_none() || !log_prob.is_none();
    request.rows = rows;
    request.seed = seed;
    require(rows >= 0, "rows: expected at least 0");
    if (!input.is_none()) {
        int64_t given_rows;
        opened.input = matrix(input, program.features(), given_rows, "input: expected (rows, features)");
        require(given_rows == rows, "input: expected (rows, features)");
        request.input = &opened.input;
    } else {
        require(!inverse && program.base() != Base::none, "input: only the direction to data can be sampled");
    }
    require(log_prob.is_none() || program.base() != Base::none, "log_prob: a transform on its own has no base");
    opened.open_context(program, context, rows);
    open_value(request, value, rows, program.features());
    request.log_det = output<T>(log_det, {rows}, "log_det: expected a contiguous (rows,)");
    request.log_prob = output<T>(log_prob, {rows}, "log_prob: expected a contiguous (rows,)");
    const T* own = parameters_of(program, parameters);
    const py::gil_scoped_release nogil;
    program.run(request, own, stream_at(stream));
}

// of_log_prob: grad_row is by the log-density, else by the log-determinant; it is times row_scale, and None is 1 for
// every row. index: the rows of input, context and grad_row that take part, None for all; that they are rows of these,
// the caller has checked, as nobody waits for the device here.
template <class T>
void run_gradient(DeviceProgram<T>& program, bool inverse, const py::object& input, const py::object& index,
                  const py::object& context, bool of_log_prob, const py::object& grad_value, const py::object& grad_row,
                  double row_scale, const py::object& log_prob, const py::object& grad_input,
                  const py::object& grad_context, const py::object& grad_weights, const py::object& parameters,
                  const py::object& value, const py::object& log_det, uintptr_t stream) {
    Opened<T> opened;
    Request<T>& request = opened.request;
    request.inverse = inverse;
    request.with_base = of_log_prob;
    require(!of_log_prob || program.base() != Base::none, "log_prob: a transform on its own has no base");
    int64_t all;
    opened.input = matrix(input, program.features(), all, "input: expected (rows, features)");
    request.input = &opened.input;
    opened.open_context(program, context, all);
    GradientRequest<T> gradient;
    gradient.from.of_log_prob = of_log_prob;
    gradient.from.row_scale = row_scale;
    gradient.from.row = vector(grad_row, all, "grad_row: expected (rows,)");
    request.rows = all;
    if (!index.is_none()) {
        const DeviceArray chosen(index);
        require(chosen.shape.size() == 1 && chosen.is<int64_t>(), "index: expected contiguous integers of 64 bits");
        const int64_t* rows = chosen.contiguous<int64_t>("index: expected contiguous integers of 64 bits");
        require(grad_value.is_none(), "grad_value: expected none beside an index");
        opened.input.rows = rows;
        if (!request.one_context_row) opened.context.rows = rows;
        gradient.from.row.rows = rows;
        request.rows = chosen.shape[0];
    }
    if (!grad_value.is_none()) {
        int64_t given_rows;
        gradient.from.value =
            matrix(grad_value, program.features(), given_rows, "grad_value: expected (rows, features)");
        require(given_rows == all, "grad_value: expected (rows, features)");
    }
    const int64_t rows = request.rows;
    request.log_prob = output<T>(log_prob, {rows}, "log_prob: expected a contiguous (rows,)");
    require(log_prob.is_none() || of_log_prob, "log_prob: expected where the gradient is by it");
    open_value(request, value, rows, program.features());
    request.log_det = output<T>(log_det, {rows}, "log_det: expected a contiguous (rows,)");
    gradient.input =
        output<T>(grad_input, {rows, program.features()}, "grad_input: expected a contiguous (rows, features)");
    require(grad_context.is_none() || program.context() > 0, "grad_context: there is no context");
    gradient.context =
        output<T>(grad_context, {rows, program.context()}, "grad_context: expected a contiguous (rows, context)");
    gradient.weights =
        output<T>(grad_weights, {int64_t(program.n_weights())}, "grad_weights: expected a contiguous vector");
    const T* own = parameters_of(program, parameters);
    const py::gil_scoped_release nogil;
    program.run_gradient(request, gradient, own, stream_at(stream));
}

template <class T>
void bind_program_of(py::module_& m, const char* name) {
    using P = DeviceProgram<T>;
    using HostArray = py::array_t<T, py::array::c_style>;
    py::class_<P, std::shared_ptr<P>>(m, name, py::module_local())
        .def(py::init([](int features, int context, const std::string& base, const py::list& steps, size_t base_steps,
                         std::vector<double> context_mean, std::vector<double> context_std, bool tf32, int device) {
                 require(!tf32 || std::is_same_v<T, float>, "tf32: expected false in float64, got true");
                 return std::make_shared<P>(features, context, base_of(base), steps_of(steps), base_steps,
                                            ContextScale{std::move(context_mean), std::move(context_std)}, tf32,
                                            device);
             }),
             py::arg("features"), py::arg("context"), py::arg("base"), py::arg("steps"), py::arg("base_steps"),
             py::arg("context_mean"), py::arg("context_std"), py::arg("tf32"), py::arg("device"))
        .def("run", &run<T>, py::arg("inverse"), py::arg("input"), py::arg("rows"), py::arg("seed"), py::arg("context"),
             py::arg("value"), py::arg("log_det"), py::arg("log_prob"), py::arg("parameters"), py::arg("stream"))
        .def("run_gradient", &run_gradient<T>, py::arg("inverse"), py::arg("input"), py::arg("index"),
             py::arg("context"), py::arg("of_log_prob"), py::arg("grad_value"), py::arg("grad_row"),
             py::arg("row_scale"), py::arg("log_prob"), py::arg("grad_input"), py::arg("grad_context"),
             py::arg("grad_weights"), py::arg("parameters"), py::arg("value"), py::arg("log_det"), py::arg("stream"))
        .def(
            "run_gradient",
            [](P& p, bool inverse, const py::object& input, const py::object& index, const py::object& context,
               bool of_log_prob, const py::object& grad_value, const py::object& grad_row, double row_scale,
               const py::object& log_prob, const py::object& grad_input, const py::object& grad_context,
               const py::object& grad_weights, const py::object& parameters, uintptr_t stream) {
                run_gradient<T>(p, inverse, input, index, context, of_log_prob, grad_value, grad_row, row_scale,
                                log_prob, grad_input, grad_context, grad_weights, parameters, py::none(), py::none(),
                                stream);
            },
            py::arg("inverse"), py::arg("input"), py::arg("index"), py::arg("context"), py::arg("of_log_prob"),
            py::arg("grad_value"), py::arg("grad_row"), py::arg("row_scale"), py::arg("log_prob"),
            py::arg("grad_input"), py::arg("grad_context"), py::arg("grad_weights"), py::arg("parameters"),
            py::arg("stream"))
        .def_property_readonly("n_weights", &P::n_weights)
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
                 return HostArray(py::ssize_t(host.size()), host.data());
             })
        .def(
            "set_host_weights",
            [](P& p, const HostArray& weights) {
                require(weights.ndim() == 1 && size_t(weights.shape(0)) == p.n_weights() &&
                            reinterpret_cast<uintptr_t>(weights.data()) % alignof(T) == 0,
                        "weights: the vector has the wrong size");
                const T* const from = weights.data();
                const py::gil_scoped_release nogil;
                p.set_host_weights(from);
            },
            py::arg("weights").noconvert());
}

}  // namespace

void bind_program(py::module_& m) {
    bind_structure(m);
    // Whether a tile's lines are in shared memory, and a block's bytes of it.
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
