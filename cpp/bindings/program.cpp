// Program (steps and weights) and Adam for Python.
#include <algorithm>
#include <type_traits>

#include "../core/optimizer.hpp"
#include "../core/program.hpp"
#include "bindings.hpp"
#include "initialised.hpp"
#include "structure.hpp"

HR_REFUSE_UNINITIALISED(headrace::Program<float>);
HR_REFUSE_UNINITIALISED(headrace::Program<double>);
HR_REFUSE_UNINITIALISED(headrace::Adam<float>);
HR_REFUSE_UNINITIALISED(headrace::Adam<double>);

namespace headrace {
namespace {

ArrayView view(const py::array& a, int columns, const char* message) {
    const bool is_double = py::isinstance<py::array_t<double>>(a);
    require(is_double || py::isinstance<py::array_t<float>>(a), "expected an array of float32 or float64");
    require(a.ndim() == 2 && a.shape(1) == columns, message);
    return {static_cast<const char*>(a.data()), a.strides(0), a.strides(1), is_double, nullptr};
}

template <class T>
T* output(const py::object& object, int64_t rows, int columns, const char* message) {
    if (object.is_none()) return nullptr;
    require(py::isinstance<Array<T>>(object), message);
    auto a = py::reinterpret_borrow<Array<T>>(object);
    require(a.ndim() == (columns ? 2 : 1) && a.shape(0) == rows && (!columns || a.shape(1) == columns), message);
    require(is_aligned(a), message);
    return a.mutable_data();  // throws for a read-only array
}

// Values go to an array of T, or of float64 where the data end has them without a rounding.
template <class T>
void open_value(Request<T>& request, const py::object& value, int64_t rows, int columns) {
    constexpr const char* message = "value: expected a C-contiguous (rows, features)";
    if constexpr (!std::is_same_v<T, double>) {
        if (!value.is_none() && py::isinstance<py::array_t<double>>(value)) {
            require(!request.inverse, "value: expected the program's dtype on the latent side");
            request.wide_value = output<double>(value, rows, columns, message);
            return;
        }
    }
    request.value = output<T>(value, rows, columns, message);
}

// The parameters of a call: those of the program, or a vector given for this call alone.
template <class T>
typename Program<T>::Weights weights_for(const Program<T>& program, const py::object& parameters) {
    if (parameters.is_none()) return program.snapshot();  // under the GIL, which os.fork waits for
    require(py::isinstance<Array<T>>(parameters), "parameters: expected a contiguous vector in the program's dtype");
    const auto a = py::reinterpret_borrow<Array<T>>(parameters);
    require(a.ndim() == 1 && size_t(a.shape(0)) == program.n_weights() && is_aligned(a),
            "parameters: the vector has the wrong size");
    return program.weights_of(a.data());
}

// A request, and what it points to.
template <class T>
struct Opened {
    Request<T> request;
    ArrayView input, context;
    std::vector<int64_t> index;

    void open_context(const Program<T>& program, const py::object& object, int64_t rows) {
        require(object.is_none() == (program.context() == 0), "context: expected if and only if the program reads one");
        if (object.is_none()) return;
        const auto a = py::cast<py::array>(object);
        context = view(a, program.context(), "context: expected (rows, context) or (1, context)");
        require(a.shape(0) == rows || a.shape(0) == 1, "context: expected (rows, context) or (1, context)");
        request.one_context_row = a.shape(0) == 1;
        if (request.one_context_row) context.row_stride = 0;
        request.context = &context;
    }
};

template <class T>
void run(const Program<T>& program, bool inverse, const py::object& input, int64_t rows, uint64_t seed,
         const py::object& context, const py::object& value, const py::object& log_det, const py::object& log_prob,
         const py::object& parameters) {
    Opened<T> opened;
    Request<T>& request = opened.request;
    request.inverse = inverse;
    // log_prob and samples start from the standard density, to_data and to_latent from the base.
    request.with_base = input.is_none() || !log_prob.is_none();
    request.rows = rows;
    request.seed = seed;
    require(rows >= 0, "rows: expected at least 0");
    if (!input.is_none()) {
        const auto a = py::cast<py::array>(input);
        opened.input = view(a, program.features(), "input: expected (rows, features)");
        require(a.shape(0) == rows, "input: expected (rows, features)");
        request.input = &opened.input;
    } else {
        require(!inverse && program.base() != Base::none, "input: only the direction to data can be sampled");
    }
    require(log_prob.is_none() || program.base() != Base::none, "log_prob: a transform on its own has no base");
    opened.open_context(program, context, rows);
    open_value(request, value, rows, program.features());
    request.log_det = output<T>(log_det, rows, 0, "log_det: expected a contiguous (rows,)");
    request.log_prob = output<T>(log_prob, rows, 0, "log_prob: expected a contiguous (rows,)");
    const auto weights = weights_for(program, parameters);
    without_gil([&] { program.run(request, weights); });
}

ArrayView row_view(const py::object& object, int64_t rows, const char* message) {
    if (object.is_none()) return {};
    const auto a = py::cast<py::array>(object);
    const bool is_double = py::isinstance<py::array_t<double>>(a);
    require(is_double || py::isinstance<py::array_t<float>>(a), "expected an array of float32 or float64");
    require(a.ndim() == 1 && a.shape(0) == rows, message);
    return {static_cast<const char*>(a.data()), a.strides(0), 0, is_double, nullptr};
}

// of_log_prob: grad_row is by the log-density, else by the log-determinant; it is times row_scale, and None is 1 for
// every row. index: the rows of input, context and grad_row that take part, None for all.
template <class T>
void run_gradient(const Program<T>& program, bool inverse, const py::object& input, const py::object& index,
                  const py::object& context, bool of_log_prob, const py::object& grad_value, const py::object& grad_row,
                  double row_scale, const py::object& log_prob, const py::object& grad_input,
                  const py::object& grad_context, const py::object& grad_weights, const py::object& parameters,
                  const py::object& value, const py::object& log_det) {
    Opened<T> opened;
    Request<T>& request = opened.request;
    request.inverse = inverse;
    request.with_base = of_log_prob;
    require(!of_log_prob || program.base() != Base::none, "log_prob: a transform on its own has no base");
    const auto a = py::cast<py::array>(input);
    opened.input = view(a, program.features(), "input: expected (rows, features)");
    request.input = &opened.input;
    const int64_t all = a.shape(0);
    opened.open_context(program, context, all);
    GradientRequest<T> gradient;
    gradient.from.of_log_prob = of_log_prob;
    gradient.from.row_scale = row_scale;
    gradient.from.row = row_view(grad_row, all, "grad_row: expected (rows,)");
    request.rows = all;
    if (!index.is_none()) {
        require(py::isinstance<Array<int64_t>>(index), "index: expected contiguous integers of 64 bits");
        const auto chosen = py::reinterpret_borrow<Array<int64_t>>(index);
        require(chosen.ndim() == 1 && is_aligned(chosen), "index: expected one dimension");
        opened.index.assign(chosen.data(), chosen.data() + chosen.size());  // Python may change its own meanwhile
        const int64_t* rows = opened.index.data();
        require(std::all_of(opened.index.begin(), opened.index.end(), [&](int64_t r) { return r >= 0 && r < all; }),
                "index: expected rows of input");
        require(grad_value.is_none(), "grad_value: expected none beside an index");
        opened.input.rows = rows;
        if (!request.one_context_row) opened.context.rows = rows;
        gradient.from.row.rows = rows;
        request.rows = int64_t(opened.index.size());
    }
    if (!grad_value.is_none())
        gradient.from.value =
            view(py::cast<py::array>(grad_value), program.features(), "grad_value: expected (rows, features)");
    require(grad_value.is_none() || py::cast<py::array>(grad_value).shape(0) == all,
            "grad_value: expected (rows, features)");
    const int64_t rows = request.rows;
    request.log_prob = output<T>(log_prob, rows, 0, "log_prob: expected a contiguous (rows,)");
    require(log_prob.is_none() || of_log_prob, "log_prob: expected where the gradient is by it");
    open_value(request, value, rows, program.features());
    request.log_det = output<T>(log_det, rows, 0, "log_det: expected a contiguous (rows,)");
    gradient.input =
        output<T>(grad_input, rows, program.features(), "grad_input: expected a contiguous (rows, features)");
    require(grad_context.is_none() || program.context() > 0, "grad_context: there is no context");
    gradient.context =
        output<T>(grad_context, rows, program.context(), "grad_context: expected a contiguous (rows, context)");
    gradient.weights = output<T>(grad_weights, int64_t(program.n_weights()), 0, "grad_weights: expected a vector");
    const auto weights = weights_for(program, parameters);
    without_gil([&] { program.run_gradient(request, gradient, weights); });
}

template <class T>
void bind_program_of(py::module_& m, const char* name) {
    using P = Program<T>;
    py::class_<P, std::shared_ptr<P>>(m, name)
        .def(py::init([](int features, int context, const std::string& base, const py::list& steps, size_t base_steps,
                         std::vector<double> context_mean, std::vector<double> context_std) {
                 return std::make_shared<P>(features, context, base_of(base), steps_of(steps), base_steps,
                                            ContextScale{std::move(context_mean), std::move(context_std)});
             }),
             py::arg("features"), py::arg("context"), py::arg("base"), py::arg("steps"), py::arg("base_steps"),
             py::arg("context_mean"), py::arg("context_std"))
        .def("run", &run<T>, py::arg("inverse"), py::arg("input"), py::arg("rows"), py::arg("seed"), py::arg("context"),
             py::arg("value"), py::arg("log_det"), py::arg("log_prob"), py::arg("parameters"))
        .def("run_gradient", &run_gradient<T>, py::arg("inverse"), py::arg("input"), py::arg("index"),
             py::arg("context"), py::arg("of_log_prob"), py::arg("grad_value"), py::arg("grad_row"),
             py::arg("row_scale"), py::arg("log_prob"), py::arg("grad_input"), py::arg("grad_context"),
             py::arg("grad_weights"), py::arg("parameters"), py::arg("value") = py::none(),
             py::arg("log_det") = py::none())
        .def_property_readonly("n_weights", &P::n_weights)
        .def("parts",  // (begin, end, whether it is of biases) for each stretch of the vector
             [](const P& p) {
                 py::list out;
                 for (const auto& part : p.structure().parts())
                     out.append(py::make_tuple(part.begin, part.end, part.is_bias));
                 return out;
             })
        .def("weights",
             [](const P& p) {
                 Array<T> out(py::ssize_t(p.n_weights()));
                 p.weights(out.mutable_data());
                 return out;
             })
        .def(
            "set_weights",
            [](P& p, const Array<T>& in) {
                require(is_aligned(in), "weights: expected an aligned array");
                require(in.ndim() == 1 && size_t(in.shape(0)) == p.n_weights(),
                        "weights: the vector has the wrong size");
                p.set_weights(in.data());
            },
            py::arg("weights").noconvert());
}

template <class T>
void bind_adam_of(py::module_& m, const char* name) {
    py::class_<Adam<T>>(m, name)
        .def(py::init([](const std::shared_ptr<Program<T>>& program, double beta1, double beta2, double epsilon,
                         double weight_decay, double clip, double average) {
                 require(program != nullptr, "program: expected a program");
                 return Adam<T>(program, AdamOptions{beta1, beta2, epsilon, weight_decay, clip, average});
             }),
             py::arg("program"), py::arg("beta1"), py::arg("beta2"), py::arg("epsilon"), py::arg("weight_decay"),
             py::arg("clip"), py::arg("average"))
        .def("average",
             [](const Adam<T>& adam) {
                 require(adam.average() != nullptr, "average: none is kept");
                 Array<T> out(py::ssize_t(adam.program().n_weights()));
                 std::copy_n(adam.average(), adam.program().n_weights(), out.mutable_data());
                 return out;
             })
        .def(
            "step",
            [](Adam<T>& adam, const Array<T>& gradient, double learning_rate) {
                require(gradient.ndim() == 1 && size_t(gradient.shape(0)) == adam.program().n_weights() &&
                            is_aligned(gradient),
                        "gradient: the vector has the wrong size");
                // The GIL is kept: weights change in place, and no other thread may take or fork them meanwhile.
                return adam.step(gradient.data(), learning_rate);
            },
            py::arg("gradient").noconvert(), py::arg("learning_rate"));
}

}  // namespace

void bind_program(py::module_& m) {
    bind_program_of<float>(m, "ProgramF32");
    bind_program_of<double>(m, "ProgramF64");
    bind_adam_of<float>(m, "AdamF32");
    bind_adam_of<double>(m, "AdamF64");
}

}  // namespace headrace
