// Handlers of a device in XLA's CPU client, whose calls have no stream: a request for a stream returns the stream of
// the test. All other code of a handler runs as on a card.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "../../cpp/bindings/xla_ffi.hpp"
#include "../../cuda/bindings/bindings.hpp"

namespace headrace {
namespace {

constexpr size_t n_handlers = 8;
std::array<xla::HandlerFunction*, n_handlers> handlers;
std::optional<uintptr_t> stream = 0;  // without a value, requests go to XLA, which reports that there is no stream

xla::Failure* stream_of_test(xla::StreamQuestion* question) {
    question->stream = reinterpret_cast<void*>(*stream);
    return nullptr;
}

template <size_t i>
xla::Failure* on_stream_of_test(xla::CallFrame* frame) {
    if (!stream) return handlers[i](frame);
    const xla::Functions* const given = frame->functions;
    xla::Functions own{};
    std::memcpy(&own, given, std::min(given->size, sizeof(own)));
    own.stream = &stream_of_test;
    frame->functions = &own;
    xla::Failure* const failure = handlers[i](frame);
    frame->functions = given;
    return failure;
}

template <size_t... i>
std::array<xla::HandlerFunction*, n_handlers> outer(std::index_sequence<i...>) {
    return {&on_stream_of_test<i>...};
}

}  // namespace

// Replaces the handlers that the module has registered.
void bind_emulated_xla(py::module_& m) {
    const auto own = m.attr("xla_handlers").cast<py::dict>();
    const auto entries = outer(std::make_index_sequence<n_handlers>());
    if (own.size() != n_handlers) throw std::logic_error("xla_handlers: n_handlers is another number");
    py::dict wrapped;
    size_t i = 0;
    for (const auto& [name, capsule] : own) {
        handlers[i] = reinterpret_cast<xla::HandlerFunction*>(capsule.cast<py::capsule>().get_pointer());
        wrapped[name] = py::capsule(reinterpret_cast<void*>(entries[i]));
        ++i;
    }
    m.attr("xla_handlers") = wrapped;
    m.def(
        "set_xla_stream", [](std::optional<uintptr_t> address) { stream = address; }, py::arg("address"),
        "The stream that XLA's calls get; None: no stream, as with XLA's CPU client.");
}

}  // namespace headrace
