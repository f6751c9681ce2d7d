// The part of XLA's foreign function interface that calls of compiled code need, so that headrace builds without
// jaxlib.
//
// These structures are the binary interface of xla/ffi/api/c_api.h (OpenXLA), in which versions 0.1 to 0.3 agree:
// jaxlib has these versions from 0.5 on. XLA promises to keep old versions for a year. XLA queries the version of a
// handler before the first call of it; the handler reads XLA's version, and returns that version if it is supported.
// Handlers use `Array` and `Error`; `handler` makes the function that XLA calls from a function of a stream, attributes
// and arrays.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace headrace::xla {

constexpr int first_minor = 1, last_minor = 3;  // supported minor versions of 0.x

// ---- the binary interface: names differ from XLA's, order and types of fields do not --------------------------------

struct Extension {
    size_t size;
    int32_t type;
    Extension* next;
};
struct Version {
    size_t size;
    Extension* extensions;
    int major, minor;
};
struct Failure;           // an error object of XLA, made by a function of XLA
struct ExecutionContext;  // made by XLA

struct NewFailure {
    size_t size;
    Extension* extensions;
    const char* message;
    int32_t code;
};
struct OldFailure {
    size_t size;
    Extension* extensions;
    Failure* failure;
};
struct StreamQuestion {
    size_t size;
    Extension* extensions;
    ExecutionContext* context;
    void* stream;  // set by XLA
};
struct Functions {
    size_t size;
    Extension* extensions;
    Version version;
    const void* internal;
    Failure* (*new_failure)(NewFailure*);
    void (*message_of_failure)(void*);
    void (*delete_failure)(OldFailure*);
    void* (*register_handler)(void*);
    Failure* (*stream)(StreamQuestion*);
};
struct Buffer {
    size_t size;
    Extension* extensions;
    int32_t dtype;
    void* data;
    int64_t rank;
    int64_t* dimensions;
};
struct Buffers {  // arguments, or results
    size_t size;
    Extension* extensions;
    int64_t count;
    int32_t* types;
    void** items;
};
struct Text {
    const char* data;
    size_t length;
};
struct Scalar {
    int32_t dtype;
    void* value;
};
struct Attributes {
    size_t size;
    Extension* extensions;
    int64_t count;
    int32_t* types;
    Text** names;
    void** values;
};
struct CallFrame {
    size_t size;
    Extension* extensions;
    const Functions* functions;
    ExecutionContext* context;
    int32_t stage;
    Buffers arguments, results;
    Attributes attributes;
};
struct Metadata {
    size_t size;
    Version version;
    uint32_t traits;
};
struct MetadataQuestion {
    Extension base;
    Metadata* metadata;
};

constexpr int32_t metadata_extension = 1, buffer_type = 1, scalar_type = 3, text_type = 4;

template <class T>
constexpr int32_t dtype_of = -1;
template <>
inline constexpr int32_t dtype_of<bool> = 1;
template <>
inline constexpr int32_t dtype_of<int64_t> = 5;
template <>
inline constexpr int32_t dtype_of<float> = 11;
template <>
inline constexpr int32_t dtype_of<double> = 12;

using HandlerFunction = Failure*(CallFrame*);

// ---- types for handlers ---------------------------------------------------------------------------------------------

enum class ErrorCode : int32_t {
    ok = 0,
    invalid_argument = 3,
    resource_exhausted = 8,
    unimplemented = 12,
    internal = 13
};

class Error {
  public:
    Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
    static Error success() { return {ErrorCode::ok, {}}; }

    bool is_failure() const { return code_ != ErrorCode::ok; }
    ErrorCode code() const { return code_; }
    const std::string& message() const { return message_; }

  private:
    ErrorCode code_;
    std::string message_;
};

// A C-contiguous array that is an argument or a result.
template <class T>
class Array {
  public:
    Array() = default;
    explicit Array(const Buffer& buffer) : buffer_(&buffer) {}

    T* data() const { return static_cast<T*>(buffer_->data); }
    int64_t rank() const { return buffer_->rank; }
    int64_t dimension(int64_t axis) const { return buffer_->dimensions[axis]; }
    size_t size() const {
        return size_t(std::accumulate(buffer_->dimensions, buffer_->dimensions + buffer_->rank, int64_t(1),
                                      [](int64_t product, int64_t length) { return product * length; }));
    }

  private:
    const Buffer* buffer_ = nullptr;
};

template <class T>
constexpr bool is_array = false;
template <class T>
inline constexpr bool is_array<Array<T>> = true;

// ---- from a call frame to a handler ---------------------------------------------------------------------------------

inline Failure* failure_of(const CallFrame& frame, const Error& error) {
    if (!error.is_failure()) return nullptr;
    NewFailure made{offsetof(NewFailure, code) + sizeof(int32_t), nullptr, error.message().c_str(),
                    int32_t(error.code())};
    return frame.functions->new_failure(&made);
}

// Whether XLA queries a handler's properties instead of calling it; if so, answers the query.
inline bool answers_metadata(const CallFrame& frame) {
    if (!frame.extensions || frame.extensions->type != metadata_extension) return false;
    Metadata& metadata = *reinterpret_cast<MetadataQuestion*>(frame.extensions)->metadata;
    metadata.version.major = 0;
    metadata.version.minor = std::clamp(frame.functions->version.minor, first_minor, last_minor);
    metadata.traits = 0;
    return true;
}

// Reads the parameters of a handler one after another: a stream from a pointer, attributes by name in a fixed order,
// then arguments and results. The first error is kept.
class Reader {
  public:
    Reader(const CallFrame& frame, const char* const* names, int64_t arguments, int64_t results)
        : frame_(frame), names_(names) {
        if (frame.arguments.count != arguments || frame.results.count != results)
            fail("expected " + std::to_string(arguments) + " arguments and " + std::to_string(results) +
                 " results, got " + std::to_string(frame.arguments.count) + " and " +
                 std::to_string(frame.results.count));
    }

    const Error& problem() const { return problem_; }

    template <class P>
    P read() {
        if (problem_.is_failure()) return {};
        if constexpr (is_array<P>) {
            return array<P>();
        } else if constexpr (std::is_pointer_v<P>) {
            return static_cast<P>(stream());
        } else {
            return attribute<P>(*names_++);
        }
    }

  private:
    void fail(const std::string& message) {
        if (!problem_.is_failure()) problem_ = Error(ErrorCode::invalid_argument, "headrace: " + message);
    }

    template <class A>
    A array() {
        const int64_t position = next_++;
        const bool is_result = position >= frame_.arguments.count;
        const Buffers& of = is_result ? frame_.results : frame_.arguments;
        const int64_t i = position - (is_result ? frame_.arguments.count : 0);
        const auto* const buffer = static_cast<const Buffer*>(of.items[i]);
        if (of.types[i] != buffer_type || buffer->dtype != dtype_of<std::remove_pointer_t<decltype(A().data())>>) {
            fail("array " + std::to_string(position) + ": expected a buffer of this call's dtype");
            return {};
        }
        return A(*buffer);
    }

    void* stream() {
        StreamQuestion question{sizeof(StreamQuestion), nullptr, frame_.context, nullptr};
        if (Failure* const failure = frame_.functions->stream(&question)) {
            OldFailure old{sizeof(OldFailure), nullptr, failure};
            frame_.functions->delete_failure(&old);
            fail("XLA has no stream for this call");
        }
        return question.stream;
    }

    // An attribute: a number, or a text that is valid during the call.
    template <class P>
    P attribute(const char* name) {
        for (int64_t i = 0; i < frame_.attributes.count; ++i) {
            const Text& found = *frame_.attributes.names[i];
            if (std::string_view(found.data, found.length) != name) continue;
            const int32_t type = frame_.attributes.types[i];
            const void* const value = frame_.attributes.values[i];
            if constexpr (std::is_same_v<P, std::string_view>) {
                if (type != text_type) break;
                const auto* const text = static_cast<const Text*>(value);
                return {text->data, text->length};
            } else {
                static_assert(dtype_of<P> > 0);
                const auto* const scalar = static_cast<const Scalar*>(value);
                if (type != scalar_type || scalar->dtype != dtype_of<P>) break;
                P number;
                std::memcpy(&number, scalar->value, sizeof number);
                return number;
            }
        }
        fail(std::string("the attribute ") + name + " is missing, or of another type");
        return {};
    }

    const CallFrame& frame_;
    const char* const* names_;
    int64_t next_ = 0;
    Error problem_ = Error::success();
};

// The function that XLA calls, which passes parameters to `function`; the first `n_arguments` arrays are arguments, and
// later arrays are results. `names` has the names of the attributes.
template <auto function, const auto& names, int n_arguments>
struct Handler;

template <class... P, Error (*function)(P...), const auto& names, int n_arguments>
struct Handler<function, names, n_arguments> {
    static Failure* call(CallFrame* frame) noexcept {
        if (answers_metadata(*frame)) return nullptr;
        constexpr int n_arrays = (int(is_array<P>) + ...);
        Reader reader(*frame, names, n_arguments, n_arrays - n_arguments);
        std::tuple<P...> parameters{reader.template read<P>()...};  // braces define the order of evaluation
        return failure_of(
            *frame, reader.problem().is_failure() ? reader.problem() : std::apply(function, std::move(parameters)));
    }
};

}  // namespace headrace::xla
