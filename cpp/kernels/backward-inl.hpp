// A tile of rows through a program and back: the run keeps what the way back needs on a tape, then network by network
// gradients replace what they were computed from. The gradient of the weights is summed over the tapes of a group.
#pragma once

#include "chain-inl.hpp"
#include "gradient_product-inl.hpp"
#include "transpose-inl.hpp"

namespace headrace {
namespace {

template <class T>
struct Tape {
    const Chain<T>& chain;
    T* lines;
    int64_t height;
    int vectors;

    HR_FN T* at(int64_t line) const { return lines + line * height; }
    HR_FN int64_t slots() const { return chain.context + chain.features; }
    HR_FN T* state(int step) const { return at(chain.tape.states + step * slots()); }  // before the step
    HR_FN T* gradient(int step) const { return at(chain.tape.gradients + (step & 1) * slots()); }
    HR_FN T* log_det() const { return at(chain.tape.sums); }
    HR_FN T* grad_log_det() const { return at(chain.tape.sums + 1); }
    HR_FN T* units(const MaskedStep<T>& s) const { return at(s.tape_units); }
    HR_FN T* panels(int network, const Layer& layer) const { return at(chain.tape.panels[network & 1] + layer.panel); }
    HR_FN TileBuffers<T> buffers(int step) const {
        TileBuffers<T> b;
        b.given = state(step);
        b.built = state(step + 1);
        b.units = nullptr;
        b.sum = log_det();
        b.vectors = vectors;
        b.height = height;
        return b;
    }
};

// ---- forth ----------------------------------------------------------------------------------------------------------

// The gradients that the way back starts with: of the last state, and of the log-determinant.
template <class T>
HR_FN void start_gradients(const Tape<T>& t, const Call<T>& call, const Cotangent& from, int64_t row, int rows) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    const Chain<T>& chain = t.chain;
    const int64_t used = int64_t(t.vectors) * W;
    // A row's density falls by the log-determinant of the direction to data.
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
    if (from.of_log_prob && call.inverse) {
        const T* z = t.state(chain.n_steps);
        for (int64_t s = chain.context; s < t.slots(); ++s)
            for (int64_t i = 0; i < used; i += W) {
                T* g = gradient + s * t.height + i;
                store(g, load(g) + base_slope(call.base, load(z + s * t.height + i)) * load(by_log_det + i));
            }
    }
}

// The coordinates before and after transform i of a run of vector maps, all in the order of the slots.
template <class T>
HR_FN VectorLines<T> vector_state(const Tape<T>& t, const VectorStep<T>& s, int step, int i) {
    const int features = t.chain.features;
    const auto between = [&](int n) { return t.at(s.tape_states + int64_t(n) * features); };
    const int64_t start = t.chain.context * t.height;
    const T* given = i == 0 ? t.state(step) + start : between(i - 1);
    T* built = i + 1 == s.transforms ? t.state(step + 1) + start : between(i);
    return {given, built, nullptr, nullptr, features, t.height};
}

template <class T>
HR_FN void record_vectors(const Tape<T>& t, const VectorStep<T>& s, const T* ready, int step) {
    with_vector_map(s.map, [&]<class Map>() {
        for (int i = 0; i < s.transforms; ++i) {
            const VectorLines<T> lines = vector_state(t, s, step, i);
            const auto params_at = [&](int64_t) { return SharedParams<T>{ready + int64_t(i) * s.n_ready}; };
            if (s.inverse) {
                vector_tile<Map, true>(lines, t.vectors, params_at, s.options, t.log_det());
            } else {
                vector_tile<Map, false>(lines, t.vectors, params_at, s.options, t.log_det());
            }
        }
    });
}

// Rows [row, row + rows) through the chain, all states kept. False if some row's result is not finite.
template <class T>
bool record_tile(const Chain<T>& chain, const Call<T>& call, const Back<T>& back, int64_t row, int rows,
                 T* lines) noexcept {
    constexpr int W = width<T>;
    const Tape<T> t{chain, lines, back.height, (rows + W - 1) / W};
    load_tile(chain, call, row, rows, t.buffers(0));
    T base[sum_rows];
    if (!call.inverse) tile_base_density(chain, call, t.buffers(0), t.state(0), base);
    for (int s = 0; s < chain.n_steps; ++s) {
        TileBuffers<T> b = t.buffers(s);
        for (int64_t i = 0; i < chain.context * t.height; i += W) store(b.built + i, load(b.given + i));
        const Step<T>& step = chain.steps[s];
        if (step.kind == StepKind::scale) {
            for (int64_t c = 0; c < chain.features; ++c) {
                const int64_t line = (chain.context + c) * t.height;
                for (int64_t i = 0; i < int64_t(t.vectors) * W; ++i)
                    b.built[line + i] = scaled(step.scale, int(c), b.given[line + i]);
            }
        } else if (step.kind == StepKind::move) {
            copy_slots(b, step.move.given, step.move.built, chain.features);
        } else if (step.kind == StepKind::rotation) {
            rotate(step.rotation, step.rotation.matrix, chain, b);
        } else if (step.kind == StepKind::vector) {
            record_vectors(t, step.vector, call.ready + step.vector.ready, s);
        } else {
            b.units = t.units(step.network);
            if (step.network.tape_slopes >= 0) b.slopes = t.at(step.network.tape_slopes);
            masked_tile(step.network, chain, call, b);
        }
    }
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

// Parameters of the map become their gradients.
template <class Map, bool inverse, class T>
void tile_map_vjp(const MaskedStep<T>& s, const Tape<T>& t, int step, T* params, int begin, int end) {
    using V = Pack<T>;
    const int64_t height = t.height;
    for (int c = begin; c < end; ++c) {
        const int64_t given = s.active_given[c] * height, built = s.active_built[c] * height;
        T* p = params + int64_t(c) * s.n_params * height;
        for (int64_t i = 0; i < int64_t(t.vectors) * width<T>; i += width<T>) {
            const auto param = [&](int k) { return load(p + k * height + i); };
            const auto grad = [&](int k, V g) { store(p + k * height + i, g); };
            const V by_given = apply_map_vjp<Map, inverse>(
                load(t.state(step) + given + i), load(t.state(step + 1) + built + i), param, s.options,
                load(t.gradient(step + 1) + built + i), load(t.grad_log_det() + i), grad);
            store(t.gradient(step) + given + i, by_given);
        }
    }
}

template <class T>
HR_FN void tile_vector_map_vjp(const MaskedStep<T>& s, const Tape<T>& t, int step, T* params) {
    const VectorLines<T> lines = vector_lines(s, t.buffers(step));
    T* const ready = t.units(s) + s.ready * t.height;
    with_vector_map(s.vector_map, [&]<class Map>() {
        if (s.map_inverse) {
            vector_rows_vjp_tile<Map, true>(lines, s.options, t.vectors, params, ready, t.gradient(step + 1),
                                            t.gradient(step), t.grad_log_det());
        } else {
            vector_rows_vjp_tile<Map, false>(lines, s.options, t.vectors, params, ready, t.gradient(step + 1),
                                             t.gradient(step), t.grad_log_det());
        }
    });
}

// A run of vector maps: the gradient of the state before it, and those by the ready parameters, line by line on the
// tape.
template <class T>
HR_FN void backward_vectors(const Tape<T>& t, const Call<T>& call, int step) {
    const Step<T>& both = t.chain.steps[step];
    const VectorStep<T>& s = both.vector;
    const int64_t start = t.chain.context * t.height;
    const T* grad_built = t.gradient(step + 1) + start;
    T* const grad_given = t.gradient(step) + start;  // from the second transform on in place
    with_vector_map(s.map, [&]<class Map>() {
        for (int i = s.transforms - 1; i >= 0; --i, grad_built = grad_given) {
            const VectorLines<T> lines = vector_state(t, s, step, i);
            const SharedParams<T> p{call.ready + s.ready + int64_t(i) * s.n_ready};
            T* const grads = t.units(both.network) + both.network.layers[i].unit * t.height;
            for (int64_t k = 0; k < int64_t(t.vectors) * width<T>; k += width<T>) {
                const auto put = [&](int n, Pack<T> g) { store(grads + n * t.height + k, g); };
                const Pack<T> by_log_det = load(t.grad_log_det() + k);
                if (s.inverse) {
                    vector_vjp<Map, true>(lines, k, p, s.options, grad_built, grad_given, by_log_det, put);
                } else {
                    vector_vjp<Map, false>(lines, k, p, s.options, grad_built, grad_given, by_log_det, put);
                }
            }
        }
    });
}

// The gradient of the state before a network step from that of the state after it. Afterwards the tape holds, for the
// weights' gradient, that of every unit and the transposed inputs of every layer.
template <class T>
HR_FN void backward_network(const Tape<T>& t, const Call<T>& call, const Back<T>& back, int step, int network) {
    const Chain<T>& chain = t.chain;
    const MaskedStep<T>& s = chain.steps[step].network;
    const int64_t height = t.height;
    T* const units = t.units(s);
    // What the network read, and where its gradient goes.
    const int read = s.reads_built ? step + 1 : step;
    const int64_t input = s.input_slot * height;
    const auto transpose_inputs = [&](int l) {
        const T* lines = l == 0 ? t.state(read) + input : units + s.layers[l - 1].unit * height;
        to_panels(lines, s.layers[l].in, height, t.vectors, t.panels(network, s.layers[l]));
    };
    // Before they are overwritten: at once where slopes replace values or layers take turns, else layer by layer.
    const bool at_once = s.has_activation_sweep || s.reads_built;
    for (int l = 0; back.weights && at_once && l < s.n_layers; ++l) transpose_inputs(l);
    int transposed = at_once ? 0 : s.n_layers;
    const T* gates = nullptr;
    if (s.has_activation_sweep && s.tape_slopes >= 0) gates = t.at(s.tape_slopes);
    if (s.has_activation_sweep && s.tape_slopes < 0) {
        gates = units;
        with_activation(s.activation, [&]<class A>() {
            for (int64_t i = 0; i < s.layers[s.n_layers - 1].unit * height; i += width<T>)
                store(units + i, A::slope(load(units + i)));
        });
    }
    // What passes through goes on to the network's inputs: at first where these are what is given, at last where they
    // are what is built.
    const auto carry_passive = [&] {
        TileBuffers<T> gradients = t.buffers(step);
        gradients.given = t.gradient(step + 1);
        gradients.built = t.gradient(step);
        copy_slots(gradients, s.passive_built, s.passive_given, s.n_passive);
        if (back.context)
            for (int64_t i = 0; i < chain.context * height; i += width<T>)
                store(gradients.built + i, load(gradients.given + i));
    };
    if (!s.reads_built) carry_passive();
    // Columns of the first layer whose gradient anybody wants: context is first.
    const int context = chain.context - s.input_slot;
    const bool wants_coordinates = s.reads_built || back.input || network > 0;
    const int first_column = back.context ? 0 : context, end_column = wants_coordinates ? s.layers[0].in : context;
    T* const params = units + int64_t(s.layers[s.n_layers - 1].unit) * height;
    for (int q = 0; q < s.back_plan.n_phases; ++q) {
        const BackPhase& phase = s.back_plan.phases[q];
        if (s.vector_map >= 0) {
            tile_vector_map_vjp(s, t, step, params);
        } else {
            with_map(s.map, [&]<class Map>() {
                if (s.map_inverse) {
                    tile_map_vjp<Map, true>(s, t, step, params, phase.coordinate_begin, phase.coordinate_end);
                } else {
                    tile_map_vjp<Map, false>(s, t, step, params, phase.coordinate_begin, phase.coordinate_end);
                }
            });
        }
        for (int i = phase.op_begin; i < phase.op_end; ++i) {
            const BackOp& op = s.back_plan.ops[i];
            while (back.weights && transposed > op.layer) transpose_inputs(--transposed);
            const Layer& layer = s.layers[op.layer];
            int begin = op.column, end = op.column + op.columns;
            DataArgs<T> a;
            a.weights = call.weights + s.weights;
            a.row = layer.row + op.row0;
            a.n_rows = op.row1 - op.row0;
            a.grad = units + int64_t(layer.unit + op.row0) * height;
            a.stride = height;
            a.gate = nullptr;
            if (op.layer == 0) {
                if (begin < first_column) begin = first_column;
                if (end > end_column) end = end_column;
                a.kind = Gate::add;
                a.output = t.gradient(read) + input + begin * height;
            } else {
                const int64_t line = int64_t(s.layers[op.layer - 1].unit + begin) * height;
                a.kind = s.has_activation_sweep ? Gate::multiply : Gate::relu;
                a.output = units + line;
                if (s.has_activation_sweep) a.gate = gates + line;
            }
            a.column = begin;
            if (begin < end) data_product(a, end - begin, t.vectors);
        }
    }
    while (back.weights && transposed > 0) transpose_inputs(--transposed);
    if (s.reads_built) carry_passive();
}

template <class T>
HR_FN void finish_input(const Tape<T>& t, const Call<T>& call, const Back<T>& back, int64_t row, int rows) {
    const Chain<T>& chain = t.chain;
    T* const gradient = t.gradient(0);
    if (back.from.of_log_prob && !call.inverse)
        for (int64_t s = chain.context; s < t.slots(); ++s)
            for (int64_t i = 0; i < int64_t(t.vectors) * width<T>; i += width<T>) {
                T* g = gradient + s * t.height + i;
                const auto slope = base_slope(call.base, load(t.state(0) + s * t.height + i));
                store(g, load(g) - slope * load(t.grad_log_det() + i));  // which has the sign of the log-determinant
            }
    for (int r = 0; r < rows; ++r) {
        const T bad = poison(t.log_det()[r]);
        for (int c = 0; back.input && c < chain.features; ++c) {
            const double g = gradient[chain.load_slot[c] * t.height + r];
            back.input[(row + r) * chain.features + c] = T(chain.load_scale ? g * chain.load_scale[c] : g) + bad;
        }
        for (int c = 0; back.context && c < chain.context; ++c) {
            const double g = gradient[c * t.height + r];
            back.context[(row + r) * chain.context + c] = T(chain.context_scale ? g * chain.context_scale[c] : g) + bad;
        }
    }
}

// The steps from the one before the next network down to the network with this number; 0 also takes what lies before
// it. A chain without networks is taken back by number 0.
template <class T>
void backward_tile(const Chain<T>& chain, const Call<T>& call, const Back<T>& back, int64_t row, int rows, int network,
                   T* lines) noexcept {
    constexpr int W = width<T>;
    const Tape<T> t{chain, lines, back.height, (rows + W - 1) / W};
    const int end = network + 1 < chain.n_networks ? chain.networks[network + 1] : chain.n_steps;
    const int begin = network > 0 ? chain.networks[network] : 0;
    for (int s = end - 1; s >= begin; --s) {
        const Step<T>& step = chain.steps[s];
        if (step.kind == StepKind::network || step.kind == StepKind::elementwise) {
            backward_network(t, call, back, s, network);
            continue;
        }
        const T* after = t.gradient(s + 1);
        T* before = t.gradient(s);
        const int64_t used = int64_t(t.vectors) * W;
        if (back.context)
            for (int64_t i = 0; i < chain.context * t.height; i += W) store(before + i, load(after + i));
        if (step.kind == StepKind::vector) {
            backward_vectors(t, call, s);
            continue;
        }
        if (step.kind == StepKind::rotation) {
            TileBuffers<T> gradients = t.buffers(s);
            gradients.given = t.gradient(s + 1);
            gradients.built = t.gradient(s);
            rotate(step.rotation, step.rotation.transpose, chain, gradients);
            continue;
        }
        for (int64_t c = 0; c < chain.features; ++c) {
            const bool moves = step.kind == StepKind::move;
            const int64_t given = moves ? step.move.given[c] : chain.context + c;
            const int64_t built = moves ? step.move.built[c] : chain.context + c;
            const T factor = moves ? T(1) : T(step.scale.scale[c]);
            for (int64_t i = 0; i < used; i += W)
                store(before + given * t.height + i, load(after + built * t.height + i) * factor);
        }
    }
    if (begin == 0 && (back.input || back.context)) finish_input(t, call, back, row, rows);
}

// ---- weights --------------------------------------------------------------------------------------------------------

// The sums of the rows before, n numbers from `place`, to those of all rows before.
template <class T>
void finish_sums(const T* sums, double* finished, int64_t place, int64_t n) {
    for (int64_t i = place; i < place + n; ++i) finished[i] += double(sums[i]);
}

template <class T>
void sum_weights(const Chain<T>& chain, const Back<T>& back, const WeightTask& task,
                 const TapeGroup<T>& group) noexcept {
    constexpr int W = width<T>;
    const MaskedStep<T>& s = chain.steps[chain.networks[task.network]].network;
    const Layer& layer = s.layers[task.layer];
    const int64_t height = back.height;
    T* const gradient = back.weights + s.weights;
    for (int u = task.unit0; u < task.unit1; u += row_block) {
        const int units = task.unit1 - u < row_block ? task.unit1 - u : row_block;
        const int length = (layer.visible[u + units - 1] + row_padding - 1) / row_padding * row_padding;
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
            a.grad = tape + (s.tape_units + layer.unit + u) * height;
            for (int m = 0; folds && m < units; ++m) {
                double* const finished = back.finished + s.weights;
                if (task.input0 < end)
                    finish_sums(gradient, finished, layer.row[u + m] + task.input0, end - task.input0);
                if (task.input0 == 0) finish_sums(gradient, finished, layer.bias + u + m, 1);
            }
            if (task.input0 < end) {
                a.panels = tape + (chain.tape.panels[task.network & 1] + layer.panel + task.input0) * height;
                a.output = gradient;
                a.row = layer.row + u;
                a.input = task.input0;
                weight_product(a, units, (end - task.input0) / W);
            }
            for (int m = 0; task.input0 == 0 && m < units; ++m) {
                Pack<T> sum{};
                const T* grad = a.grad + m * height;
                for (int64_t left = a.rows; left > 0; left -= height, grad += group.size)
                    for (int64_t i = 0, rows = left < height ? left : height; i < rows; i += W)
                        sum += load_up_to(grad + i, int(rows - i));  // lanes past the last row may have overflowed
                T* bias = gradient + layer.bias + u + m;
                *bias = (a.add ? *bias : T(0)) + reduce_add(sum);
            }
        }
    }
}

}  // namespace
}  // namespace headrace
