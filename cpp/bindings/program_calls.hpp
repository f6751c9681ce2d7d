// Calls of a program for Python, on every device. Each method (log_prob, sample, transform, gradient) is one kind of
// run; this file has all checks and messages.
//
// `Arrays` (HostArrays, DeviceArrays) opens arrays, and releases the interpreter's lock during a call. `Queue` has a
// device's additional argument, the stream; on the CPU it is empty.
#pragma once

#include <pybind11/stl.h>

#include <optional>

#include "../core/request.hpp"
#include "arrays.hpp"

namespace headrace {

// A call: its request, and the arrays to which the request points.
template <class Arrays, class T, class... Queue>
class ProgramCall {
  public:
    using P = typename Arrays::template Program<T>;
    using Object = const py::object&;

    // Computes log-densities, from data to latent.
    static void log_prob(P& program, Object x, Object out, Object context, Object parameters, Queue... queue) {
        ProgramCall call(program, true, true);
        call.open_input(x, "x: expected (rows, features)");
        call.open_context(context);
        call.request_.log_prob = call.template numbers<T>(out, {call.rows()}, "out: expected a contiguous (rows,)");
        call.run(parameters, queue...);
    }

    // Samples, from latent to data: rows [first_row, first_row + rows) of the endless sample of the seed. Without
    // first_row, the first row is row 0, and a small batch may use a faster kernel, which rounds differently.
    static void sample(P& program, int64_t rows, uint64_t seed, std::optional<int64_t> first_row, Object value,
                       Object log_prob, Object context, Object parameters, Queue... queue) {
        ProgramCall call(program, false, true);
        require(rows >= 0, "rows: expected at least 0");
        require(first_row.value_or(0) >= 0 && first_row.value_or(0) <= INT64_MAX - rows,
                "first_row: expected at least 0, and at most 2^63 - 1 with the rows");
        call.request_.rows = rows;
        call.request_.seed = seed;
        call.request_.first_row = first_row.value_or(0);
        call.request_.tiles_only = first_row.has_value();
        call.run_from_noise(value, log_prob, context, parameters, queue...);
    }

    // Samples from given noise.
    static void from_noise(P& program, Object noise, Object value, Object log_prob, Object context, Object parameters,
                           Queue... queue) {
        ProgramCall call(program, false, true);
        call.open_input(noise, "noise: expected (rows, features)");
        call.run_from_noise(value, log_prob, context, parameters, queue...);
    }

    // Runs the program in either direction, from the base or to the base.
    static void transform(P& program, bool inverse, Object input, Object value, Object log_det, Object context,
                          Object parameters, Queue... queue) {
        ProgramCall call(program, inverse, false);
        call.open_input(input, "input: expected (rows, features)");
        call.open_context(context);
        call.open_value(value);
        call.open_log_det(log_det);
        call.run(parameters, queue...);
    }

    // Computes a run and its gradient. grad_row is the gradient by the log-density if of_log_prob, otherwise by the
    // log-determinant; it is multiplied by row_scale, and None means 1 for every row. `index` has the indices of the
    // rows of input, context and grad_row that take part, or is None for all rows. value, log_det and log_prob receive
    // the results of the run. `dropout` is the seed of dropout, if there is any.
    static void gradient(P& program, bool inverse, bool of_log_prob, Object input, Object index, Object context,
                         Object grad_value, Object grad_row, double row_scale, Object value, Object log_det,
                         Object log_prob, Object grad_input, Object grad_context, Object grad_weights,
                         Object parameters, Object dropout, Queue... queue) {
        ProgramCall call(program, inverse, of_log_prob);
        call.open_input(input, "input: expected (rows, features)");
        call.open_context(context);
        Cotangent from{};
        from.of_log_prob = of_log_prob;
        from.row_scale = row_scale;
        call.open_cotangents(from, grad_value, grad_row);
        if (!index.is_none()) {
            require(grad_value.is_none(), "grad_value: expected none beside an index");
            call.choose(index, from);
        }
        const int64_t rows = call.rows();
        call.open_value(value);
        call.open_log_det(log_det);
        require(log_prob.is_none() || of_log_prob, "log_prob: expected where the gradient is by it");
        call.open_log_prob(log_prob);
        GradientRequest<T> gradient{from};
        gradient.input =
            wanted<T>(grad_input, {rows, program.features()}, "grad_input: expected a contiguous (rows, features)");
        require(grad_context.is_none() || program.context() > 0, "grad_context: there is no context");
        gradient.context =
            wanted<T>(grad_context, {rows, program.context()}, "grad_context: expected a contiguous (rows, context)");
        gradient.weights =
            wanted<T>(grad_weights, {int64_t(program.n_weights())}, "grad_weights: expected a contiguous vector");
        if (!dropout.is_none()) {
            call.request_.drops = true;
            call.request_.seed = py::cast<uint64_t>(dropout);
        }
        const auto weights = call.weights(parameters);
        Arrays::unlocked([&] { program.run_gradient(call.request_, gradient, weights, Arrays::stream(queue)...); });
    }

  private:
    ProgramCall(P& program, bool inverse, bool with_base) : program_(program) {
        require(!with_base || program.base() != Base::none, "log_prob: a transform on its own has no base");
        request_.inverse = inverse;
        request_.with_base = with_base;
    }

    int64_t rows() const { return request_.rows; }

    template <class N>
    static N* numbers(Object given, std::initializer_list<int64_t> shape, const char* message) {
        return Arrays::template numbers<N>(given, shape, message);
    }
    // The values of an array argument; null for None.
    template <class N>
    static N* wanted(Object given, std::initializer_list<int64_t> shape, const char* message) {
        return given.is_none() ? nullptr : numbers<N>(given, shape, message);
    }

    void open_input(Object given, const char* message) {
        const OpenedArray a = Arrays::open(given);
        require(a.axes == 2 && a.columns == program_.features(), message);
        input_ = a.view;
        request_.input = &input_;
        request_.rows = a.rows;
    }

    void open_context(Object given) {
        require(given.is_none() == (program_.context() == 0), "context: expected if and only if the program reads one");
        if (given.is_none()) return;
        const OpenedArray a = Arrays::open(given);
        require(a.axes == 2 && a.columns == program_.context() && (a.rows == rows() || a.rows == 1),
                "context: expected (rows, context) or (1, context)");
        context_ = a.view;
        request_.one_context_row = a.rows == 1;
        if (request_.one_context_row) context_.row_stride = 0;
        request_.context = &context_;
    }

    // Opens the array for resulting values, of dtype T; in the direction to data it may also be of float64, for values
    // that are not rounded to T.
    void open_value(Object given) {
        const std::initializer_list<int64_t> shape{rows(), program_.features()};
        constexpr const char* message = "value: expected a C-contiguous (rows, features)";
        if constexpr (!std::is_same_v<T, double>) {
            if (!given.is_none() && Arrays::is_double(given)) {
                require(!request_.inverse, "value: expected the program's dtype on the latent side");
                request_.wide_value = numbers<double>(given, shape, message);
                return;
            }
        }
        request_.value = wanted<T>(given, shape, message);
    }
    void open_log_det(Object given) {
        request_.log_det = wanted<T>(given, {rows()}, "log_det: expected a contiguous (rows,)");
    }
    void open_log_prob(Object given) {
        request_.log_prob = wanted<T>(given, {rows()}, "log_prob: expected a contiguous (rows,)");
    }

    void open_cotangents(Cotangent& from, Object value, Object row) const {
        if (!value.is_none()) {
            const OpenedArray a = Arrays::open(value);
            require(a.axes == 2 && a.rows == rows() && a.columns == program_.features(),
                    "grad_value: expected (rows, features)");
            from.value = a.view;
        }
        if (!row.is_none()) {
            const OpenedArray a = Arrays::open(row);
            require(a.axes == 1 && a.rows == rows(), "grad_row: expected (rows,)");
            from.row = a.view;
        }
    }

    // Limits the call to the rows of `index`.
    void choose(Object given, Cotangent& from) {
        constexpr const char* message = "index: expected contiguous integers of 64 bits in one dimension";
        const int64_t n = Arrays::length(given, message);
        index_ = Arrays::index(numbers<const int64_t>(given, {n}, message), n, rows());
        input_.rows = index_.data();
        if (!request_.one_context_row) context_.rows = index_.data();
        from.row.rows = index_.data();
        request_.rows = n;
    }

    // The parameters of a call: those of the program, a vector for this call alone, or on the CPU those of another
    // program.
    auto weights(Object parameters) const {
        if constexpr (requires { Arrays::template held_by<T>(program_, parameters); })
            if (auto held = Arrays::template held_by<T>(program_, parameters)) return held;
        return Arrays::template weights<T>(
            program_, wanted<const T>(parameters, {int64_t(program_.n_weights())},
                                      "parameters: expected a contiguous vector like the weights, in their dtype"));
    }

    void run_from_noise(Object value, Object log_prob, Object context, Object parameters, Queue... queue) {
        open_context(context);
        open_value(value);
        open_log_prob(log_prob);
        run(parameters, queue...);
    }

    void run(Object parameters, Queue... queue) const {
        const auto own = weights(parameters);
        Arrays::unlocked([&] { program_.run(request_, own, Arrays::stream(queue)...); });
    }

    P& program_;
    Request<T> request_;
    ArrayView input_, context_;
    typename Arrays::Index index_;
};

// Binds log_prob, sample, transform and gradient as methods; `named` has the additional last arguments of a device.
template <class Arrays, class T, class... Queue, class Class, class... Named>
void bind_program_calls(Class& c, const Named&... named) {
    using Call = ProgramCall<Arrays, T, Queue...>;
    const py::arg_v context(py::arg("context") = py::none()), parameters(py::arg("parameters") = py::none());
    const py::arg_v log_prob(py::arg("log_prob") = py::none()), log_det(py::arg("log_det") = py::none());
    const py::arg_v value(py::arg("value") = py::none());
    c.def("log_prob", &Call::log_prob, py::arg("x"), py::arg("out"), context, parameters, named...)
        .def("sample", &Call::sample, py::arg("rows"), py::arg("seed"), py::arg("first_row") = py::none(), value,
             log_prob, context, parameters, named...)
        .def("from_noise", &Call::from_noise, py::arg("noise"), value, log_prob, context, parameters, named...)
        .def("transform", &Call::transform, py::arg("inverse"), py::arg("input"), value, log_det, context, parameters,
             named...)
        .def("gradient", &Call::gradient, py::arg("inverse"), py::arg("of_log_prob"), py::arg("input"),
             py::arg("index") = py::none(), context, py::arg("grad_value") = py::none(),
             py::arg("grad_row") = py::none(), py::arg("row_scale") = 1.0, value, log_det, log_prob,
             py::arg("grad_input") = py::none(), py::arg("grad_context") = py::none(),
             py::arg("grad_weights") = py::none(), parameters, py::arg("dropout") = py::none(), named...)
        .def_property_readonly("n_weights", &Call::P::n_weights);
}

// The state of Adam as (mean, square, average or None, clock), with vectors of the host. set_adam_memory is the
// inverse.
template <class A>
py::tuple adam_memory(A& adam) {
    using T = typename A::Number;
    const AdamMemory<T> memory = adam.memory();
    const auto array = [](const auto& from) {
        return Array<std::decay_t<decltype(from[0])>>(py::ssize_t(from.size()), from.data());
    };
    const AdamClock& clock = memory.clock;
    const std::vector<double> counted{clock.mean_power, clock.square_power, clock.steps};
    const py::object average = memory.average.empty() ? py::object(py::none()) : py::object(array(memory.average));
    return py::make_tuple(array(memory.mean), array(memory.square), average, array(counted));
}

template <class A>
void set_adam_memory(A& adam, const py::object& mean, const py::object& square, const py::object& average,
                     const py::object& clock) {
    using T = typename A::Number;
    const auto vector = [&](const py::object& given) {
        const int64_t n = int64_t(adam.program().n_weights());
        const T* const from = host_numbers<const T>(given, {n}, "memory: a vector has the wrong size or dtype");
        return std::vector<T>(from, from + n);
    };
    require(average.is_none() == !adam.has_average(), "memory: expected an average if and only if one is kept");
    const double* const counted = host_numbers<const double>(clock, {3}, "memory: expected a clock of three numbers");
    adam.set_memory({vector(mean),
                     vector(square),
                     average.is_none() ? std::vector<T>() : vector(average),
                     {counted[0], counted[1], counted[2]}});
}

// Binds an optimiser of programs P, except the methods that make steps.
template <class A, class P, class... Extra>
py::class_<A> bind_adam_of(py::module_& m, const char* name, const Extra&... extra) {
    return py::class_<A>(m, name, extra...)
        .def(py::init([](const std::shared_ptr<P>& program, double beta1, double beta2, double epsilon,
                         double weight_decay, double clip, double average) {
                 require(program != nullptr, "program: expected a program");
                 return std::make_unique<A>(program, AdamOptions{beta1, beta2, epsilon, weight_decay, clip, average});
             }),
             py::arg("program"), py::arg("beta1"), py::arg("beta2"), py::arg("epsilon"), py::arg("weight_decay"),
             py::arg("clip"), py::arg("average"))
        .def("memory", &adam_memory<A>)
        .def("set_memory", &set_adam_memory<A>, py::arg("mean"), py::arg("square"), py::arg("average"),
             py::arg("clock"));
}

}  // namespace headrace
