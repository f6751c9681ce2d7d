// Runs of programs as calls of XLA's foreign function interface, on every device: compiled JAX code calls the core
// without Python. Only read where XLA's headers are (jaxlib brings them); they are headers of a C interface, and
// nothing of JAX is linked. Every check and message is here.
//
// `Core` says what a handle stands for and where it computes (HostCore, DeviceCore); `Where` is what a device is told
// beside the arguments: the stream. On the CPU it is empty.
#pragma once

#include <pybind11/pybind11.h>
#include <xla/ffi/api/ffi.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <random>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "../core/request.hpp"

namespace headrace {

namespace ffi = xla::ffi;

// What compiled code knows of a program is a number. A program that is gone is then an error, where an address would
// dangle. Numbers start at a random one, so that code that another process compiled finds no program here.
template <class Core, class T>
struct Entry {
    std::shared_ptr<typename Core::template Known<T>> known;
    std::atomic<bool> has_even_rows{true};  // the loss takes all rows alike, as far as has been seen
};

template <class Core, class T>
class Handles {
  public:
    using Known = typename Core::template Known<T>;
    using Found = std::shared_ptr<Entry<Core, T>>;

    int64_t open(std::shared_ptr<Known> known) {
        const std::unique_lock lock(mutex_);
        const int64_t handle = next_++;
        entries_.emplace(handle, entry_of(std::move(known)));
        return handle;
    }
    // Under the number that it has on another device: what is compiled for both has one.
    bool open_as(int64_t handle, std::shared_ptr<Known> known) {
        const std::unique_lock lock(mutex_);
        return entries_.emplace(handle, entry_of(std::move(known))).second;
    }
    bool close(int64_t handle) {
        Found last;  // destroyed without the lock
        const std::unique_lock lock(mutex_);
        const auto found = entries_.find(handle);
        if (found == entries_.end()) return false;
        last = std::move(found->second);
        entries_.erase(found);
        return true;
    }
    Found find(int64_t handle) const {
        const std::shared_lock lock(mutex_);
        const auto found = entries_.find(handle);
        return found == entries_.end() ? nullptr : found->second;
    }
    size_t count() const {
        const std::shared_lock lock(mutex_);
        return entries_.size();
    }
    static Handles& all() {
        static Handles handles;
        return handles;
    }

  private:
    static Found entry_of(std::shared_ptr<Known> known) {
        auto entry = std::make_shared<Entry<Core, T>>();
        entry->known = std::move(known);
        return entry;
    }
    static int64_t first() {
        std::random_device random;
        return int64_t((uint64_t(random()) << 31 ^ random()) >> 2);
    }
    mutable std::shared_mutex mutex_;
    std::unordered_map<int64_t, Found> entries_;
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

inline bool is_shape(const ffi::Span<const int64_t>& given, int64_t rows, int64_t columns) {
    return given.size() == 2 && given[0] == rows && given[1] == columns;
}

inline ffi::Error refused(const char* message) {
    return ffi::Error::InvalidArgument(std::string("headrace: ") + message);
}

// XLA is compiled without exceptions: none may reach it. Where a device's memory ran out, its core may begin once more.
template <class Core, class Body>
ffi::Error guarded(const Body& body) {
    try {
        return Core::retried(body);
    } catch (const std::bad_alloc&) {
        return ffi::Error(ffi::ErrorCode::kResourceExhausted, "headrace: out of memory");
    } catch (const std::exception& error) {
        return ffi::Error(Core::code_of(error), std::string("headrace: ") + error.what());
    }
}

// The calls. A row's number is its log-determinant, or with the base its log-density. Sizes are checked here although
// Python has checked them: compiled code may have been made by anybody.
template <class Core, class T, class... Where>
class XlaCalls {
  public:
    using Number = T;

    // x and what belongs to each row.
    static ffi::Error run(Where... where, int64_t handle, bool inverse, bool base, In<T> parameters, In<T> x,
                          In<T> context, Out<T> value, Out<T> row) {
        return guarded<Core>([&]() -> ffi::Error {
            Opened opened;
            if (auto e = opened.open(where..., handle, inverse, base, parameters, x, context); e.failure()) return e;
            if (auto e = opened.open_results(value, row); e.failure()) return e;
            opened.program->run(opened.request, opened.weights, where...);
            return ffi::Error::Success();
        });
    }

    // The same and back. An empty by_value counts as zeros; for an empty by_row row_scale stands in every row.
    static ffi::Error gradient(Where... where, int64_t handle, bool inverse, bool base, double row_scale,
                               In<T> parameters, In<T> x, In<T> context, In<T> by_value, In<T> by_row, Out<T> value,
                               Out<T> row, Out<T> to_parameters, Out<T> to_x, Out<T> to_context) {
        return guarded<Core>([&]() -> ffi::Error {
            Opened opened;
            if (auto e = opened.open(where..., handle, inverse, base, parameters, x, context); e.failure()) return e;
            if (auto e = opened.open_results(value, row); e.failure()) return e;
            auto& program = *opened.program;
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
            if (!opened.are_gradients(to_parameters, to_x, to_context)) return refused_gradients();
            program.run_gradient(opened.request, gradient, opened.weights, where...);
            return ffi::Error::Success();
        });
    }

    // Each row's number, and the gradients of their sum, from one run: those of a loss that takes all rows alike, but
    // for a factor. By parameters only as long as no other loss was seen, and where the host can see one at all;
    // `has_parameters` says whether.
    static ffi::Error unit(Where... where, int64_t handle, bool inverse, bool base, In<T> parameters, In<T> x,
                           In<T> context, Out<T> row, Out<T> has_parameters, Out<T> to_parameters, Out<T> to_x,
                           Out<T> to_context) {
        return guarded<Core>([&]() -> ffi::Error {
            Opened opened;
            if (auto e = opened.open(where..., handle, inverse, base, parameters, x, context); e.failure()) return e;
            Request<T>& request = opened.request;
            auto& program = *opened.program;
            const auto rows = size_t(request.rows);
            if (row->element_count() != rows || has_parameters->element_count() != 1 ||
                to_parameters->element_count() != program.n_weights() ||
                !opened.are_gradients(to_parameters, to_x, to_context))
                return refused_gradients();
            (base ? request.log_prob : request.log_det) = row->typed_data();
            const bool even = Core::sees_numbers && opened.entry->has_even_rows.load(std::memory_order_relaxed);
            if (even) {
                *has_parameters->typed_data() = T(1);
            } else {
                Core::clear(has_parameters->typed_data(), 1, where...);
                Core::clear(to_parameters->typed_data(), to_parameters->element_count(), where...);
            }
            GradientRequest<T> gradient;
            gradient.from.of_log_prob = base;
            gradient.from.row_scale = 1;
            gradient.weights = even ? to_parameters->typed_data() : nullptr;
            gradient.input = wanted<T>(to_x);
            gradient.context = wanted<T>(to_context);
            if (gradient.weights || gradient.input || gradient.context) {
                program.run_gradient(request, gradient, opened.weights, where...);
            } else {
                request.tiles_only = true;  // few rows have the bits that the other way gives them
                program.run(request, opened.weights, where...);
            }
            return ffi::Error::Success();
        });
    }

    // The parameters' gradient for factors of rows: `unit` times the factor where all have the same, else a run of its
    // own. Bits do not depend on whether `unit` is there.
    static ffi::Error scaled(Where... where, int64_t handle, bool inverse, bool base, In<T> parameters, In<T> x,
                             In<T> context, In<T> by_row, In<T> has_unit, In<T> unit, Out<T> to_parameters) {
        return guarded<Core>([&]() -> ffi::Error {
            Opened opened;
            if (auto e = opened.open(where..., handle, inverse, base, parameters, x, context); e.failure()) return e;
            auto& program = *opened.program;
            const auto rows = size_t(opened.request.rows);
            const size_t size = program.n_weights();
            if (by_row.element_count() != rows || has_unit.element_count() != 1 || unit.element_count() != size ||
                to_parameters->element_count() != size)
                return refused_gradients();
            T* const out = to_parameters->typed_data();
            const T* const factors = by_row.typed_data();
            const bool even =
                Core::sees_numbers && std::all_of(factors, factors + rows, [&](T f) { return f == factors[0]; });
            GradientRequest<T> gradient;
            gradient.from.of_log_prob = base;
            gradient.from.row_scale = 1;
            gradient.weights = out;
            if (!even) {
                opened.entry->has_even_rows.store(false, std::memory_order_relaxed);
                gradient.from.row = rows_of<T>(by_row, 0);
            }
            const bool has = even && *has_unit.typed_data() != T(0);
            if (!has) program.run_gradient(opened.request, gradient, opened.weights, where...);
            if (even) {
                const T* const from = has ? unit.typed_data() : out;
                const T factor = rows ? factors[0] : T(0);
                std::transform(from, from + size, out, [&](T g) { return factor * g; });
            }
            return ffi::Error::Success();
        });
    }

  private:
    // A request, and what it points to.
    struct Opened {
        std::shared_ptr<Entry<Core, T>> entry;
        typename Core::template Program<T>* program = nullptr;
        typename Core::template Weights<T> weights{};
        ArrayView input{}, context{};
        Request<T> request;

        ffi::Error open(Where..., int64_t handle, bool inverse, bool base, const In<T>& parameters, const In<T>& x,
                        const In<T>& c) {
            entry = Handles<Core, T>::all().find(handle);
            if (!entry)
                return refused(
                    "the flow that this was compiled for is gone; keep its FlowModule, or the flow, for as long as "
                    "what was compiled with it");
            program = Core::program_of(entry->known.get());
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
            const size_t given = parameters.element_count();
            if (given != 0 && given != program->n_weights()) return refused("params: the vector has the wrong size");
            // An empty one is a structure's own numbers, which nobody changes.
            weights = Core::weights_of(*program, given == 0 ? nullptr : parameters.typed_data());
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

        // Whether arrays for gradients are empty, or of the shapes of what these belong to; the context's for each row.
        bool are_gradients(Out<T>& to_parameters, Out<T>& to_x, Out<T>& to_context) const {
            const auto rows = size_t(request.rows);
            const auto is = [](Out<T>& out, size_t size) {
                return out->element_count() == 0 || out->element_count() == size;
            };
            return is(to_parameters, program->n_weights()) && is(to_x, rows * size_t(program->features())) &&
                   is(to_context, rows * size_t(program->context()));
        }
    };

    static ffi::Error refused_gradients() {
        return refused("gradients: expected the shapes of what they belong to, the context's for each row");
    }
};

// What a call says, by name, after where it is made; and then so many arrays in and, at least one, out. A binding
// cannot be moved, only made.
template <class Core>
auto told() {
    return Core::bind().template Attr<int64_t>("handle").template Attr<bool>("inverse").template Attr<bool>("base");
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

// The handlers, by what Python calls them; a capsule holds a void pointer, of whatever it is.
inline pybind11::capsule capsule_of(XLA_FFI_Handler* handler) {
    return pybind11::capsule(reinterpret_cast<void*>(handler));
}
template <class Core, class Calls>
void add_handlers(pybind11::dict& handlers, const std::string& dtype) {
    using T = typename Calls::Number;
    XLA_FFI_DEFINE_HANDLER(run, &Calls::run, (with_arrays<T, 3, 2>(told<Core>())));
    XLA_FFI_DEFINE_HANDLER(gradient, &Calls::gradient,
                           (with_arrays<T, 5, 5>(told<Core>().template Attr<double>("row_scale"))));
    XLA_FFI_DEFINE_HANDLER(unit, &Calls::unit, (with_arrays<T, 3, 5>(told<Core>())));
    XLA_FFI_DEFINE_HANDLER(scaled, &Calls::scaled, (with_arrays<T, 6, 1>(told<Core>())));
    handlers[("run_" + dtype).c_str()] = capsule_of(run);
    handlers[("gradient_" + dtype).c_str()] = capsule_of(gradient);
    handlers[("unit_" + dtype).c_str()] = capsule_of(unit);
    handlers[("scaled_" + dtype).c_str()] = capsule_of(scaled);
}

// Handles of both dtypes, for Python.
template <class Core>
void bind_handles(pybind11::module_& m) {
    m.def(
        "xla_close",
        [](bool is_double, int64_t handle) {
            return is_double ? Handles<Core, double>::all().close(handle) : Handles<Core, float>::all().close(handle);
        },
        pybind11::arg("is_double"), pybind11::arg("handle"));
    m.def("xla_count", [] { return Handles<Core, float>::all().count() + Handles<Core, double>::all().count(); });
}

}  // namespace headrace
