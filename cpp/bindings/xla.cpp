// Calls from compiled JAX code on the CPU (on a device: cuda/bindings/xla.cpp).
#include <algorithm>
#include <exception>
#include <stdexcept>

#include "../core/program.hpp"
#include "bindings.hpp"
#include "xla_calls.hpp"
#include "xla_couplings.hpp"

namespace headrace {
namespace {

struct HostCore {
    template <class T>
    using Program = const headrace::Program<T>;
    template <class T>
    using Known = Program<T>;
    template <class T>
    using Weights = typename headrace::Program<T>::Weights;
    static constexpr bool sees_numbers = true;

    template <class T>
    static const headrace::Program<T>* program_of(const headrace::Program<T>* known) {
        return known;
    }
    template <class T>
    static auto weights_of(const headrace::Program<T>& program, const T* given) {
        return given ? program.weights_of(given) : program.snapshot();
    }
    template <class T>
    static void clear(T* out, size_t n) {
        std::fill_n(out, n, T(0));
    }
    template <class Body>
    static xla::Error retried(const Body& body) {
        return body();
    }
    static xla::ErrorCode code_of(const std::exception& error) {
        const bool is_argument = dynamic_cast<const std::invalid_argument*>(&error) ||  // thrown by the core
                                 dynamic_cast<const py::value_error*>(&error);          // thrown by `require`
        return is_argument ? xla::ErrorCode::invalid_argument : xla::ErrorCode::internal;
    }
};

// The handler for a device that this build does not support.
xla::Failure* elsewhere(xla::CallFrame* frame) {
    if (xla::answers_metadata(*frame)) return nullptr;
    return xla::failure_of(
        *frame, {xla::ErrorCode::unimplemented,
                 "headrace.jax computes on the CPU, and on CUDA devices that headrace itself can use, of which "
                 "`headrace info` says why there is none; compile for the CPU, as by "
                 "jax.default_device(jax.devices('cpu')[0])"});
}

template <class T>
void bind_open(py::module_& m) {
    m.def(
        "xla_open",
        [](std::shared_ptr<Program<T>> program) { return Handles<HostCore, T>::all().open(std::move(program)); },
        py::arg("program").none(false));
}

}  // namespace

void bind_xla(py::module_& m) {
    py::dict handlers;
    add_handlers<XlaCalls<HostCore, float>>(handlers, "float32");
    add_handlers<XlaCalls<HostCore, double>>(handlers, "float64");
    add_coupling_handlers<CouplingCalls<HostCore, float>>(handlers, "float32");
    add_coupling_handlers<CouplingCalls<HostCore, double>>(handlers, "float64");
    handlers["elsewhere"] = capsule_of(elsewhere);
    m.attr("xla_handlers") = handlers;
    bind_open<float>(m);
    bind_open<double>(m);
    bind_handles<HostCore>(m);
}

}  // namespace headrace
