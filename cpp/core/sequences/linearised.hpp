// The map of each position in the form that the sweep (sweep.hpp) needs: linear in the gradient by the value.
//
// The direction that computes all positions at once is u = f(v; outputs), with log-derivative l; the log-derivative of
// its inverse is -l. With v' and l' for the gradients by v and by the log-derivative of the inverse,
//   u' = (v' - l' dl/dv) / (df/dv),    outputs' = -u' df/doutputs - l' dl/doutputs
#pragma once

#include <algorithm>

#include "step_map.hpp"

namespace headrace {

// Arrays with an element for each value, [position][columns], or for each output, [position][columns][per_value].
template <class T>
struct LinearisedMap {
    T *rate, *bend;            // df/dv, and -l' dl/dv
    T *slopes, *starts;        // outputs' as a function of v': outputs' = starts + slopes v'
    T *by_value, *by_log_det;  // scratch of [position][columns] and of [position]; by_log_det begins as -l'

    T by_given(int64_t i, T by_v) const { return (by_v + bend[i]) / rate[i]; }
};

template <class T>
void linearise_map(const StepMap<T>& map, bool to_data, const T* given, const T* raw, int64_t positions,
                   int64_t columns, const LinearisedMap<T>& to, T* scratch) {
    const int64_t values = positions * columns, per_value = map.outputs();
    const auto through_map = [&](T by_value, T* by_given, T* by_raw) {
        std::fill_n(to.by_value, values, by_value);
        map.back(to_data, given, raw, to.by_value, to.by_log_det, by_given, by_raw, positions, scratch);
    };
    through_map(T(0), to.bend, to.starts);
    std::fill_n(to.by_log_det, positions, T(0));
    through_map(T(1), to.rate, to.slopes);
    for (int64_t i = 0; i < values; ++i) {
        const T turn = T(1) / to.rate[i];
        for (int64_t p = i * per_value; p < (i + 1) * per_value; ++p) {
            to.starts[p] -= to.bend[i] * turn * to.slopes[p];
            to.slopes[p] *= -turn;
        }
    }
}

}  // namespace headrace
