// Converts the description in a file to the parts of programs: steps in order, and weights in one vector.
#pragma once

#include <vector>

#include "../../runtime/parts/file.hpp"
#include "../core/structure.hpp"

namespace headrace {

template <class T>
struct LoweredSteps {
    std::vector<StepSpec> steps;
    std::vector<T> weights;  // weights of the steps, in the order of the steps
};

// Converts the description of a transform. Throws FileFormatError for a transform that the core refuses.
template <class T>
struct Lower {
    LoweredSteps<T> operator()(detail::TransformDescription<T> description) const;
};

MapSettings settings_of(const detail::MapSettings& map);

// The steps from the standard density to the base.
template <class T>
LoweredSteps<T> lowered_base(const detail::BaseDescription& base);
Base standard_of(const detail::BaseDescription& base);

}  // namespace headrace
