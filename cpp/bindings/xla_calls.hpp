// Runs of programs as calls of XLA's foreign function interface (xla_ffi.hpp), on every device: compiled JAX code calls
// the core without Python. All checks and messages of calls are in this file.
//
// `Core` defines the object to which a handle refers, and the device that computes (HostCore, DeviceCore). `Where` has
// a device's additional argument, the stream; on the CPU it is empty.
#pragma once

#include <pybind11/pybind11.h>

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
#include "xla_ffi.hpp"

namespace headrace {

// Compiled code refers to a program by a handle, not an address, because a handle of a deleted program raises an error,
// where an address would dangle. Handles start at a random value, so that code compiled by another process finds no
// program in this process.
template <class Core, class T>
struct Entry {
    std::shared_ptr<typename Core::template Known<T>> known;
    std::atomic<bool> has_even_rows{true};  // false once a loss was seen that weights rows differently
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
    // Registers an object under the handle that it has on another device, because code that is compiled for both
    // devices has one handle.
    bool open_as(int64_t handle, std::shared_ptr<Known> known) {
        const std::unique_lock lock(mutex_);
        return entries_.emplace(handle, entry_of(std::move(known))).second;
    }
    bool close(int64_t handle) {
        Found last;  // destroyed after the lock is released
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
using In = xla::Array<T>;
template <class T>
using Out = xla::Array<T>;

// A view of the rows of a C-contiguous array; columns = 0 means one value for each row.
template <class T>
ArrayView rows_of(const In<T>& buffer, int64_t columns) {
    const auto width = int64_t(sizeof(T));
    return {reinterpret_cast<const char*>(buffer.data()), (columns ? columns : 1) * width, columns ? width : 0,
            sizeof(T) == 8, nullptr};
}

// The destination of a result; null if its array was declared empty, because the result is not needed.
template <class T>
T* wanted(const Out<T>& out) {
    return out.size() ? out.data() : nullptr;
}

template <class T>
bool is_shape(const In<T>& given, int64_t rows, int64_t columns) {
    return given.rank() == 2 && given.dimension(0) == rows && given.dimension(1) == columns;
}

inline xla::Error refused(const char* message) {
    return {xla::ErrorCode::invalid_argument, std::string("headrace: ") + message};
}

// Runs a call and returns its error, because XLA is compiled without exceptions, and none may propagate into it. On a
// device, `Core` may repeat a call that exhausted the memory.
template <class Core, class Body>
xla::Error guarded(const Body& body) {
    try {
        return Core::retried(body);
    } catch (const std::bad_alloc&) {
        return {xla::ErrorCode::resource_exhausted, "headrace: out of memory"};
    } catch (const std::exception& error) {
        return {Core::code_of(error), std::string("headrace: ") + error.what()};
    }
}

// The calls of XLA. A row's value is its log-determinant, or with `base` its log-density. Sizes are checked again,
// after checks in Python, because compiled code may come from any source.
template <class Core, class T, class... Where>
class XlaCalls {
  public:
    using Number = T;

    // Runs the program on x: `value` receives the results, and `row` each row's log-determinant or log-density.
    static xla::Error run(Where... where, int64_t handle, bool inverse, bool base, In<T> parameters, In<T> x,
                          In<T> context, Out<T> value, Out<T> row) {
        return guarded<Core>([&]() -> xla::Error {
            Opened opened;
            if (auto e = opened.open(where..., handle, inverse, base, parameters, x, context); e.is_failure()) return e;
            if (auto e = opened.open_results(value, row); e.is_failure()) return e;
            opened.program->run(opened.request, opened.weights, where...);
            return xla::Error::success();
        });
    }

    // Computes a run and its gradients. An empty by_value counts as zeros; with an empty by_row every row has the
    // gradient row_scale.
    static xla::Error gradient(Where... where, int64_t handle, bool inverse, bool base, double row_scale,
                               In<T> parameters, In<T> x, In<T> context, In<T> by_value, In<T> by_row, Out<T> value,
                               Out<T> row, Out<T> to_parameters, Out<T> to_x, Out<T> to_context) {
        return guarded<Core>([&]() -> xla::Error {
            Opened opened;
            if (auto e = opened.open(where..., handle, inverse, base, parameters, x, context); e.is_failure()) return e;
            if (auto e = opened.open_results(value, row); e.is_failure()) return e;
            auto& program = *opened.program;
            const auto rows = size_t(opened.request.rows);
            GradientRequest<T> gradient;
            gradient.from.of_log_prob = base;
            gradient.from.row_scale = row_scale;
            if (by_row.size()) {
                if (by_row.size() != rows) return refused("cotangent: expected a number for each row");
                gradient.from.row = rows_of<T>(by_row, 0);
            }
            if (by_value.size()) {
                if (by_value.size() != rows * size_t(program.features()))
                    return refused("cotangent: expected (rows, features)");
                gradient.from.value = rows_of<T>(by_value, program.features());
            }
            gradient.weights = wanted<T>(to_parameters);
            gradient.input = wanted<T>(to_x);
            gradient.context = wanted<T>(to_context);
            if (!opened.are_gradients(to_parameters, to_x, to_context)) return refused_gradients();
            program.run_gradient(opened.request, gradient, opened.weights, where...);
            return xla::Error::success();
        });
    }

    // Computes each row's value, and the gradients of the sum of these values, in one run: up to a factor, gradients of
    // a loss that weights all rows equally. Gradients by parameters are computed, and `has_parameters` is 1, as long as
    // no loss has weighted rows differently, and only where the host can read the weights of rows.
    static xla::Error unit(Where... where, int64_t handle, bool inverse, bool base, In<T> parameters, In<T> x,
                           In<T> context, Out<T> row, Out<T> has_parameters, Out<T> to_parameters, Out<T> to_x,
                           Out<T> to_context) {
        return guarded<Core>([&]() -> xla::Error {
            Opened opened;
            if (auto e = opened.open(where..., handle, inverse, base, parameters, x, context); e.is_failure()) return e;
            Request<T>& request = opened.request;
            auto& program = *opened.program;
            const auto rows = size_t(request.rows);
            if (row.size() != rows || has_parameters.size() != 1 || to_parameters.size() != program.n_weights() ||
                !opened.are_gradients(to_parameters, to_x, to_context))
                return refused_gradients();
            (base ? request.log_prob : request.log_det) = row.data();
            const bool even = Core::sees_numbers && opened.entry->has_even_rows.load(std::memory_order_relaxed);
            if (even) {
                *has_parameters.data() = T(1);
            } else {
                Core::clear(has_parameters.data(), 1, where...);
                Core::clear(to_parameters.data(), to_parameters.size(), where...);
            }
            GradientRequest<T> gradient;
            gradient.from.of_log_prob = base;
            gradient.from.row_scale = 1;
            gradient.weights = even ? to_parameters.data() : nullptr;
            gradient.input = wanted<T>(to_x);
            gradient.context = wanted<T>(to_context);
            if (gradient.weights || gradient.input || gradient.context) {
                program.run_gradient(request, gradient, opened.weights, where...);
            } else {
                request.tiles_only = true;  // so that small batches have the bits of a run with gradients
                program.run(request, opened.weights, where...);
            }
            return xla::Error::success();
        });
    }

    // Computes the gradient by parameters for given factors of rows: `unit` times the factor where all rows have one
    // factor, otherwise a separate run. With `unit` and without, the result has the same bits.
    static xla::Error scaled(Where... where, int64_t handle, bool inverse, bool base, In<T> parameters, In<T> x,
                             In<T> context, In<T> by_row, In<T> has_unit, In<T> unit, Out<T> to_parameters) {
        return guarded<Core>([&]() -> xla::Error {
            Opened opened;
            if (auto e = opened.open(where..., handle, inverse, base, parameters, x, context); e.is_failure()) return e;
            auto& program = *opened.program;
            const auto rows = size_t(opened.request.rows);
            const size_t size = program.n_weights();
            if (by_row.size() != rows || has_unit.size() != 1 || unit.size() != size || to_parameters.size() != size)
                return refused_gradients();
            T* const out = to_parameters.data();
            const T* const factors = by_row.data();
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
            const bool has = even && *has_unit.data() != T(0);
            if (!has) program.run_gradient(opened.request, gradient, opened.weights, where...);
            if (even) {
                const T* const from = has ? unit.data() : out;
                const T factor = rows ? factors[0] : T(0);
                std::transform(from, from + size, out, [&](T g) { return factor * g; });
            }
            return xla::Error::success();
        });
    }

  private:
    // A request, and the arrays to which it points.
    struct Opened {
        std::shared_ptr<Entry<Core, T>> entry;
        typename Core::template Program<T>* program = nullptr;
        typename Core::template Weights<T> weights{};
        ArrayView input{}, context{};
        Request<T> request;

        xla::Error open(Where..., int64_t handle, bool inverse, bool base, const In<T>& parameters, const In<T>& x,
                        const In<T>& c) {
            entry = Handles<Core, T>::all().find(handle);
            if (!entry)
                return refused(
                    "the flow that this was compiled for is gone; keep its FlowModule, or the flow, for as long as "
                    "what was compiled with it");
            program = Core::program_of(entry->known.get());
            if (x.rank() != 2 || x.dimension(1) != program->features()) return refused("x: expected (rows, features)");
            request.inverse = inverse;
            request.with_base = base;
            request.rows = x.dimension(0);
            if (base && program->base() == Base::none) return refused("a transform on its own has no base");
            input = rows_of<T>(x, program->features());
            request.input = &input;
            if (const int64_t columns = program->context()) {
                request.one_context_row = is_shape(c, 1, columns);
                if (!request.one_context_row && !is_shape(c, request.rows, columns))
                    return refused("context: expected (rows, context) or (1, context)");
                context = rows_of<T>(c, columns);
                if (request.one_context_row) context.row_stride = 0;
                request.context = &context;
            }
            const size_t given = parameters.size();
            if (given != 0 && given != program->n_weights()) return refused("params: the vector has the wrong size");
            // An empty array stands for the constant parameters of the structure.
            weights = Core::weights_of(*program, given == 0 ? nullptr : parameters.data());
            return xla::Error::success();
        }

        // Opens arrays of results, without gradients by parameters that are not requested.
        xla::Error open_results(const Out<T>& value, const Out<T>& row) {
            const auto rows = size_t(request.rows);
            if (value.size() && value.size() != rows * size_t(program->features()))
                return refused("value: expected (rows, features)");
            if (row.size() && row.size() != rows) return refused("expected a number for each row");
            request.value = wanted<T>(value);
            (request.with_base ? request.log_prob : request.log_det) = wanted<T>(row);
            return xla::Error::success();
        }

        // Whether arrays for gradients are empty, or have the shapes of the arguments; the gradient by the context has
        // one row for each row of x.
        bool are_gradients(const Out<T>& to_parameters, const Out<T>& to_x, const Out<T>& to_context) const {
            const auto rows = size_t(request.rows);
            const auto is = [](const Out<T>& out, size_t size) { return out.size() == 0 || out.size() == size; };
            return is(to_parameters, program->n_weights()) && is(to_x, rows * size_t(program->features())) &&
                   is(to_context, rows * size_t(program->context()));
        }
    };

    static xla::Error refused_gradients() {
        return refused("gradients: expected the shapes of what they belong to, the context's for each row");
    }
};

// Names of the attributes of a call, in the order of a handler's parameters.
inline constexpr const char* call_attributes[] = {"handle", "inverse", "base", "row_scale"};

// A capsule with the address of a handler, as a void pointer.
inline pybind11::capsule capsule_of(xla::HandlerFunction* handler) {
    return pybind11::capsule(reinterpret_cast<void*>(handler));
}
template <class Calls>
void add_handlers(pybind11::dict& handlers, const std::string& dtype) {
    const auto add = [&](const char* name, xla::HandlerFunction* handler) {
        handlers[(name + ("_" + dtype)).c_str()] = capsule_of(handler);
    };
    add("run", &xla::Handler<&Calls::run, call_attributes, 3>::call);
    add("gradient", &xla::Handler<&Calls::gradient, call_attributes, 5>::call);
    add("unit", &xla::Handler<&Calls::unit, call_attributes, 3>::call);
    add("scaled", &xla::Handler<&Calls::scaled, call_attributes, 6>::call);
}

// Binds handles of both dtypes for Python.
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
