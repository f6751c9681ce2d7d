// Handlers of a device inside of XLA's CPU client, whose calls have no stream: what is asked for one gets that of the
// test. All else of a handler is as it runs on a card.
#include <pybind11/pybind11.h>
#include <xla/ffi/api/ffi.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "../../cuda/bindings/bindings.hpp"

namespace headrace {
namespace {

constexpr size_t n_handlers = 8;
std::array<XLA_FFI_Handler*, n_handlers> handlers;
std::optional<uintptr_t> stream = 0;  // none: XLA is asked, which says that there is none

XLA_FFI_Error* stream_of_test(XLA_FFI_Stream_Get_Args* args) {
    args->stream = reinterpret_cast<void*>(*stream);
    return nullptr;
}

template <size_t i>
XLA_FFI_Error* on_stream_of_test(XLA_FFI_CallFrame* frame) {
    if (!stream) return handlers[i](frame);
    const XLA_FFI_Api* const given = frame->api;
    XLA_FFI_Api api{};
    std::memcpy(&api, given, std::min(given->struct_size, sizeof(api)));
    api.XLA_FFI_Stream_Get = &stream_of_test;
    frame->api = &api;
    XLA_FFI_Error* const error = handlers[i](frame);
    frame->api = given;
    return error;
}

template <size_t... i>
std::array<XLA_FFI_Handler*, n_handlers> outer(std::index_sequence<i...>) {
    return {&on_stream_of_test<i>...};
}

}  // namespace

// Replaces the handlers that the module has by now.
void bind_emulated_xla(py::module_& m) {
    const auto own = m.attr("xla_handlers").cast<py::dict>();
    const auto told = outer(std::make_index_sequence<n_handlers>());
    if (own.size() != n_handlers) throw std::logic_error("xla_handlers: n_handlers is another number");
    py::dict wrapped;
    size_t i = 0;
    for (const auto& [name, capsule] : own) {
        handlers[i] = reinterpret_cast<XLA_FFI_Handler*>(capsule.cast<py::capsule>().get_pointer());
        wrapped[name] = py::capsule(reinterpret_cast<void*>(told[i]));
        ++i;
    }
    m.attr("xla_handlers") = wrapped;
    m.def(
        "set_xla_stream", [](std::optional<uintptr_t> address) { stream = address; }, py::arg("address"),
        "The stream that XLA's calls are told; None: they get none, as XLA's CPU client has none.");
}

}  // namespace headrace
