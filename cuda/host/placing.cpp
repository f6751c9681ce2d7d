#include "placing.hpp"

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include "../../cpp/core/conditioners/masked.hpp"
#include "../../cpp/math/activations.hpp"

namespace headrace {
namespace {

template <class T>
constexpr int aligned_row = 16 / sizeof(T) > 4 ? 16 / sizeof(T) : 4;  // numbers that are loaded at once

int rounded_up(int n, int multiple) {
    return (n + multiple - 1) / multiple * multiple;
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
        for (const SupportColumn** p : {&c.load_support, &c.store_support}) *p = arena_.put(*p, features);
        for (const double** p : {&c.context_shift, &c.context_scale}) *p = arena_.put(*p, context);
        d_.tape.states = lines((c.n_steps + 1) * int64_t(d_.slots()));
        d_.tape.gradients = lines(2 * int64_t(d_.slots()));
        for (size_t i = 0; i < compiled_.steps.size(); ++i) steps_.push_back(step(i));
        c.density = nullptr;
        for (const DeviceStep<T>& d : steps_)
            if (d.step.kind == StepKind::density) c.density = arena_.put(&d.step.density, 1);
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
        d.step.summed = nullptr;
        d.slopes = -1;
        d.first_weights = std::none_of(compiled_.networks.begin(), compiled_.networks.end(),
                                       [&](int other) { return size_t(other) < i; });
        with_step(d.step, [&]<class S>(S& own) {
            if (!S::in_place) d_.in_place = false;
            place(d, own, i);
        });
        return d;
    }

    void place(DeviceStep<T>&, RotationStep<T>& s, size_t) {
        s = place_rotation(arena_, s);
        d_.has_products = true;
    }

    void place(DeviceStep<T>&, ScaleStep<T>& s, size_t) {
        s.scale = arena_.put(s.scale, size_t(d_.chain.features));
        s.shift = arena_.put(s.shift, size_t(d_.chain.features));
    }

    void place(DeviceStep<T>& d, DensityStep<T>& s, size_t) {
        const size_t features = size_t(d_.chain.features);
        s.coordinate = arena_.put(s.coordinate, features);
        s.raw = arena_.put(s.raw, features);
        s.column = arena_.put(s.column, s.components > 0 ? 0 : features);
        s.fixed = arena_.put(s.fixed, s.weights < 0 ? size_t(s.n_raw) : 0);
        if (s.weights < 0) return;
        s.tape_grads = d.grads = lines(s.n_raw);
        bare_sums(d.grads, s.weights, s.n_raw);
        summed_.push_back({s.weights, s.weights + s.n_raw});
    }

    void place(DeviceStep<T>&, SupportStep<T>& s, size_t) {
        s.column = arena_.put(s.column, size_t(d_.chain.features));
    }

    void place(DeviceStep<T>&, MarginalStep<T>& s, size_t) {
        s.map.ready = arena_.put(s.map.ready, size_t(d_.chain.features) * size_t(s.map.n_ready));
    }

    void place(DeviceStep<T>&, MoveStep<T>& s, size_t) {
        s.given = arena_.put(s.given, size_t(d_.chain.features));
        s.built = arena_.put(s.built, size_t(d_.chain.features));
    }

    void place(DeviceStep<T>& d, ElementwiseStep<T>& s, size_t) {
        s.coordinate = arena_.put(s.coordinate, size_t(d_.chain.features));
        place_map(d, s.map);
        const int n = s.map.n * s.map.n_params;
        d.values = lines(n);
        d.grads = lines(n);
        d.plan = {nullptr, arena_.put(std::vector<StagePhase>{{0, 0, 0, s.map.n, 0}}), 1};
        bare_sums(d.grads, s.weights, n);
        summed_.push_back({s.weights, s.weights + n});
    }

    void place_map(DeviceStep<T>& d, CoordinateMap<T>& map) {
        map.given = arena_.put(map.given, size_t(map.n));
        map.built = arena_.put(map.built, size_t(map.n));
        d.map = map;
        d_.has_networks = true;
    }

    // Sums of gradients by parameters that read nothing.
    void bare_sums(int64_t grads, int64_t sums, int n) {
        for (int u = 0; u < n; u += sum_units)
            tasks_.push_back({grads, 0, 0, sums, nullptr, nullptr, u, std::min(sum_units, n - u), 0, 0});
    }

    void place(DeviceStep<T>& d, VectorStep<T>& v, size_t) {
        const int features = d_.chain.features;
        d_.has_vectors = true;
        v.weights = arena_.put(v.weights, size_t(v.transforms));
        v.coordinate = arena_.put(v.coordinate, size_t(v.transforms) * size_t(features));
        d.states = lines(int64_t(v.transforms - 1) * features);
        d.grads = lines(int64_t(v.transforms) * v.n_ready);
        bare_sums(d.grads, int64_t(structure_.n_weights()) + v.ready,  // they come after those by weights
                  v.transforms * v.n_ready);
    }

    void place(DeviceStep<T>& d, NetworkStep<T>& m, size_t i) {
        const MaskedTransform& t = *compiled_.transforms[i];
        const auto& shapes = t.layers();
        StagePlanStorage plan = m.reads_built ? sequential_stages(t) : parallel_stages(t);
        m.back_plan = place_back_plan(arena_, m.back_plan);
        m.tile_plan = m.small_plan = {};
        m.passive_given = arena_.put(m.passive_given, size_t(m.n_passive));
        m.passive_built = arena_.put(m.passive_built, size_t(m.n_passive));
        d.values = lines(m.units);
        d.grads = lines(m.units);
        std::vector<Layer> layers(m.layers, m.layers + m.n_layers);
        if (std::any_of(layers.begin(), layers.end() - 1, keeps_slopes)) d.slopes = lines(m.units);
        for (int l = 0; l < m.n_layers; ++l) {
            Layer& layer = layers[size_t(l)];
            layer.row = arena_.put(shapes[size_t(l)].row);
            layer.visible = arena_.put(shapes[size_t(l)].visible);
            for (const int** lines : {&layer.adds, &layer.added_to, &layer.c})
                *lines = arena_.put(*lines, size_t(layer.out));
            const int64_t inputs = layer.below < 0 ? -1 : d.values + layers[size_t(layer.below)].value;
            sum_tasks(d, i, shapes[size_t(l)], layer, inputs);
        }
        d.plan = {arena_.put(stages(plan, shapes, layers)), arena_.put(plan.phases), int(plan.phases.size())};
        d.outputs = layers.back().product;
        d.has_levels = !t.reads_passive_only();
        d_.has_products = true;
        place_map(d, m.map);
        d_.units = std::max(d_.units, m.vector_map >= 0 ? m.units : d.outputs + plan.most_window);
        m.layers = arena_.put(layers);
    }

    static std::vector<Stage> stages(const StagePlanStorage& plan,
                                     const std::vector<MaskedTransform::LayerShape>& shapes,
                                     const std::vector<Layer>& layers) {
        if (layers.size() > UINT16_MAX) throw std::invalid_argument("hidden: expected fewer than 65,536 layers");
        std::vector<Stage> made;
        for (const UnitRange& r : plan.stages) {
            const Layer& layer = layers[size_t(r.layer)];
            Stage s{};
            s.row = layer.row;
            s.visible = layer.visible;
            s.begin = r.begin;
            s.end = r.end;
            s.part = r.part;
            s.from = r.part == StagePart::continued ? r.from : 0;
            s.terms = r.part == StagePart::begun ? r.from : shapes[size_t(r.layer)].visible[size_t(r.end - 1)];
            s.kept = uint16_t(r.kept);
            s.taken = uint16_t(r.taken);
            s.input = layer.below < 0 ? -1 : layers[size_t(layer.below)].value;
            s.value = layer.value;
            s.bias = layer.bias;
            s.layer = uint16_t(r.layer);
            s.activation = uint8_t(layer.activation);
            s.is_hidden = r.layer + 1 < int(layers.size());
            s.is_joined = layer.c || layer.adds;
            s.keeps_sum = layer.sum != layer.value;
            made.push_back(s);
        }
        made.push_back({});  // which is asked for ahead of the last one, and never used
        return made;
    }

    void sum_tasks(const DeviceStep<T>& d, size_t i, const MaskedTransform::LayerShape& shape, const Layer& layer,
                   int64_t inputs) {
        const NetworkStep<T>& m = d.step.network;
        const int64_t read = int64_t(i) + (m.reads_built ? 1 : 0);
        if (inputs < 0) inputs = d_.tape.states + read * d_.slots() + m.input_slot;
        const int64_t bias = m.weights + shape.bias;
        summed_.push_back({bias, bias + layer.live});
        for (int u = 0; u < layer.live; u += sum_units) {
            const int units = std::min(sum_units, layer.live - u);
            for (int k = 0; k == 0 || k < shape.visible[size_t(u + units - 1)]; k += sum_inputs)
                tasks_.push_back({d.grads + layer.product, inputs, m.weights, bias, layer.row, layer.visible, u, units,
                                  k, std::min(sum_inputs, std::max(0, shape.visible[size_t(u + units - 1)] - k))});
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
