// The columns of a support, with the least and the largest value inside in a dtype.
#pragma once

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "specs.hpp"

namespace headrace {

// The smallest value of dtype T above a bound; on a circle the rounded bound itself, unless it is below the bound.
template <class T>
double least_above(double low, bool itself) {
    const T nearest = T(low);
    if (itself && double(nearest) >= low) return double(nearest);
    return double(std::nextafter(nearest, std::numeric_limits<T>::infinity()));
}

// The least and the largest value of dtype T inside a support.
template <class T>
std::pair<double, double> outermost(Support kind, double low, double high) {
    const bool has_low = kind != Support::any && kind != Support::upper;
    const bool has_high = kind != Support::any && kind != Support::lower;
    const double most = double(std::numeric_limits<T>::max());
    const double first = has_low ? least_above<T>(low, kind == Support::circle) : -most;
    const double last = has_high ? -least_above<T>(-high, false) : most;
    if (first <= last) return {first, last};
    const double middle = double(T(low / 2 + high / 2));  // no value of dtype T is inside
    return {middle, middle};
}

template <class T>
std::vector<SupportColumn> support_columns(const SupportSpec& spec) {
    std::vector<SupportColumn> columns;
    for (size_t c = 0; c < spec.supports.size(); ++c) {
        const Support kind = spec.supports[c];
        const auto [least, most] = outermost<T>(kind, spec.low[c], spec.high[c]);
        const auto [wide_least, wide_most] = outermost<double>(kind, spec.low[c], spec.high[c]);
        columns.push_back({kind, spec.low[c], spec.high[c], least, most, wide_least, wide_most});
    }
    return columns;
}

}  // namespace headrace
