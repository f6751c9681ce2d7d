// Loops over the coordinates of a row, which a group of lanes of a GPU may share. An accessor of parameters with
// `lanes` belongs to a group: each lane processes every lanes.step-th coordinate from lanes.first on, and lanes.sum and
// lanes.largest combine all lanes, in a fixed order. An accessor without `lanes` covers the whole row.
#pragma once

#include "lane.hpp"

namespace headrace {
namespace {

template <class P>
concept SharesRow = requires(const P& p) { p.lanes; };

template <class P>
HR_FN int first_coordinate(const P& p) {
    if constexpr (SharesRow<P>) {
        return p.lanes.first;
    } else {
        return 0;
    }
}

template <class P>
HR_FN int coordinate_step(const P& p) {
    if constexpr (SharesRow<P>) {
        return p.lanes.step;
    } else {
        return 1;
    }
}

// The sum of the results of all lanes, which every lane receives.
template <class P, class V>
HR_FN V sum_of_coordinates(const P& p, V own) {
    if constexpr (SharesRow<P>) {
        return p.lanes.sum(own);
    } else {
        return own;
    }
}

template <class P, class V>
HR_FN V largest_of_coordinates(const P& p, V own) {
    if constexpr (SharesRow<P>) {
        return p.lanes.largest(own);
    } else {
        return own;
    }
}

}  // namespace
}  // namespace headrace
