// The conditioner `echo` for Python.
#pragma once

#include "echo_conditioner.hpp"

namespace headrace {
namespace {

struct EchoTransform : Transform {};

void bind_more(py::module_& m) {
    py::class_<EchoTransform, Transform, std::shared_ptr<EchoTransform>>(m, "EchoTransform", py::module_local())
        .def(py::init([](int units, bool reads_data, double slope) {
                 MapSettings affine;
                 affine.name = "affine";
                 affine.variant = "soft_clamp";
                 affine.slope = slope;
                 const auto map = std::make_shared<TransformMap>(affine);
                 const auto echo = std::make_shared<EchoConditioner>(units, map->n_params(1));
                 return std::make_shared<EchoTransform>(EchoTransform{{map, echo, reads_data}});
             }),
             py::kw_only(), py::arg("units"), py::arg("reads_data"), py::arg("slope"));
}

}  // namespace
}  // namespace headrace
