// Runs of programs as calls of XLA's foreign function interface: compiled JAX code calls the core without Python. Only
// built where XLA's headers are (jaxlib brings them); they are headers of a C interface, and nothing of JAX is linked.
#include <xla/ffi/api/ffi.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <random>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "../core/program.hpp"
#include "bindings.hpp"

namespace headrace {
namespace {

namespace ffi = xla::ffi;

// What compiled code knows of a program is a number. A program that is gone is then an error, where an address would
// dangle. Numbers start at a random one, so that code that another process compiled finds no program here.
template <class T>
struct Entry {
    std::shared_ptr<const Program<T>> program;
    std::atomic<bool> has_even_rows{true};  // the loss takes all rows alike, as far as has been seen
};

template <class T>
class Handles {
  public:
    int64_t open(std::shared_ptr<const Program<T>> program) {
        auto entry = std::make_shared<Entry<T>>();
        entry->program = std::move(program);
        const std::unique_lock lock(mutex_);
        const int64_t handle = next_++;
        programs_.emplace(handle, std::move(entry));
        return handle;
    }
    bool close(int64_t handle) {
        std::shared_ptr<Entry<T>> last;  // destroyed without the lock
        const std::unique_lock lock(mutex_);
        const auto found = programs_.find(handle);
        if (found == programs_.end()) return false;
        last = std::move(found->second);
        programs_.erase(found);
        return true;
    }
    std::shared_ptr<Entry<T>> find(int64_t handle) const {
        const std::shared_lock lock(mutex_);
        const auto found = programs_.find(handle);
        return found == programs_.end() ? nullptr : found->second;
    }
    size_t count() const {
        const std::shared_lock lock(mutex_);
        return programs_.size();
    }
    static Handles& all() {
        static Handles handles;
        return handles;
    }

  private:
    static int64_t first() {
        std::random_device random;
        return int64_t((uint64_t(random()) << 31 ^ random()) >> 2);
    }
    mutable std::shared_mutex mutex_;
    std::unordered_map<int64_t, std::shared_ptr<Entry<T>>> programs_;
    int64_t next_ = first();
};

template <class T>
constexpr auto xla_type = sizeof(T) == 8 ? ffi::F64 : ffi::F32;
template <class T>
using In = ffi::Buffer<xla_type<T>>;
template <class T>
using Out = ffi::Result<ffi::Buffer<xla_type<T>>>;

// Rows of a C-contiguous array; of one number each for columns = 0.
template <class T>
ArrayView rows_of(const In<T>& buffer, int64_t columns) {
    const auto width = int64_t(sizeof(T));
    return {reinterpret_cast<const char*>(buffer.typed_data()), (columns ? columns : 1) * width, columns ? width : 0,
            sizeof(T) == 8, nullptr};
}

// Where a result goes; it is not wanted if its array was declared to be empty.
template <class T>
T* wanted(Out<T>& out) {
    return out->element_count() ? out->typed_data() : nullptr;
}

bool is_shape(const ffi::Span<const int64_t>& given, int64_t rows, int64_t columns) {
    return given.size() == 2 && given[0] == rows && given[1] == columns;
}

ffi::Error refused(const char* message) {
    return ffi::Error::InvalidArgument(std::string("headrace: ") + message);
}

// A request, and what it points to. Sizes are checked here although Python has checked them: compiled code may have
// been made by anybody.
template <class T>
struct Opened {
    std::shared_ptr<Entry<T>> entry;
    const Program<T>* program = nullptr;
    typename Program<T>::Weights weights;
    ArrayView input{}, context{};
    Request<T> request;

    ffi::Error open(int64_t handle, bool inverse, bool base, const In<T>& parameters, const In<T>& x, const In<T>& c) {
        entry = Handles<T>::all().find(handle);
        if (!entry)
            return refused(
                "the flow that this was compiled for is gone; keep its FlowModule, or the flow, for as long as what "
                "was compiled with it");
        program = entry->program.get();
        const auto dimensions = x.dimensions();
        if (dimensions.size() != 2 || dimensions[1] != program->features())
            return refused("x: expected (rows, features)");
        request.inverse = inverse;
        request.with_base = base;
        request.rows = dimensions[0];
        if (base && program->base() == Base::none) return refused("a transform on its own has no base");
        input = rows_of<T>(x, program->features());
        request.input = &input;
        if (const int64_t columns = program->context()) {
            request.one_context_row = is_shape(c.dimensions(), 1, columns);
            if (!request.one_context_row && !is_shape(c.dimensions(), request.rows, columns))
                return refused("context: expected (rows, context) or (1, context)");
            context = rows_of<T>(c, columns);
            if (request.one_context_row) context.row_stride = 0;
            request.context = &context;
        }
        if (parameters.element_count() == 0) {
            weights = program->snapshot();  // a structure's own numbers, which nobody changes
        } else {
            if (parameters.element_count() != program->n_weights())
                return refused("params: the vector has the wrong size");
            weights = program->weights_of(parameters.typed_data());
        }
        return ffi::Error::Success();
    }

    // Results, but for the parameters that are not wanted.
    ffi::Error open_results(Out<T>& value, Out<T>& row) {
        const auto rows = size_t(request.rows);
        if (value->element_count() && value->element_count() != rows * size_t(program->features()))
            return refused("value: expected (rows, features)");
        if (row->element_count() && row->element_count() != rows) return refused("expected a number for each row");
        request.value = wanted<T>(value);
        (request.with_base ? request.log_prob : request.log_det) = wanted<T>(row);
        return ffi::Error::Success();
    }
};

// Whether arrays for gradients are empty, or of the shapes of what these belong to; the context's for each row.
template <class T>
bool are_gradients(const Opened<T>& opened, Out<T>& to_parameters, Out<T>& to_x, Out<T>& to_context) {
    const auto rows = size_t(opened.request.rows);
    const auto is = [](Out<T>& out, size_t size) { return out->element_count() == 0 || out->element_count() == size; };
    return is(to_parameters, opened.program->n_weights()) && is(to_x, rows * size_t(opened.program->features())) &&
           is(to_context, rows * size_t(opened.program->context()));
}

ffi::Error refused_gradients() {
    return refused("gradients: expected the shapes of what they belong to, the context's for each row");
}

// XLA is compiled without exceptions: none may reach it.
template <class Body>
ffi::Error guarded(Body&& body) {
    try {
        return body();
    } catch (const std::bad_alloc&) {
        return ffi::Error(ffi::ErrorCode::kResourceExhausted, "headrace: out of memory");
    } catch (const std::exception& error) {
        return ffi::Error::Internal(std::string("headrace: ") + error.what());
    }
}

// x and what belongs to each row: its log-determinant, or with the base its log-density.
template <class T>
ffi::Error run(int64_t handle, bool inverse, bool base, In<T> parameters, In<T> x, In<T> context, Out<T> value,
               Out<T> row) {
    return guarded([&]() -> ffi::Error {
        Opened<T> opened;
        if (auto e = opened.open(handle, inverse, base, parameters, x, context); e.failure()) return e;
        if (auto e = opened.open_results(value, row); e.failure()) return e;
        opened.program->run(opened.request, opened.weights);
        return ffi::Error::Success();
    });
}

// The same and back. An empty by_value counts as zeros; for an empty by_row row_scale stands in every row.
template <class T>
ffi::Error run_gradient(int64_t handle, bool inverse, bool base, double row_scale, In<T> parameters, In<T> x,
                        In<T> context, In<T> by_value, In<T> by_row, Out<T> value, Out<T> row, Out<T> to_parameters,
                        Out<T> to_x, Out<T> to_context) {
    return guarded([&]() -> ffi::Error {
        Opened<T> opened;
        if (auto e = opened.open(handle, inverse, base, parameters, x, context); e.failure()) return e;
        if (auto e = opened.open_results(value, row); e.failure()) return e;
        const Program<T>& program = *opened.program;
        const auto rows = size_t(opened.request.rows);
        GradientRequest<T> gradient;
        gradient.from.of_log_prob = base;
        gradient.from.row_scale = row_scale;
        if (by_row.element_count()) {
            if (by_row.element_count() != rows) return refused("cotangent: expected a number for each row");
            gradient.from.row = rows_of<T>(by_row, 0);
        }
        if (by_value.element_count()) {
            if (by_value.element_count() != rows * size_t(program.features()))
                return refused("cotangent: expected (rows, features)");
            gradient.from.value = rows_of<T>(by_value, program.features());
        }
        gradient.weights = wanted<T>(to_parameters);
        gradient.input = wanted<T>(to_x);
        gradient.context = wanted<T>(to_context);
        if (!are_gradients(opened, to_parameters, to_x, to_context)) return refused_gradients();
        program.run_gradient(opened.request, gradient, opened.weights);
        return ffi::Error::Success();
    });
}

// Each row's number, and the gradients of their sum, from one run: those of a loss that takes all rows alike, but for a
// factor. By parameters only as long as no other loss was seen; `has_parameters` says whether.
template <class T>
ffi::Error run_unit(int64_t handle, bool inverse, bool base, In<T> parameters, In<T> x, In<T> context, Out<T> row,
                    Out<T> has_parameters, Out<T> to_parameters, Out<T> to_x, Out<T> to_context) {
    return guarded([&]() -> ffi::Error {
        Opened<T> opened;
        if (auto e = opened.open(handle, inverse, base, parameters, x, context); e.failure()) return e;
        Request<T>& request = opened.request;
        const Program<T>& program = *opened.program;
        const auto rows = size_t(request.rows);
        if (row->element_count() != rows || has_parameters->element_count() != 1 ||
            to_parameters->element_count() != program.n_weights() ||
            !are_gradients(opened, to_parameters, to_x, to_context))
            return refused_gradients();
        (base ? request.log_prob : request.log_det) = row->typed_data();
        const bool even = opened.entry->has_even_rows.load(std::memory_order_relaxed);
        *has_parameters->typed_data() = even ? T(1) : T(0);
        GradientRequest<T> gradient;
        gradient.from.of_log_prob = base;
        gradient.from.row_scale = 1;
        gradient.weights = even ? to_parameters->typed_data() : nullptr;
        gradient.input = wanted<T>(to_x);
        gradient.context = wanted<T>(to_context);
        if (!even) std::fill_n(to_parameters->typed_data(), to_parameters->element_count(), T(0));
        if (gradient.weights || gradient.input || gradient.context) {
            program.run_gradient(request, gradient, opened.weights);
        } else {
            request.tiles_only = true;  // few rows have the bits that the other way gives them
            program.run(request, opened.weights);
        }
        return ffi::Error::Success();
    });
}

// The parameters' gradient for factors of rows: `unit` times the factor where all have the same, else a run of its own.
// Bits do not depend on whether `unit` is there.
template <class T>
ffi::Error run_scaled(int64_t handle, bool inverse, bool base, In<T> parameters, In<T> x, In<T> context, In<T> by_row,
                      In<T> has_unit, In<T> unit, Out<T> to_parameters) {
    return guarded([&]() -> ffi::Error {
        Opened<T> opened;
        if (auto e = opened.open(handle, inverse, base, parameters, x, context); e.failure()) return e;
        const Program<T>& program = *opened.program;
        const auto rows = size_t(opened.request.rows);
        const size_t size = program.n_weights();
        if (by_row.element_count() != rows || has_unit.element_count() != 1 || unit.element_count() != size ||
            to_parameters->element_count() != size)
            return refused_gradients();
        T* const out = to_parameters->typed_data();
        const T* const factors = by_row.typed_data();
        const bool even = std::all_of(factors, factors + rows, [&](T f) { return f == factors[0]; });
        GradientRequest<T> gradient;
        gradient.from.of_log_prob = base;
        gradient.from.row_scale = 1;
        gradient.weights = out;
        if (!even) {
            opened.entry->has_even_rows.store(false, std::memory_order_relaxed);
            gradient.from.row = rows_of<T>(by_row, 0);
        }
        const bool has = even && *has_unit.typed_data() != T(0);
        if (!has) program.run_gradient(opened.request, gradient, opened.weights);
        if (even) {
            const T* const from = has ? unit.typed_data() : out;
            const T factor = rows ? factors[0] : T(0);
            std::transform(from, from + size, out, [&](T g) { return factor * g; });
        }
        return ffi::Error::Success();
    });
}

ffi::Error no_device(ffi::RemainingArgs, ffi::RemainingRets) {
    return ffi::Error(
        ffi::ErrorCode::kUnimplemented,
        "headrace.jax computes on the CPU; compile for it, as by jax.default_device(jax.devices('cpu')[0])");
}

// What a call says, by name, and then so many arrays in and, at least one, out. A binding cannot be moved, only made.
auto told() {
    return ffi::Ffi::Bind().Attr<int64_t>("handle").Attr<bool>("inverse").Attr<bool>("base");
}
template <class T, int ins, int outs, class Binding>
auto with_arrays(Binding&& binding) {
    using Result = ffi::Buffer<xla_type<T>>;
    if constexpr (ins > 0)
        return with_arrays<T, ins - 1, outs>(std::forward<Binding>(binding).template Arg<In<T>>());
    else if constexpr (outs > 1)
        return with_arrays<T, 0, outs - 1>(std::forward<Binding>(binding).template Ret<Result>());
    else
        return std::forward<Binding>(binding).template Ret<Result>();
}
template <class T>
auto bound_run() {
    return with_arrays<T, 3, 2>(told());
}
template <class T>
auto bound_gradient() {
    return with_arrays<T, 5, 5>(told().template Attr<double>("row_scale"));
}
template <class T>
auto bound_unit() {
    return with_arrays<T, 3, 5>(told());
}
template <class T>
auto bound_scaled() {
    return with_arrays<T, 6, 1>(told());
}

XLA_FFI_DEFINE_HANDLER(run_float32, run<float>, bound_run<float>());
XLA_FFI_DEFINE_HANDLER(run_float64, run<double>, bound_run<double>());
XLA_FFI_DEFINE_HANDLER(gradient_float32, run_gradient<float>, bound_gradient<float>());
XLA_FFI_DEFINE_HANDLER(gradient_float64, run_gradient<double>, bound_gradient<double>());
XLA_FFI_DEFINE_HANDLER(unit_float32, run_unit<float>, bound_unit<float>());
XLA_FFI_DEFINE_HANDLER(unit_float64, run_unit<double>, bound_unit<double>());
XLA_FFI_DEFINE_HANDLER(scaled_float32, run_scaled<float>, bound_scaled<float>());
XLA_FFI_DEFINE_HANDLER(scaled_float64, run_scaled<double>, bound_scaled<double>());
XLA_FFI_DEFINE_HANDLER(elsewhere, no_device, ffi::Ffi::Bind().RemainingArgs().RemainingRets());

template <class T>
void bind_handles_of(py::module_& m) {
    m.def(
        "xla_open", [](std::shared_ptr<Program<T>> program) { return Handles<T>::all().open(std::move(program)); },
        py::arg("program").none(false));
}

}  // namespace

void bind_xla(py::module_& m) {
    // A capsule holds a void pointer, of whatever it is.
    const auto handler = [](auto* function) {
        void* const address = reinterpret_cast<void*>(function);
        return py::capsule(address);
    };
    py::dict handlers;
    handlers["run_float32"] = handler(run_float32);
    handlers["run_float64"] = handler(run_float64);
    handlers["gradient_float32"] = handler(gradient_float32);
    handlers["gradient_float64"] = handler(gradient_float64);
    handlers["unit_float32"] = handler(unit_float32);
    handlers["unit_float64"] = handler(unit_float64);
    handlers["scaled_float32"] = handler(scaled_float32);
    handlers["scaled_float64"] = handler(scaled_float64);
    handlers["elsewhere"] = handler(elsewhere);
    m.attr("xla_handlers") = handlers;
    bind_handles_of<float>(m);
    bind_handles_of<double>(m);
    m.def(
        "xla_close",
        [](bool is_double, int64_t handle) {
            return is_double ? Handles<double>::all().close(handle) : Handles<float>::all().close(handle);
        },
        py::arg("is_double"), py::arg("handle"));
    m.def("xla_count", [] { return Handles<float>::all().count() + Handles<double>::all().count(); });
}

}  // namespace headrace
