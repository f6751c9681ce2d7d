#include "masked.hpp"

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "../../../cpp/core/conditioners/masked.hpp"

namespace headrace {
namespace {

using LayerShape = MaskedConditioner::LayerShape;

// A stage on the device; `window` is the first unit of the last layer in the stage's phase.
Stage stage(const UnitRange& r, int window, const std::vector<LayerShape>& shapes, const std::vector<Layer>& layers) {
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
    s.is_hidden = r.layer + 1 < int(layers.size());
    s.value = layer.value;
    s.output = layer.value - (s.is_hidden ? 0 : window);
    s.bias = layer.bias;
    s.layer = uint16_t(r.layer);
    s.activation = uint8_t(layer.activation);
    s.is_joined = layer.c || layer.adds;
    s.keeps_sum = layer.sum != layer.value;
    return s;
}

// The stages of all phases, in order.
std::vector<Stage> stages(const StagePlanStorage& plan, const std::vector<LayerShape>& shapes,
                          const std::vector<Layer>& layers) {
    if (layers.size() > UINT16_MAX) throw std::invalid_argument("hidden: expected fewer than 65,536 layers");
    std::vector<Stage> made;
    for (const StagePhase& phase : plan.phases)
        for (int i = phase.stage_begin; i < phase.stage_end; ++i)
            made.push_back(stage(plan.stages[size_t(i)], phase.window, shapes, layers));
    return made;
}

template <class T>
void sum_tasks(PlacingSite<T>& site, const PlacedStep<NetworkStep<T>>& d, const LayerShape& shape, const Layer& layer,
               int64_t inputs) {
    const int64_t weights = d.step.weights, bias = weights + shape.bias;
    site.summed.push_back({bias, bias + layer.live});
    for (int u = 0; u < layer.live; u += sum_units) {
        const int units = std::min(sum_units, layer.live - u);
        for (int k = 0; k == 0 || k < shape.visible[size_t(u + units - 1)]; k += sum_inputs)
            site.tasks.push_back({d.part.grads + layer.product, inputs, weights, bias, layer.row, layer.visible, u,
                                  units, k,
                                  std::min(sum_inputs, std::max(0, shape.visible[size_t(u + units - 1)] - k))});
        for (int n = u; n < u + units; ++n) {
            const int64_t row = weights + shape.row[size_t(n)];
            site.summed.push_back({row, row + shape.visible[size_t(n)]});
        }
    }
}

}  // namespace

template <class T>
void place_conditioner(PlacingSite<T>& site, PlacedStep<NetworkStep<T>>& d, MaskedNetwork<T>& c,
                       const Conditioner& host, int64_t inputs) {
    const auto& t = static_cast<const MaskedConditioner&>(host);
    const auto& shapes = t.layers();
    NetworkStep<T>& m = d.step;
    Arena& arena = site.arena;
    StagePlanStorage plan = m.reads_built ? sequential_stages(t) : parallel_stages(t);
    const BackLayerStorage back = back_layers(c.back_plan, c.levels, shapes);
    c.tile_plan = c.small_plan = {};
    c.back_plan = {arena.put(c.back_plan.ops, size_t(c.back_plan.done[0])),
                   arena.put(c.back_plan.done, size_t(c.levels) + 1)};
    c.first_coordinate = arena.put(c.first_coordinate, size_t(c.levels) + 1);
    const int units = c.units + m.n_ready;  // the ready parameters of a vector map follow the network's units
    m.tape = site.lines(units);
    d.part.grads = site.lines(units);
    if (c.slopes >= 0) c.slopes = int(site.lines(units) - m.tape);
    std::vector<Layer> layers(c.layers, c.layers + c.n_layers);
    for (int l = 0; l < c.n_layers; ++l) {
        Layer& layer = layers[size_t(l)];
        layer.row = arena.put(shapes[size_t(l)].row);
        layer.visible = arena.put(shapes[size_t(l)].visible);
        for (const int** lines : {&layer.adds, &layer.added_to, &layer.c})
            *lines = arena.put(*lines, size_t(layer.out));
        const int64_t read = layer.below < 0 ? inputs : m.tape + layers[size_t(layer.below)].value;
        sum_tasks(site, d, shapes[size_t(l)], layer, read);
    }
    std::vector<Stage> all = stages(plan, shapes, layers);
    all.push_back({});
    const int n_phases = int(plan.phases.size());
    plan.phases.push_back({});
    part_of(d.part, c) = {{arena.put(all), arena.put(plan.phases), n_phases},
                          {arena.put(back.layers), arena.put(back.done)},
                          !t.reads_passive_only()};
    site.chain.units = std::max(site.chain.units, m.vector_map >= 0 ? units : c.outputs + plan.most_window);
    c.layers = arena.put(layers);
}

template void place_conditioner(PlacingSite<float>&, PlacedStep<NetworkStep<float>>&, MaskedNetwork<float>&,
                                const Conditioner&, int64_t);
template void place_conditioner(PlacingSite<double>&, PlacedStep<NetworkStep<double>>&, MaskedNetwork<double>&,
                                const Conditioner&, int64_t);

}  // namespace headrace
