// The conditioner `echo` on the CPU: a tile of rows, whose lanes are independent.
#pragma once

namespace headrace {
namespace {

// The weights of a conditioner, one layer after another.
template <class T>
struct EchoWeights {
    const T *first, *first_bias, *second, *second_bias;
    EchoWeights(const Echo<T>& c, const T* weights)
        : first(weights),
          first_bias(first + c.units * echo_taps),
          second(first_bias + c.units),
          second_bias(second + 2 * c.outputs * c.units) {}
};

template <class T>
void advance(const Echo<T>& c, const Known<T, TileBuffers<T>>& known, int from, int to) {
    using V = Pack<T>;
    const TileBuffers<T>& b = known.b;
    const EchoWeights<T> w(c, known.weights);
    const bool has_ring = c.reads_built && !b.is_recorded;
    const int units = has_ring ? 0 : c.outputs * positions(c, known.step.map.n);  // line at which units start
    for (int64_t i = 0; i < int64_t(b.vectors) * width<T>; i += width<T>) {
        const auto input = [&](int t) { return t < 0 ? V{} : load(known.input + t * b.height + i); };
        const auto at = [&](int line) { return line_of(b, line) + i; };
        for (int t = from; t < to; ++t) {
            const int of_step = parameters(c, from, b.is_recorded) + t * c.outputs;
            for (int k = 0; k < c.outputs; ++k) store(at(of_step + k), splat<V>(w.second_bias[k]));
            for (int u = 0; u < c.units; ++u) {
                const int line = units + (has_ring ? t % echo_delay : t) * c.units + u;
                const int before = has_ring ? line : line - echo_delay * c.units;
                const V late = t < echo_delay ? V{} : load(at(before));
                const T* const taps = w.first + u * echo_taps;
                const V h = tanh(V(w.first_bias[u] + taps[0] * input(t - 1) + taps[1] * input(t - 2)));
                store(at(line), h);
                for (int k = 0; k < c.outputs; ++k) {
                    const T* const second = w.second + 2 * (k * c.units + u);
                    store(at(of_step + k), load(at(of_step + k)) + second[0] * h + second[1] * late);
                }
            }
        }
    }
}

template <class T>
void advance_back(const Echo<T>& c, const KnownBack<T>& known, int from, int to) {
    using V = Pack<T>;
    const EchoWeights<T> w(c, known.weights());
    const int64_t height = known.tape.height;
    const int n = positions(c, known.step.map.n), units = c.outputs * n;
    for (int64_t i = 0; i < int64_t(known.tape.vectors) * width<T>; i += width<T>) {
        const auto at = [&](int line) { return known.line(line) + i; };
        const auto of_weight = [&](const T* weight) {
            return at(echo_gradients(c, n) + int(weight - known.weights()));
        };
        const auto add = [](T* place, V value) { store(place, load(place) + value); };
        const auto input = [&](int t) { return t < 0 ? V{} : load(known.input() + t * height + i); };
        if (to == n)
            for (int k = 0; k < echo_weights(c); ++k) store(of_weight(known.weights() + k), V{});
        for (int t = to - 1; t >= from; --t) {
            const auto by_parameter = [&](int step, int k) { return load(at(step * c.outputs + k)); };
            for (int k = 0; k < c.outputs; ++k) add(of_weight(w.second_bias + k), by_parameter(t, k));
            for (int u = 0; u < c.units; ++u) {
                const auto unit = [&](int step) { return load(at(units + step * c.units + u)); };
                const V h = unit(t), late = t < echo_delay ? V{} : unit(t - echo_delay);
                V by_unit{};
                for (int k = 0; k < c.outputs; ++k) {
                    const T* const second = w.second + 2 * (k * c.units + u);
                    by_unit += second[0] * by_parameter(t, k);
                    if (t + echo_delay < n) by_unit += second[1] * by_parameter(t + echo_delay, k);
                    add(of_weight(second), by_parameter(t, k) * h);
                    add(of_weight(second + 1), by_parameter(t, k) * late);
                }
                const V by_sum = by_unit * (T(1) - h * h);
                add(of_weight(w.first_bias + u), by_sum);
                for (int j = 0; j < echo_taps; ++j) {
                    const T* const tap = w.first + u * echo_taps + j;
                    add(of_weight(tap), by_sum * input(t - 1 - j));
                    if (t - 1 - j >= 0) add(known.input_gradient() + (t - 1 - j) * height + i, by_sum * *tap);
                }
            }
        }
    }
}

}  // namespace
}  // namespace headrace
