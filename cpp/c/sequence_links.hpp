// Converts the description of a sequence's transform in a file to the links of a chain over time.
#pragma once

#include "../../runtime/parts/sequence_file.hpp"
#include "../core/sequences/links.hpp"
#include "lowered_file.hpp"

namespace headrace {

template <class T>
struct WeightedLink {
    SequenceLink<T> link;
    LinkWeights<T> weights;
};

// The link of a description. Throws FileFormatError where the core refuses an argument.
template <class T>
WeightedLink<T> link_of(detail::LinkDescription<T, LoweredSteps<T>>& d, int features, bool is_rounded);

extern template WeightedLink<float> link_of(detail::LinkDescription<float, LoweredSteps<float>>&, int, bool);
extern template WeightedLink<double> link_of(detail::LinkDescription<double, LoweredSteps<double>>&, int, bool);

}  // namespace headrace
