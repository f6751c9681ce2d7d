// echo: a conditioner over time that only tests have, and only in _emu, to show that a new kind needs only lines in the
// lists. The conditioner echo has properties that the masked network lacks: a position for each step of the input,
// weights that all positions share, coordinates by a formula, and a state that is passed from step to step.
//
// The coordinate of a step is mapped with parameters that depend on earlier steps, with zeros before the first step:
//   h(t, u) = tanh(first.bias[u] + first.weight[u][0] x(t - 1) + first.weight[u][1] x(t - 2))
//   parameter(t, k) = second.bias[k] + sum over u of second.weight[k][2 u] h(t, u) + second.weight[k][2 u + 1] h(t - 3,
//   u)
#pragma once

#include "../../../cpp/math/lane.hpp"

namespace headrace {

constexpr int echo_taps = 2, echo_delay = 3;

template <class T>
struct Echo {
    static constexpr bool has_own_kernel = true;

    int units, outputs;
    bool reads_built;
};

namespace {

template <class T>
HR_FN int positions(const Echo<T>&, int n) {
    return n;
}

template <class T>
HR_FN int first_coordinate(const Echo<T>&, int position) {
    return position;
}

// The number of lines of state. The direction that computes step by step has a ring of units as its state, and then
// lines for the parameters of one step. The direction that computes all steps at once has no state, but lines for the
// parameters of all steps and then for all units.
template <class T>
HR_FN int state_lines(const Echo<T>& c) {
    return c.reads_built ? echo_delay * c.units : 0;
}

template <class T>
HR_FN int parameters(const Echo<T>& c, int from, bool kept) {
    return kept || !c.reads_built ? 0 : state_lines(c) - from * c.outputs;
}

template <class T>
HR_FN int scratch_lines(const Echo<T>& c, int span) {
    return c.reads_built ? c.outputs : span * (c.outputs + c.units);
}

// The number of weights and biases of both layers.
template <class T>
HR_FN int echo_weights(const Echo<T>& c) {
    return c.units * (echo_taps + 1) + c.outputs * (2 * c.units + 1);
}

// The tape's first line of weight gradients, after the parameters and units of all steps.
template <class T>
HR_FN int echo_gradients(const Echo<T>& c, int n) {
    return n * (c.outputs + c.units);
}

template <class T>
HR_FN int tape_lines(const Echo<T>& c, int n) {
    return echo_gradients(c, n) + echo_weights(c);
}

}  // namespace
}  // namespace headrace

#define HR_MORE_CONDITIONERS(X) X(echo, Echo)
