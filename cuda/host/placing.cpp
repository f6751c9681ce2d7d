#include "placing.hpp"

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include "kinds.hpp"
#include "placing_site.hpp"

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

// Takes a chain to the device: its steps, and places on the tape of the way back.
template <class T>
class Placing {
  public:
    Placing(Arena& arena, const Structure& structure, const Compiled<T>& compiled)
        : site_{arena, compiled}, arena_(arena), structure_(structure), compiled_(compiled), d_(site_.chain) {
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
        d_.tape.lines = site_.used_lines;
        d_.steps = arena_.put(steps_);
        c.steps = nullptr;
        c.networks = nullptr;
        return d_;
    }

    // For the weights' gradient; after chain().
    SumTasks<T> sums() {
        std::vector<T> summed(structure_.n_weights());
        for (const auto& [begin, end] : site_.summed) std::fill(summed.begin() + begin, summed.begin() + end, T(1));
        structure_.clear_dead(summed.data());
        structure_.clear_masked(summed.data());
        std::vector<uint8_t> is_summed(summed.begin(), summed.end());
        is_summed.resize(structure_.n_weights() + size_t(d_.chain.ready));  // and by which ready parameters
        for (const DeviceStep<T>& d : steps_) {
            if (d.step.kind != StepKind::vector) continue;
            const VectorStep<T>& v = d.step.vector;
            std::fill_n(is_summed.begin() + int64_t(structure_.n_weights()) + v.ready, v.transforms * v.n_ready, 1);
        }
        return {arena_.put(site_.tasks), int(site_.tasks.size()), int64_t(structure_.n_weights()) + d_.chain.ready,
                arena_.put(is_summed)};
    }

  private:
    int64_t lines(int64_t n) { return site_.lines(n); }

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

    // A kind that has a file of its own.
    template <class S>
    void place(DeviceStep<T>&, S& s, size_t) {
        place_step(site_, s);
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
        site_.bare_weights(d.grads, s.weights, s.n_raw);
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
        site_.bare_weights(d.grads, s.weights, n);
    }

    void place_map(DeviceStep<T>& d, CoordinateMap<T>& map) {
        map.given = arena_.put(map.given, size_t(map.n));
        map.built = arena_.put(map.built, size_t(map.n));
        d.map = map;
        d_.has_networks = true;
    }

    void place(DeviceStep<T>& d, VectorStep<T>& v, size_t) {
        const int features = d_.chain.features;
        d_.has_vectors = true;
        v.weights = arena_.put(v.weights, size_t(v.transforms));
        v.coordinate = arena_.put(v.coordinate, size_t(v.transforms) * size_t(features));
        d.states = lines(int64_t(v.transforms - 1) * features);
        d.grads = lines(int64_t(v.transforms) * v.n_ready);
        site_.bare_sums(d.grads, int64_t(structure_.n_weights()) + v.ready,  // they come after those by weights
                        v.transforms * v.n_ready);
    }

    void place(DeviceStep<T>& d, NetworkStep<T>& m, size_t i) {
        m.passive_given = arena_.put(m.passive_given, size_t(m.n_passive));
        m.passive_built = arena_.put(m.passive_built, size_t(m.n_passive));
        const int64_t read = int64_t(i) + (m.reads_built ? 1 : 0);
        const int64_t inputs = d_.tape.states + read * d_.slots() + m.input_slot;
        const Conditioner& conditioner = *compiled_.conditioners[i];
        d.has_levels = !conditioner.reads_passive_only();
        with_conditioner(m.conditioner, [&](auto& own) { place_conditioner(site_, d, own, conditioner, inputs); });
        place_map(d, m.map);
    }

    PlacingSite<T> site_;
    Arena& arena_;
    const Structure& structure_;
    const Compiled<T>& compiled_;
    DeviceChain<T>& d_;
    std::vector<DeviceStep<T>> steps_;
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
