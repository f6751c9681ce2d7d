// The conditioner `echo` on a device, where one lane computes a row.
#pragma once

namespace headrace {
namespace {

// The weights of a conditioner, one layer after another.
template <class T>
struct EchoWeights {
    const T *first, *first_bias, *second, *second_bias;
    __device__ EchoWeights(const Echo<T>& c, const T* weights)
        : first(weights),
          first_bias(first + c.units * echo_taps),
          second(first_bias + c.units),
          second_bias(second + 2 * c.outputs * c.units) {}
};

template <class T, bool in_shared>
__device__ void advance(const Team& team, const Echo<T>& c, const Known<T, in_shared>& known, int from, int to) {
    if (team.warp != 0) return;
    const EchoWeights<T> w(c, known.weights);
    const int lane = team.lane;
    const bool has_ring = c.reads_built && !known.is_recorded;
    const int units = has_ring ? 0 : c.outputs * positions(c, known.step.map.n);  // line at which units start
    const auto input = [&](int t) { return t < 0 ? T(0) : known.input.at(t, lane); };
    for (int t = from; t < to; ++t) {
        const auto parameters_of_step = known.own.from(parameters(c, from, known.is_recorded) + t * c.outputs);
        for (int k = 0; k < c.outputs; ++k) parameters_of_step.at(k, lane) = w.second_bias[k];
        for (int u = 0; u < c.units; ++u) {
            const int line = units + (has_ring ? t % echo_delay : t) * c.units + u;
            const int before = has_ring ? line : line - echo_delay * c.units;
            const T late = t < echo_delay ? T(0) : known.own.at(before, lane);
            const T* const taps = w.first + u * echo_taps;
            const T h = tanh(w.first_bias[u] + taps[0] * input(t - 1) + taps[1] * input(t - 2));
            known.own.at(line, lane) = h;
            for (int k = 0; k < c.outputs; ++k) {
                const T* const second = w.second + 2 * (k * c.units + u);
                parameters_of_step.at(k, lane) += second[0] * h + second[1] * late;
            }
        }
    }
}

template <class T>
__device__ void advance_back(const Team& team, const Echo<T>& c, const KnownBack<T>& known, int from, int to) {
    if (team.warp != 0) return;
    const EchoWeights<T> w(c, known.weights);
    const int n = positions(c, known.step.map.n), lane = team.lane, units = c.outputs * n;
    const auto of_weight = [&](const T* weight) -> T& {
        return known.gradients.at(echo_gradients(c, n) + (weight - known.weights), lane);
    };
    const auto input = [&](int t) { return t < 0 ? T(0) : known.input.at(t, lane); };
    if (to == n)
        for (int i = 0; i < echo_weights(c); ++i) of_weight(known.weights + i) = 0;
    for (int t = to - 1; t >= from; --t) {
        const auto by_parameter = [&](int step, int k) { return known.gradients.at(step * c.outputs + k, lane); };
        for (int k = 0; k < c.outputs; ++k) of_weight(w.second_bias + k) += by_parameter(t, k);
        for (int u = 0; u < c.units; ++u) {
            const auto unit = [&](int step) { return known.values.at(units + step * c.units + u, lane); };
            const T h = unit(t), late = t < echo_delay ? T(0) : unit(t - echo_delay);
            T by_unit = 0;
            for (int k = 0; k < c.outputs; ++k) {
                const T* const second = w.second + 2 * (k * c.units + u);
                by_unit += second[0] * by_parameter(t, k);
                if (t + echo_delay < n) by_unit += second[1] * by_parameter(t + echo_delay, k);
                of_weight(second) += by_parameter(t, k) * h;
                of_weight(second + 1) += by_parameter(t, k) * late;
            }
            const T by_sum = by_unit * (1 - h * h);
            of_weight(w.first_bias + u) += by_sum;
            for (int j = 0; j < echo_taps; ++j) {
                const T* const tap = w.first + u * echo_taps + j;
                of_weight(tap) += by_sum * input(t - 1 - j);
                if (t - 1 - j >= 0) known.input_gradient.at(t - 1 - j, lane) += by_sum * *tap;
            }
        }
    }
}

}  // namespace
}  // namespace headrace
