// The conditioner `echo` on the host.
#pragma once

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "../../../cpp/core/conditioner.hpp"

namespace headrace {

class EchoConditioner final : public ConditionerOf<EchoConditioner> {
  public:
    EchoConditioner(int units, int outputs) : ConditionerOf(0, outputs, false), units_(units) {
        if (units < 1) throw std::invalid_argument("units: expected at least 1");
    }

    bool fits(int features) const override { return features > 0; }
    std::vector<int> read_order(int features) const override { return steps(features); }
    std::vector<int> active_order(int features) const override { return steps(features); }

    uint32_t n_weights() const override { return uint32_t(padded(used())); }
    std::vector<WeightRange> parts() const override {
        const int64_t first = units_ * echo_taps, second = first + units_, last = used() - outputs();
        return {{0, first, false}, {first, second, true}, {second, last, false}, {last, n_weights(), true}};
    }
    std::vector<Tensor> tensors() const override {
        return {{"first.weight", {units_, echo_taps}},
                {"first.bias", {units_}},
                {"second.weight", {outputs(), 2 * units_}},
                {"second.bias", {outputs()}}};
    }
    template <class T>
    void pack_as(const std::vector<const T*>& tensors, T* weights) const {
        T* to = weights;
        for (size_t i = 0; i < tensors.size(); ++i) to = std::copy_n(tensors[i], sizes()[i], to);
        clear_masked_in(weights);
    }
    template <class T>
    void unpack_as(const T* weights, const std::vector<T*>& tensors) const {
        for (size_t i = 0; i < tensors.size(); weights += sizes()[i], ++i) std::copy_n(weights, sizes()[i], tensors[i]);
    }
    template <class T>
    void clear_masked_in(T* weights) const {
        std::fill(weights + used(), weights + n_weights(), T(0));
    }
    template <class T>
    void clear_dead_in(T*) const {}

    Bf16Layout bf16(const Bf16Layout&) const override {
        return {};  // products of `echo` stay exact
    }

    template <class T>
    Lowered<T> lower_as(Kept&, const ChainSide& side) const {
        const Echo<T> own{units_, outputs(), side.reads_built};
        Lowered<T> made{};
        made.kernels = any_of(own);
        made.tiles_only = true;
        made.summed = {{echo_gradients(own, side.features), used(), 0, 0, nullptr, nullptr, 0}};
        return made;
    }

  private:
    static std::vector<int> steps(int n) {
        std::vector<int> all(static_cast<size_t>(n));
        std::iota(all.begin(), all.end(), 0);
        return all;
    }
    int used() const { return echo_weights(Echo<float>{units_, outputs(), false}); }
    std::vector<int> sizes() const { return {units_ * echo_taps, units_, outputs() * units_ * 2, outputs()}; }

    int units_;
};

}  // namespace headrace
