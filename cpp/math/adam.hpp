// One step of Adam on one number, over lanes.
#pragma once

#include "../core/views.hpp"
#include "lane.hpp"

namespace headrace {
namespace {

// The new weight; mean and square are updated. What is 0 with gradient 0 stays 0: the padding.
template <class V>
HR_FN V adam_moved(const AdamStep<Scalar<V>>& s, V gradient, V weight, V& mean, V& square) {
    using T = Scalar<V>;
    const V g = gradient * s.gradient_scale;
    mean = mean * s.mean_decay + g * (T(1) - s.mean_decay);
    square = square * s.square_decay + g * g * (T(1) - s.square_decay);
    return weight * s.shrink - mean * s.rate / (sqrt(square * s.square_correction) + s.epsilon);
}

}  // namespace
}  // namespace headrace
