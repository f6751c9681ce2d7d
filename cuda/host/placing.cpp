#include "placing.hpp"

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include "conditioners.hpp"
#include "placing_site.hpp"

namespace headrace {
namespace {

template <class T>
constexpr int aligned_row = 16 / sizeof(T) > 4 ? 16 / sizeof(T) : 4;  // number of values that are loaded at once

int rounded_up(int n, int multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

// Places a rotation. Rows of a rotation's matrix are padded, so that groups of four elements are at multiples of 16
// bytes.
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

// Copies a chain to the device: its steps, and their offsets on the tape of the backward pass.
template <class T>
class Placing {
  public:
    Placing(Arena& arena, const Structure& structure, const Compiled<T>& compiled)
        : site_{arena, compiled}, arena_(arena), structure_(structure), compiled_(compiled), d_(site_.chain) {
        d_.chain = compiled.chain;
        d_.chain.density = nullptr;
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
        d_.tape.lines = site_.used_lines;
        d_.steps = arena_.put(steps_);
        c.steps = nullptr;
        c.networks = nullptr;
        return d_;
    }

    // The sums over rows that make the gradient by weights; called after chain().
    SumTasks<T> sums() {
        std::vector<T> summed(structure_.n_weights() + size_t(d_.chain.ready));  // weights, then ready parameters
        for (const auto& [begin, end] : site_.summed) std::fill(summed.begin() + begin, summed.begin() + end, T(1));
        structure_.clear_dead(summed.data());
        structure_.clear_masked(summed.data());
        const std::vector<uint8_t> is_summed(summed.begin(), summed.end());
        return {arena_.put(site_.tasks), int(site_.tasks.size()), int64_t(structure_.n_weights()) + d_.chain.ready,
                arena_.put(is_summed)};
    }

  private:
    int64_t lines(int64_t n) { return site_.lines(n); }

    DeviceStep<T> step(size_t i) {
        DeviceStep<T> made{};
        with_step(compiled_.steps[i], [&]<class S>(const S& own) {
            PlacedStep<S>& d = become(made, own);
            d.step = own;
            if (!S::in_place) d_.in_place = false;
            if (has_products<S>) d_.has_products = true;
            put_arrays(d.step);
            place(d, i);
        });
        return made;
    }

    template <class S>
    void put_arrays(S& s) {
        for_arrays(s, d_.chain.features, [&](auto& array, int64_t n) { array = arena_.put(array, size_t(n)); });
    }
    void put_arrays(RotationStep<T>& s) { s = place_rotation(arena_, s); }

    // Places lines of the tape, and sums of gradients, for kinds of steps that have weights.
    template <class S>
    void place(PlacedStep<S>&, size_t i) {
        if (compiled_.steps[i].n_summed > 0)
            throw std::logic_error("a step with weights that has no place on the tape");
    }

    void place(PlacedStep<DensityStep<T>>& d, size_t) {
        DensityStep<T>& s = d.step;
        if (s.weights >= 0) {
            s.tape_grads = lines(s.n_raw);
            site_.bare_weights(s.tape_grads, s.weights, s.n_raw);
        }
        d_.chain.density = arena_.put(&s, 1);
    }

    void place(PlacedStep<ElementwiseStep<T>>& d, size_t) {
        ElementwiseStep<T>& s = d.step;
        const int n = s.map.n * s.map.n_params;
        s.tape_raw = lines(2 * n);  // lines of raw parameters, then of their gradients
        site_.bare_weights(s.tape_raw + n, s.weights, n);
        d_.has_networks = true;
    }

    void place(PlacedStep<VectorStep<T>>& d, size_t) {
        VectorStep<T>& s = d.step;
        const int n = s.transforms * s.n_ready;
        s.tape_states = lines(int64_t(s.transforms - 1) * d_.chain.features);
        s.tape_gradients = lines(n);
        site_.bare_weights(s.tape_gradients, int64_t(structure_.n_weights()) + s.ready, n);  // after those by weights
        d_.has_vectors = true;
    }

    void place(PlacedStep<NetworkStep<T>>& d, size_t i) {
        const NetworkStep<T>& s = d.step;
        const int64_t read = int64_t(i) + (s.reads_built ? 1 : 0);
        const int64_t inputs = d_.tape.states + read * d_.slots() + s.input_slot;
        const Conditioner& host = *compiled_.conditioners[i];
        d.part.first_weights = std::none_of(compiled_.networks.begin(), compiled_.networks.end(),
                                            [&](int other) { return size_t(other) < i; });
        with_conditioner(d.step.conditioner, [&]<class C>(C& own) {
            place_conditioner(site_, d, own, host, inputs);
            if (has_own_kernel<C>) d_.has_own_kernel = true;
        });
        d_.has_networks = true;
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
    // NOLINTNEXTLINE(clang-analyzer-core.StackAddressEscape): addresses of a chain are in the arena
    return {chain, placing.sums()};
}

template Placed<float> place_chain(Arena&, const Structure&, const Compiled<float>&);
template Placed<double> place_chain(Arena&, const Structure&, const Compiled<double>&);

}  // namespace headrace
