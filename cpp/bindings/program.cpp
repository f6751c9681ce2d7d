// The classes Program (steps and weights) and Adam for Python.
#include <algorithm>

#include "../core/muon.hpp"
#include "../core/program.hpp"
#include "bindings.hpp"
#include "initialised.hpp"
#include "program_calls.hpp"
#include "structure.hpp"

HR_REFUSE_UNINITIALISED(headrace::Program<float>);
HR_REFUSE_UNINITIALISED(headrace::Program<double>);
HR_REFUSE_UNINITIALISED(headrace::Adam<float>);
HR_REFUSE_UNINITIALISED(headrace::Adam<double>);
HR_REFUSE_UNINITIALISED(headrace::Muon<float>);
HR_REFUSE_UNINITIALISED(headrace::Muon<double>);

namespace headrace {
namespace {

struct HostArrays {
    template <class T>
    using Program = const headrace::Program<T>;
    using Index = std::vector<int64_t>;

    static OpenedArray open(const py::object& given) {
        return open_host_array(given, "expected an array of float32 or float64");
    }
    template <class T>
    static T* numbers(const py::object& given, std::initializer_list<int64_t> shape, const char* message) {
        return host_numbers<T>(given, shape, message);
    }
    static bool is_double(const py::object& given) { return py::isinstance<py::array_t<double>>(given); }
    static int64_t length(const py::object& given, const char* message) {
        require(py::isinstance<py::array>(given), message);
        return py::reinterpret_borrow<py::array>(given).size();
    }
    // Copies the rows' indices, because Python may change the array during the call.
    static Index index(const int64_t* rows, int64_t n, int64_t all) {
        Index copy(rows, rows + n);
        require(std::all_of(copy.begin(), copy.end(), [&](int64_t r) { return r >= 0 && r < all; }),
                "index: expected rows of input");
        return copy;
    }
    template <class T>
    static auto weights(const headrace::Program<T>& program, const T* given) {
        return given ? program.weights_of(given) : program.snapshot();  // under the GIL, because os.fork waits for the
                                                                        // GIL
    }
    // The current weights of another program with the same transforms; null if the object is no such program.
    template <class T>
    static typename headrace::Program<T>::Weights held_by(const headrace::Program<T>& program,
                                                          const py::object& given) {
        if (!py::isinstance<headrace::Program<T>>(given)) return nullptr;
        const auto& other = py::cast<const headrace::Program<T>&>(given);
        require(other.n_weights() == program.n_weights(), "parameters: expected a program with as many weights");
        return other.snapshot();  // under the GIL
    }
    template <class F>
    static void unlocked(const F& work) {
        without_gil(work);
    }
};

template <class T>
void bind_program_of(py::module_& m, const char* name) {
    using P = Program<T>;
    py::class_<P, std::shared_ptr<P>> program(m, name);
    bind_program_calls<HostArrays, T>(program);
    program
        .def(py::init([](int features, int context, const std::string& base, std::vector<StepSpec> steps,
                         size_t base_steps, std::vector<double> context_mean, std::vector<double> context_std,
                         int bf16_kind) {
                 return std::make_shared<P>(features, context, base_of(base), std::move(steps), base_steps,
                                            ContextScale{std::move(context_mean), std::move(context_std)}, bf16_kind);
             }),
             py::arg("features"), py::arg("context"), py::arg("base"), py::arg("steps"), py::arg("base_steps"),
             py::arg("context_mean"), py::arg("context_std"), py::arg("bf16_kind") = 0)
        .def("parts",  // (begin, end, whether it has biases) for each range of the vector
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
            [](P& p, const py::object& weights) {
                p.set_weights(host_numbers<const T>(weights, {int64_t(p.n_weights())},
                                                    "weights: the vector has the wrong size or dtype"));
            },
            py::arg("weights"));
}

template <class T>
void bind_steps(py::class_<Adam<T>> adam) {
    adam.def("average",
             [](const Adam<T>& adam) {
                 require(adam.average() != nullptr, "average: none is kept");
                 Array<T> out(py::ssize_t(adam.program().n_weights()));
                 std::copy_n(adam.average(), adam.program().n_weights(), out.mutable_data());
                 return out;
             })
        .def(
            "step",
            [](Adam<T>& adam, const py::object& gradient, double learning_rate) {
                // The GIL is kept, because weights change in place, and no other thread may take a snapshot or fork in
                // the meantime.
                return adam.step(host_numbers<const T>(gradient, {int64_t(adam.program().n_weights())},
                                                       "gradient: the vector has the wrong size or dtype"),
                                 learning_rate);
            },
            py::arg("gradient"), py::arg("learning_rate"));
}

template <class T>
void bind_muon_of(py::module_& m, const char* name) {
    py::class_<Muon<T>, Adam<T>>(m, name).def(
        py::init([](const std::shared_ptr<Program<T>>& program, double momentum, double beta1, double beta2,
                    double epsilon, double weight_decay, double clip, double average) {
            require(program != nullptr, "program: expected a program");
            return std::make_unique<Muon<T>>(program, momentum,
                                             AdamOptions{beta1, beta2, epsilon, weight_decay, clip, average});
        }),
        py::arg("program"), py::arg("momentum"), py::arg("beta1"), py::arg("beta2"), py::arg("epsilon"),
        py::arg("weight_decay"), py::arg("clip"), py::arg("average"));
}

template <class T>
void bind_muon_update(py::module_& m) {
    m.def(
        "muon_update",
        [](const Array<T>& gradient, const Array<T>& mean, double momentum) {
            require(gradient.ndim() == 2 && gradient.size() > 0 && is_aligned(gradient), "gradient: expected a matrix");
            const int64_t rows = gradient.shape(0), columns = gradient.shape(1);
            require(std::max(rows, columns) < 1 << 15, "gradient: expected fewer than 32768 rows and columns");
            const T* const before = host_numbers<const T>(mean, {rows, columns}, "mean: expected the gradient's shape");
            Array<T> next({rows, columns}), update({rows, columns});
            const T* const from = gradient.data();
            T *const to_mean = next.mutable_data(), *const to = update.mutable_data();
            std::copy_n(before, rows * columns, to_mean);
            without_gil([&] { muon_update(from, int(rows), int(columns), momentum, to_mean, to); });
            return py::make_tuple(update, next);
        },
        py::arg("gradient").noconvert(), py::arg("mean").noconvert(), py::arg("momentum"));
}

}  // namespace

void bind_program(py::module_& m) {
    bind_program_of<float>(m, "ProgramF32");
    bind_program_of<double>(m, "ProgramF64");
    bind_steps(bind_adam_of<Adam<float>, Program<float>>(m, "AdamF32"));
    bind_steps(bind_adam_of<Adam<double>, Program<double>>(m, "AdamF64"));
    bind_muon_of<float>(m, "MuonF32");
    bind_muon_of<double>(m, "MuonF64");
    bind_muon_update<float>(m);
    bind_muon_update<double>(m);
}

}  // namespace headrace
