// What programs are made of, as Python gives it. Every module has classes of its own for it.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "../core/structure.hpp"

namespace headrace {

void bind_structure(pybind11::module_& m);

Base base_of(const std::string& name);

// Steps come as tuples: ("masked", inverted, transform), ("permutation", order), ("rotation", inverted, numbers of the
// blocks, their sizes), ("standardize", inverted, mean, std).
std::vector<StepSpec> steps_of(const pybind11::list& list);

}  // namespace headrace
