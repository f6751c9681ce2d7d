#include "placing.hpp"

#include <algorithm>
#include <utility>

#include "../../cpp/core/masks.hpp"
#include "../../cpp/math/activations.hpp"

namespace headrace {
namespace {

template <class T>
constexpr int aligned_row = 16 / sizeof(T) > 4 ? 16 / sizeof(T) : 4;  // numbers that are loaded at once

int rounded_up(int n, int multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

bool activation_has_slope_of_value(int activation) {
    bool result = false;
    with_activation(activation, [&]<class A>() { result = A::slope_of_value; });
    return result;
}

bool map_has_bins(int map) {
    return map_list()[size_t(map)].n_params(2) != map_list()[size_t(map)].n_params(3);
}

// Rows of the matrix padded, so that four numbers of them lie at a multiple of 16 bytes.
template <class T>
RotationStep<T> place_rotation(Arena& arena, const RotationStep<T>& s) {
    std::vector<T> matrix, transpose;
    std::vector<uint32_t> row;
    for (int b = 0; b < s.blocks; ++b) {
        const int begin = s.first[b], size = s.first[b + 1] - begin;
        for (int i = begin; i < begin + size; ++i) {
            row.push_back(uint32_t(matrix.size()));
            matrix.insert(matrix.end(), s.matrix + s.row[i], s.matrix + s.row[i] + size);
            transpose.insert(transpose.end(), s.transpose + s.row[i], s.transpose + s.row[i] + size);
            const size_t padded = size_t(row.back()) + size_t(rounded_up(size, aligned_row<T>));
            matrix.resize(padded);
            transpose.resize(padded);
        }
    }
    return {arena.put(matrix), arena.put(transpose), nullptr, arena.put(row), arena.put(s.first, size_t(s.blocks) + 1),
            s.blocks};
}

BackPlan place_back_plan(Arena& arena, const BackPlan& plan) {
    const int ops = plan.n_phases > 0 ? plan.phases[plan.n_phases - 1].op_end : 0;
    return {arena.put(plan.ops, size_t(ops)), arena.put(plan.phases, size_t(plan.n_phases)), plan.n_phases};
}

// Takes a chain to the device: its steps, and places on the tape of the way back.
template <class T>
class Placing {
  public:
    Placing(Arena& arena, const Structure& structure, const Compiled<T>& compiled)
        : arena_(arena), structure_(structure), compiled_(compiled) {
        d_.chain = compiled.chain;
        d_.in_place = true;
    }

    DeviceChain<T> chain() {
        Chain<T>& c = d_.chain;
        const size_t features = size_t(c.features), context = size_t(c.context);
        c.load_slot = arena_.put(c.load_slot, features);
        c.store_slot = arena_.put(c.store_slot, features);
        for (const double** p : {&c.load_shift, &c.load_scale, &c.store_shift, &c.store_scale})
            *p = arena_.put(*p, features);
        for (const double** p : {&c.context_shift, &c.context_scale}) *p = arena_.put(*p, context);
        d_.tape.states = lines((c.n_steps + 1) * int64_t(d_.slots()));
        d_.tape.gradients = lines(2 * int64_t(d_.slots()));
        for (size_t i = 0; i < compiled_.steps.size(); ++i) steps_.push_back(step(i));
        d_.tape.lines = lines_;
        d_.steps = arena_.put(steps_);
        c.steps = nullptr;
        c.networks = nullptr;
        return d_;
    }

    // For the weights' gradient; after chain().
    SumTasks<T> sums() {
        std::vector<T> summed(structure_.n_weights());
        for (const auto& [begin, end] : summed_) std::fill(summed.begin() + begin, summed.begin() + end, T(1));
        structure_.clear_dead(summed.data());
        structure_.clear_masked(summed.data());
        std::vector<uint8_t> is_summed(summed.begin(), summed.end());
        is_summed.resize(structure_.n_weights() + size_t(d_.chain.ready));  // and by which ready parameters
        for (const DeviceStep<T>& d : steps_) {
            if (d.step.kind != StepKind::vector) continue;
            const VectorStep<T>& v = d.step.vector;
            std::fill_n(is_summed.begin() + int64_t(structure_.n_weights()) + v.ready, v.transforms * v.n_ready, 1);
        }
        return {arena_.put(tasks_), int(tasks_.size()), int64_t(structure_.n_weights()) + d_.chain.ready,
                arena_.put(is_summed)};
    }

  private:
    int64_t lines(int64_t n) { return std::exchange(lines_, lines_ + n); }

    DeviceStep<T> step(size_t i) {
        DeviceStep<T> d{};
        d.step = compiled_.steps[i];
        const StepKind kind = d.step.kind;
        if (kind == StepKind::network || kind == StepKind::rotation || kind == StepKind::move) d_.in_place = false;
        if (kind == StepKind::vector) d_.has_vectors = true;
        d.slopes = -1;
        d.first_weights = std::none_of(compiled_.networks.begin(), compiled_.networks.end(),
                                       [&](int other) { return size_t(other) < i; });
        const size_t features = size_t(d_.chain.features);
        switch (d.step.kind) {
            case StepKind::rotation: d.step.rotation = place_rotation(arena_, d.step.rotation); break;
            case StepKind::scale: {
                ScaleStep& s = d.step.scale;
                s.scale = arena_.put(s.scale, features);
                s.shift = arena_.put(s.shift, features);
                break;
            }
            case StepKind::move: {
                MoveStep& s = d.step.move;
                s.given = arena_.put(s.given, features);
                s.built = arena_.put(s.built, features);
                break;
            }
            case StepKind::vector: vectors(d); break;
            case StepKind::elementwise:
                d.step.elementwise.coordinate = arena_.put(d.step.elementwise.coordinate, features);
                network(d, i);
                break;
            case StepKind::network: network(d, i); break;
        }
        return d;
    }

    void vectors(DeviceStep<T>& d) {
        VectorStep<T>& v = d.step.vector;
        const int features = d_.chain.features;
        v.weights = arena_.put(v.weights, size_t(v.transforms));
        v.coordinate = arena_.put(v.coordinate, size_t(v.transforms) * size_t(features));
        d.states = lines(int64_t(v.transforms - 1) * features);
        d.grads = lines(int64_t(v.transforms) * v.n_ready);
        const int n = v.transforms * v.n_ready;
        const int64_t sums = int64_t(structure_.n_weights()) + v.ready;  // they come after those by weights
        for (int u = 0; u < n; u += sum_units)
            tasks_.push_back({d.grads, 0, 0, sums, nullptr, nullptr, u, std::min(sum_units, n - u), 0, 0});
        d.step.network = {};
    }

    void network(DeviceStep<T>& d, size_t i) {
        MaskedStep<T>& m = d.step.network;
        const MaskedTransform& t = *compiled_.transforms[i];
        const auto& shapes = t.layers();
        StagePlanStorage plan = m.reads_built ? sequential_stages(t) : parallel_stages(t);
        d.plan = {arena_.put(plan.stages), arena_.put(plan.phases), int(plan.phases.size())};
        m.back_plan = place_back_plan(arena_, m.back_plan);
        m.tile_plan = m.small_plan = {};
        m.active_given = arena_.put(m.active_given, size_t(m.n_active));
        m.active_built = arena_.put(m.active_built, size_t(m.n_active));
        m.passive_given = arena_.put(m.passive_given, size_t(m.n_passive));
        m.passive_built = arena_.put(m.passive_built, size_t(m.n_passive));
        d.values = lines(m.units);
        d.grads = lines(m.units);
        if (m.n_layers > 1 && !activation_has_slope_of_value(m.activation)) d.slopes = lines(m.units);
        std::vector<Layer> layers(m.layers, m.layers + m.n_layers);
        for (int l = 0; l < m.n_layers; ++l) {
            Layer& layer = layers[size_t(l)];
            layer.row = arena_.put(shapes[size_t(l)].row);
            layer.visible = arena_.put(shapes[size_t(l)].visible);
            const int64_t inputs = l == 0 ? -1 : d.values + layers[size_t(l) - 1].unit;
            sum_tasks(d, i, shapes[size_t(l)], layer, inputs);
        }
        d_.has_splines = d_.has_splines || (m.vector_map < 0 && map_has_bins(m.map));
        d_.has_networks = true;
        if (d.step.kind == StepKind::network) {
            const int run_units = m.vector_map >= 0 ? m.units : layers[size_t(m.n_layers) - 1].unit + plan.most_window;
            d_.units = std::max(d_.units, run_units);
        }
        m.layers = arena_.put(layers);
    }

    void sum_tasks(const DeviceStep<T>& d, size_t i, const MaskedTransform::LayerShape& shape, const Layer& layer,
                   int64_t inputs) {
        const MaskedStep<T>& m = d.step.network;
        const int64_t read = int64_t(i) + (m.reads_built ? 1 : 0);
        if (inputs < 0) inputs = d_.tape.states + read * d_.slots() + m.input_slot;
        const int64_t bias = m.weights + shape.bias;
        summed_.push_back({bias, bias + layer.live});
        for (int u = 0; u < layer.live; u += sum_units) {
            const int units = std::min(sum_units, layer.live - u);
            for (int k = 0; k == 0 || k < shape.visible[size_t(u + units - 1)]; k += sum_inputs)
                tasks_.push_back({d.grads + layer.unit, inputs, m.weights, bias, layer.row, layer.visible, u, units, k,
                                  std::min(sum_inputs, std::max(0, shape.visible[size_t(u + units - 1)] - k))});
            for (int n = u; n < u + units; ++n) {
                const int64_t row = m.weights + shape.row[size_t(n)];
                summed_.push_back({row, row + shape.visible[size_t(n)]});
            }
        }
    }

    Arena& arena_;
    const Structure& structure_;
    const Compiled<T>& compiled_;
    DeviceChain<T> d_{};
    std::vector<DeviceStep<T>> steps_;
    int64_t lines_ = 0;
    std::vector<SumTask> tasks_;
    std::vector<std::pair<int64_t, int64_t>> summed_;  // places of weights that tasks sum
};

}  // namespace

template <class T>
Placed<T> place_chain(Arena& arena, const Structure& structure, const Compiled<T>& compiled) {
    Placing<T> placing(arena, structure, compiled);
    const DeviceChain<T> chain = placing.chain();
    return {chain, placing.sums()};
}

template Placed<float> place_chain(Arena&, const Structure&, const Compiled<float>&);
template Placed<double> place_chain(Arena&, const Structure&, const Compiled<double>&);

}  // namespace headrace
