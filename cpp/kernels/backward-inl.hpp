// A tile of rows through a program and back: the run records the inputs of the backward pass on a tape, then, network
// by network, gradients replace the values to which they belong. The gradient of the weights is summed over the tapes
// of a group.
#pragma once

#include "chain-inl.hpp"
#include "gradient_product-inl.hpp"

namespace headrace {
namespace {

// ---- forth ----------------------------------------------------------------------------------------------------------

// Adds the gradient of the base's log-density to the gradient by coordinates z, where the base is a step. The gradient
// by the log-density is `sign` times the gradient by the log-determinant.
template <class T>
HR_SHARED void add_density_slopes(const Tape<T>& t, const Call<T>& call, const T* z, T* gradient, T sign) {
    const Chain<T>& chain = t.chain;
    if (!chain.density) return;
    for (int64_t i = 0; i < int64_t(t.vectors) * width<T>; i += width<T>) {
        const Pack<T> by_log_prob = load(t.grad_log_det() + i) * sign;
        const auto place = [&](int s) { return (chain.context + s) * t.height + i; };
        density_slopes<Pack<T>>(
            *chain.density, call.ready, chain.features, [&](int s) { return load(z + place(s)); },
            [&](int s, Pack<T> slope) { store(gradient + place(s), load(gradient + place(s)) + slope * by_log_prob); });
    }
}

// The initial gradients of the backward pass: by the last state, and by the log-determinant.
template <class T>
HR_SHARED void start_gradients(const Tape<T>& t, const Call<T>& call, const Cotangent& from, int64_t row, int rows) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    const Chain<T>& chain = t.chain;
    const int64_t used = int64_t(t.vectors) * W;
    // The log-determinant of the direction to data is subtracted from a row's log-density.
    const double scale = from.row_scale * (from.of_log_prob && !call.inverse ? -1 : 1);
    T* const by_log_det = t.grad_log_det();
    for (int64_t r = 0; r < used; ++r)
        by_log_det[r] = r < rows ? T(scale * (from.row.data ? element(from.row, row + r, 0) : 1.0)) : T(0);
    T* const gradient = t.gradient(chain.n_steps);
    for (int64_t s = 0; s < t.slots(); ++s)
        for (int64_t i = 0; i < used; i += W) store(gradient + s * t.height + i, V{});
    if (from.value.data)
        for (int r = 0; r < rows; ++r)
            for (int c = 0; c < chain.features; ++c) {
                double g = element(from.value, row + r, c);
                if (chain.store_scale) g *= chain.store_scale[c];
                gradient[chain.store_slot[c] * t.height + r] = T(g);
            }
    if (chain.store_support)
        for (int r = 0; r < rows; ++r)
            for (int c = 0; c < chain.features; ++c) {
                const int64_t place = chain.store_slot[c] * t.height + r;
                const Supported made =
                    to_support(chain.store_support[c], stored(chain, c, t.state(chain.n_steps)[place]));
                const double scale = chain.store_scale ? chain.store_scale[c] : 1.0;
                gradient[place] = T(double(gradient[place]) * made.slope + double(by_log_det[r]) * made.bend * scale);
            }
    if (from.of_log_prob && call.inverse) {
        const T* z = t.state(chain.n_steps);
        add_density_slopes(t, call, z, gradient, T(1));
        for (int64_t s = chain.context; s < t.slots(); ++s)
            for (int64_t i = 0; i < used; i += W) {
                T* g = gradient + s * t.height + i;
                store(g, load(g) + base_slope(call.base, load(z + s * t.height + i)) * load(by_log_det + i));
            }
    }
}

// Runs rows [row, row + rows) through the chain and keeps all states. Returns false if the result of some row is not
// finite.
template <class T>
bool record_tile(const Chain<T>& chain, const Call<T>& call, const Back<T>& back, int64_t row, int rows,
                 T* lines) noexcept {
    constexpr int W = width<T>;
    const Tape<T> t{chain, lines, back.height, (rows + W - 1) / W, rows, row};
    load_tile(chain, call, row, rows, t.buffers(0));
    T base[sum_rows];
    if (!call.inverse) tile_base_density(chain, call, t.buffers(0), t.state(0), base);
    for (int s = 0; s < chain.n_steps; ++s) {
        for (int64_t i = 0; i < chain.context * t.height; i += W) store(t.state(s + 1) + i, load(t.state(s) + i));
        with_step(chain.steps[s], [&](const auto& step) { record_step(step, t, call, s); });
    }
    add_store_support(chain, t.state(chain.n_steps), t.height, int64_t(1), rows, t.log_det());
    mark_overflows(chain, t.buffers(0), t.state(chain.n_steps));
    if (call.inverse) tile_base_density(chain, call, t.buffers(0), t.state(chain.n_steps), base);
    store_value(chain, call, t.state(chain.n_steps), t.height, int64_t(1), row, rows);
    store_sums(chain, call, row, rows, t.log_det(), base);
    start_gradients(t, call, back.from, row, rows);
    T sum = 0;
    for (int r = 0; r < rows; ++r) sum += poison(t.log_det()[r]) + poison(back.from.of_log_prob ? base[r] : T(0));
    return sum == T(0);
}

// ---- back -----------------------------------------------------------------------------------------------------------

template <class T>
HR_SHARED void finish_input(const Tape<T>& t, const Call<T>& call, const Back<T>& back, int64_t row, int rows) {
    const Chain<T>& chain = t.chain;
    T* const gradient = t.gradient(0);
    if (back.from.of_log_prob && !call.inverse) add_density_slopes(t, call, t.state(0), gradient, T(-1));
    if (back.from.of_log_prob && !call.inverse)
        for (int64_t s = chain.context; s < t.slots(); ++s)
            for (int64_t i = 0; i < int64_t(t.vectors) * width<T>; i += width<T>) {
                T* g = gradient + s * t.height + i;
                const auto slope = base_slope(call.base, load(t.state(0) + s * t.height + i));
                store(g, load(g) - slope * load(t.grad_log_det() + i));  // -grad_log_det: gradient by the log-density
            }
    for (int r = 0; r < rows; ++r) {
        const T bad = poison(t.log_det()[r]);
        for (int c = 0; back.input && c < chain.features; ++c) {
            double g = gradient[chain.load_slot[c] * t.height + r];
            if (chain.load_scale) g *= chain.load_scale[c];
            if (chain.load_support) {
                const Supported made = from_support(chain.load_support[c], element(call.input, row + r, c));
                g = g * made.slope + double(t.grad_log_det()[r]) * made.bend;
            }
            back.input[(row + r) * chain.features + c] = T(g) + bad;
        }
        for (int c = 0; back.context && c < chain.context; ++c) {
            const double g = gradient[c * t.height + r];
            back.context[(row + r) * chain.context + c] = T(chain.context_scale ? g * chain.context_scale[c] : g) + bad;
        }
    }
}

// Runs the backward pass of network `network` and of the steps between it and the next network. Index 0 also includes
// the steps before the first network, and is the only index in a chain without networks.
template <class T>
void backward_tile(const Chain<T>& chain, const Call<T>& call, const Back<T>& back, int64_t row, int rows, int network,
                   T* lines) noexcept {
    constexpr int W = width<T>;
    const Tape<T> t{chain, lines, back.height, (rows + W - 1) / W, rows};
    const int end = network + 1 < chain.n_networks ? chain.networks[network + 1] : chain.n_steps;
    const int begin = network > 0 ? chain.networks[network] : 0;
    for (int s = end - 1; s >= begin; --s)
        with_step(chain.steps[s], [&](const auto& step) { backward_step(step, t, call, back, s, network); });
    if (begin == 0 && (back.input || back.context)) finish_input(t, call, back, row, rows);
}

// ---- weights --------------------------------------------------------------------------------------------------------

// Adds n sums from `place` on, over the last fold_rows rows, to the float64 sums of all earlier rows.
template <class T>
void finish_sums(const T* sums, double* finished, int64_t place, int64_t n) {
    for (int64_t i = place; i < place + n; ++i) finished[i] += double(sums[i]);
}

// Computes weight_product for units from u on, with rounded factors.
HR_FN void bf16_weights(const Summed& s, const Back<float>& back, const WeightArgs<float>& args, const float* panels,
                        int u, int units, int vectors) {
    Bf16Weights a;
    const Bf16Layout& layout = back.bf16->layout;
    const int64_t two = int64_t(args.height) * layout.parts * layout.words;  // number of words of a line of rounded
                                                                             // values
    a.grad = as_pairs(panels + s.grad_rows * int64_t(args.height)) + u * two / 2;
    a.panels = as_pairs(panels + s.panel * int64_t(args.height)) + args.input * two / 2;
    a.size = args.size;
    a.height = args.height;
    a.rows = args.rows;
    a.output = args.output;
    a.row = args.row;
    a.input = args.input;
    a.add = args.add;
    back.bf16->weights(a, units, vectors);
}

template <class T>
void sum_weights(const Chain<T>& chain, const Back<T>& back, const WeightTask& task,
                 const TapeGroup<T>& group) noexcept {
    constexpr int W = width<T>;
    const Summed& s = chain.steps[chain.networks[task.network]].summed[task.summed];
    const int64_t height = back.height;
    for (int u = task.unit0; u < task.unit1; u += row_block) {
        const int units = task.unit1 - u < row_block ? task.unit1 - u : row_block;
        const int length = (inputs_before(s, u + units) + row_padding - 1) / row_padding * row_padding;
        const int end = length < task.input1 ? length : task.input1;
        for (int64_t b = 0; b < group.rows; b += sum_rows) {
            WeightArgs<T> a;
            a.rows = int(group.rows - b < sum_rows ? group.rows - b : sum_rows);
            a.height = back.height;
            a.size = group.size;
            const int64_t row = group.begin + b;
            const bool folds = back.finished && row > 0 && row % fold_rows == 0;
            a.add = row > 0 && !folds;
            const T* const tape = group.tapes + b / height * group.size;
            a.grad = tape + (s.line + u) * height;
            for (int m = 0; folds && m < units; ++m) {
                if (task.input0 < end)
                    finish_sums(back.weights, back.finished, s.weights + s.row[u + m] + task.input0, end - task.input0);
                if (task.input0 == 0) finish_sums(back.weights, back.finished, s.bias + u + m, 1);
            }
            if (task.input0 < end) {
                a.output = back.weights + s.weights;
                a.row = s.row + u;
                a.input = task.input0;
                const T* const panels = tape + chain.tape.panels[task.network & 1] * height;
                if constexpr (sizeof(T) == sizeof(float))
                    if (s.grad_rows >= 0) bf16_weights(s, back, a, panels, u, units, (end - task.input0) / W);
                if (s.grad_rows < 0) {
                    a.panels = panels + (s.panel + task.input0) * height;
                    weight_product(a, units, (end - task.input0) / W);
                }
            }
            if (task.input0 == 0) bias_sums(a, units, back.weights + s.bias + u);
        }
    }
}

}  // namespace
}  // namespace headrace
