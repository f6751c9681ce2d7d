// Objects that Python made by __new__ without __init__ are empty, and pybind11 would pass uninitialised memory for
// them. Classes that use HR_REFUSE_UNINITIALISED refuse such objects.
#pragma once

#include <pybind11/pybind11.h>

namespace headrace {

template <class T>
struct InitialisedCaster : pybind11::detail::type_caster_base<T> {
    bool load(pybind11::handle from, bool convert) {
        namespace detail = pybind11::detail;
        if (from && detail::isinstance_generic(from, typeid(T)) &&
            !reinterpret_cast<detail::instance*>(from.ptr())->get_value_and_holder().holder_constructed())
            throw pybind11::type_error("expected an object that __init__ has made, got one of __new__ alone");
        return detail::type_caster_base<T>::load(from, convert);
    }
};

}  // namespace headrace

#define HR_REFUSE_UNINITIALISED(...) \
    template <>                      \
    struct pybind11::detail::type_caster<__VA_ARGS__> : headrace::InitialisedCaster<__VA_ARGS__> {}
