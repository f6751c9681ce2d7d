// The parts of programs from Python: objects of one class for each kind of step, constructed by keywords only. Each
// compiled module (_cpu, _cuda) has separate classes.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <vector>

#include "../core/structure.hpp"
#include "initialised.hpp"

namespace headrace {

// A map and its conditioner: the part of a network step that does not depend on its position.
struct Transform {
    std::shared_ptr<const TransformMap> map;
    std::shared_ptr<const Conditioner> conditioner;
    bool reads_data = true;
};

void bind_structure(pybind11::module_& m);

Base base_of(const std::string& name);

}  // namespace headrace

#define HR_REFUSE(name, type) HR_REFUSE_UNINITIALISED(headrace::type);
HR_SPECS(HR_REFUSE)
#undef HR_REFUSE
HR_REFUSE_UNINITIALISED(headrace::Transform);
