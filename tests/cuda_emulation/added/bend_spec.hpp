// The step `bend` as part of a program.
#pragma once

#include "bend.hpp"

namespace headrace {

struct BendSpec {
    bool inverted = false;
    std::vector<double> strength;  // the constant a of each coordinate

    static auto fields() {
        return std::tuple{field("inverted", &BendSpec::inverted), field("strength", &BendSpec::strength)};
    }
    bool fits(int features, int) const { return strength.size() == size_t(features); }
    template <class T>
    BendStep<T> lowered(const StepSide& side) const {
        std::vector<T> by_slot(strength.size());
        for (size_t c = 0; c < strength.size(); ++c) by_slot[size_t(side.slots[c])] = T(strength[c]);
        return {side.kept.keep(std::move(by_slot)), side.to_data};
    }
};

}  // namespace headrace

#define HR_MORE_SPECS(X) X(BendStep, BendSpec)
