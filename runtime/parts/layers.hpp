// Networks in files: dense layers, their masks, and the settings of hidden layers.
#pragma once

#include "numbers.hpp"
#include "stored.hpp"

namespace headrace {
namespace detail {

struct Hidden {
    int units = 0, adds = -1, join = -1;  // adds: layer whose sums are added; join: 0 a context is added, 1 a context
                                          // gates
    Activation activation = Activation::relu, context_activation = Activation::identity;
    double dropout = 0.0;  // has an effect only in fits
};

template <class T>
struct DenseLayer {
    std::vector<T> weight, bias;                  // weight (units, inputs), row by row, and bias (units,)
    std::vector<bool> mask;                       // in the shape of weight; empty: no weight is masked
    std::vector<T> context_weight, context_bias;  // (units, context) and (units,), for a context that joins the layer

    std::size_t units() const { return bias.size(); }
};

template <class T>
struct Layers {
    int columns = 0, context = 0;              // inputs of the first layer, of which the last `context` are a context
    Activation activation = Activation::relu;  // activation of hidden layers that `hidden` does not describe
    std::vector<Hidden> hidden;                // settings of each hidden layer; empty: only the activation
    std::vector<DenseLayer<T>> dense;
    int rounded_parts = 0;  // number of parts of values rounded to bf16; 0: values are exact

    Layers() = default;
    // Layers whose last layer has `rows` outputs.
    Layers(Stored& stored, int inputs, int of_context, std::uint64_t rows, Activation common, bool has_masks)
        : columns(inputs), context(of_context), activation(common) {
        const bool is_described = has_masks && stored.has("network");
        if (is_described) hidden = described(stored);
        std::uint64_t width = static_cast<std::uint64_t>(columns);
        for (std::size_t l = 0; l == 0 || stored.has_tensor(prefix(l) + "weight"); ++l) {
            read_layer(stored, l, width, has_masks);
            width = dense.back().units();
        }
        if (width != rows)
            stored.fail(prefix(dense.size() - 1) + "bias: expected shape (" + std::to_string(rows) + "), got (" +
                        std::to_string(width) + ")");
        if (is_described) read_joins(stored);
        if (dense.size() > 1) rounded_parts = stored.bf16_parts();
    }

    Activation activation_of(std::size_t layer) const {
        if (layer + 1 == dense.size()) return Activation::identity;
        return hidden.empty() ? activation : hidden[layer].activation;
    }

  private:
    static std::string prefix(std::size_t layer) { return "layers." + std::to_string(layer) + "."; }

    void read_layer(Stored& stored, std::size_t l, std::uint64_t width, bool has_masks) {
        const std::uint64_t rows = stored.rows_of(prefix(l) + "weight");
        DenseLayer<T> layer;
        layer.weight = stored.template array<T>(prefix(l) + "weight", {rows, width});
        layer.bias = stored.template array<T>(prefix(l) + "bias", {rows});
        if (has_masks) layer.mask = stored.mask(prefix(l) + "mask", {rows, width});
        dense.push_back(std::move(layer));
    }

    static std::vector<Hidden> described(Stored& stored) {
        std::vector<Hidden> result;
        std::set<int> added;
        for (const Value& value : stored.items("network")) {
            Stored own = stored.part(value, "network[" + std::to_string(result.size()) + "]");
            Hidden one;
            one.units = own.integer(own.take("units"), "units", 1, std::numeric_limits<std::int32_t>::max());
            one.activation = static_cast<Activation>(own.choice("activation", activation_names()));
            if (own.has("dropout")) one.dropout = own.number("dropout", -1e-300, 1.0);
            if (own.has("adds")) {
                one.adds = own.integer(own.take("adds"), "adds", 0, std::numeric_limits<std::int32_t>::max());
                const std::size_t by = static_cast<std::size_t>(one.adds);
                if (by >= result.size() || result[by].units != one.units || !added.insert(one.adds).second)
                    own.fail("adds: expected an earlier layer of as many units that no other one adds");
            }
            if (own.has("context")) {
                one.join = own.choice("context", {"add", "gate"});
                one.context_activation = one.join ? Activation::sigmoid : Activation::identity;
                if (own.has("context_activation"))
                    one.context_activation =
                        static_cast<Activation>(own.choice("context_activation", activation_names()));
            }
            own.close();
            result.push_back(one);
        }
        return result;
    }

    void read_joins(Stored& stored) {
        if (hidden.size() + 1 != dense.size())
            stored.fail("network: expected " + std::to_string(dense.size() - 1) + " layers, as the tensors have");
        for (std::size_t l = 0; l < hidden.size(); ++l) {
            DenseLayer<T>& layer = dense[l];
            if (static_cast<std::size_t>(hidden[l].units) != layer.units())
                stored.fail("network[" + std::to_string(l) + "]: expected " + std::to_string(layer.units()) +
                            " units, as the tensors have");
            if (hidden[l].join < 0) continue;
            if (context == 0) stored.fail("network: expected no context to join where there is none");
            const std::uint64_t units = layer.units(), width = static_cast<std::uint64_t>(context);
            layer.context_weight = stored.template array<T>(prefix(l) + "context.weight", {units, width});
            layer.context_bias = stored.template array<T>(prefix(l) + "context.bias", {units});
        }
    }
};

}  // namespace detail
}  // namespace headrace
