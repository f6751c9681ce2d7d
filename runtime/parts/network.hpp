// The conditioner: a network whose weights are multiplied by masks. It runs layer by layer, or in the order of a plan,
// by which a unit is computed as soon as the coordinates that it reads are available.
#pragma once

#include "numbers.hpp"
#include "stored.hpp"

namespace headrace {
namespace detail {

// Room for one row; grows as it is needed.
template <class T>
struct Scratch {
    std::vector<std::vector<T>> sums, values;  // of each layer
    std::vector<T> inputs, params, row, columns;
};

// A context's effect on a layer: an activated product of its own.
template <class T>
struct Join {
    std::vector<T> weight, bias;  // (units, context), (units,)
    bool gates = false;
    Activation activation = Activation::identity;
};

template <class T>
struct Layer {
    std::vector<T> bias;
    // Row by row the columns that its mask shows, and their weights: row u has entries first[u] to first[u + 1].
    std::vector<std::size_t> first;
    std::vector<std::uint32_t> column;
    std::vector<T> weight;
    Activation activation = Activation::identity;
    int adds = -1;  // whose sums are added
    bool is_joined = false;
    Join<T> join;

    std::size_t units() const { return bias.size(); }
};

struct Hidden {
    int units = 0, adds = -1, join = -1;  // join: 0 it is added, 1 it gates
    Activation activation = Activation::relu, context_activation = Activation::identity;
};

template <class T>
class Network {
  public:
    // `columns` of the first layer are the network's inputs, `context` of them the last ones; `rows` are its outputs.
    Network(Stored& stored, int columns, int context, std::uint64_t rows, Activation activation, bool has_masks)
        : columns_(columns), context_(context) {
        std::vector<Hidden> hidden;
        const bool is_described = has_masks && stored.has("network");
        if (is_described) hidden = described(stored);
        std::uint64_t width = static_cast<std::uint64_t>(columns);
        for (std::size_t l = 0; l == 0 || stored.has_tensor(prefix(l) + "weight"); ++l) {
            read_layer(stored, l, width, has_masks);
            width = layers_.back().units();
            layers_.back().activation = activation;
        }
        if (width != rows)
            stored.fail(prefix(layers_.size() - 1) + "bias: expected shape (" + std::to_string(rows) + "), got (" +
                        std::to_string(width) + ")");
        layers_.back().activation = Activation::identity;
        if (is_described) describe(stored, hidden);
        if (layers_.size() > 1) parts_ = stored.rounded_parts();
        if (parts_ == 0) return;
        for (Layer<T>& layer : layers_) {
            for (T& w : layer.weight) w = to_bf16(w, parts_, least_bf16_weight);
            for (T& w : layer.join.weight) w = to_bf16(w, parts_, least_bf16_weight);
        }
    }

    int columns() const { return columns_; }
    int context() const { return context_; }
    std::vector<Layer<T>>& layers() { return layers_; }
    const std::vector<Layer<T>>& layers() const { return layers_; }
    const std::vector<T>& outputs(const Scratch<T>& s) const { return s.sums[layers_.size() - 1]; }

    // A number as the network reads it.
    T read(T x) const { return parts_ > 0 ? to_bf16(x, parts_) : x; }

    // Buffer for a row. Values not computed yet are 0.
    void open(Scratch<T>& s) const {
        if (s.sums.size() < layers_.size()) {
            s.sums.resize(layers_.size());
            s.values.resize(layers_.size());
        }
        for (std::size_t l = 0; l < layers_.size(); ++l) {
            s.sums[l].assign(layers_[l].units(), T(0));
            s.values[l].assign(layers_[l].units(), T(0));
        }
    }

    // s.inputs holds coordinates, then context, in the order of the file.
    void run(Scratch<T>& s) const {
        open(s);
        for (std::size_t l = 0; l < layers_.size(); ++l)
            for (std::size_t u = 0; u < layers_[l].units(); ++u) run_unit(s, l, u);
    }

    void run_unit(Scratch<T>& s, std::size_t l, std::size_t u) const {
        const Layer<T>& layer = layers_[l];
        const T* const below = l ? s.values[l - 1].data() : s.inputs.data();
        T total = dot(layer, u, below) + layer.bias[u];
        if (layer.is_joined) {
            const T* const context = s.inputs.data() + (columns_ - context_);
            const std::size_t n = static_cast<std::size_t>(context_);
            T c = layer.join.bias[u];
            for (std::size_t k = 0; k < n; ++k) c += layer.join.weight[u * n + k] * context[k];
            c = activated(layer.join.activation, c);
            total = layer.join.gates ? total * c : total + c;
        }
        if (layer.adds >= 0) total += s.sums[static_cast<std::size_t>(layer.adds)][u];
        s.sums[l][u] = total;
        s.values[l][u] = read(activated(layer.activation, total));
    }

  private:
    static std::string prefix(std::size_t layer) { return "layers." + std::to_string(layer) + "."; }

    // Four sums, which do not wait for each other.
    static T dot(const Layer<T>& layer, std::size_t u, const T* below) {
        const std::size_t begin = layer.first[u], end = layer.first[u + 1];
        T sums[4] = {T(0), T(0), T(0), T(0)};
        std::size_t i = begin;
        for (; i + 4 <= end; i += 4)
            for (std::size_t k = 0; k < 4; ++k) sums[k] += layer.weight[i + k] * below[layer.column[i + k]];
        for (; i < end; ++i) sums[0] += layer.weight[i] * below[layer.column[i]];
        return (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }

    void read_layer(Stored& stored, std::size_t l, std::uint64_t width, bool has_masks) {
        const std::uint64_t rows = stored.rows_of(prefix(l) + "weight");
        const std::vector<T> weight = stored.template array<T>(prefix(l) + "weight", {rows, width});
        Layer<T> layer;
        layer.bias = stored.template array<T>(prefix(l) + "bias", {rows});
        std::vector<bool> mask;
        if (has_masks) mask = stored.mask(prefix(l) + "mask", {rows, width});
        layer.first.push_back(0);
        for (std::uint64_t u = 0, i = 0; u < rows; ++u) {
            for (std::uint64_t c = 0; c < width; ++c, ++i) {
                if (has_masks && !mask[i]) continue;
                layer.column.push_back(static_cast<std::uint32_t>(c));
                layer.weight.push_back(weight[i]);
            }
            layer.first.push_back(layer.column.size());
        }
        layers_.push_back(std::move(layer));
    }

    static std::vector<Hidden> described(Stored& stored) {
        std::vector<Hidden> result;
        std::set<int> added;
        for (const Value& value : stored.items("network")) {
            Stored own = stored.part(value, "network[" + std::to_string(result.size()) + "]");
            Hidden hidden;
            hidden.units = own.integer(own.take("units"), "units", 1, std::numeric_limits<std::int32_t>::max());
            hidden.activation = static_cast<Activation>(own.choice("activation", activation_names()));
            if (own.has("dropout")) own.number("dropout", -1e-300, 1.0);  // which matters only to a fit
            if (own.has("adds")) {
                hidden.adds = own.integer(own.take("adds"), "adds", 0, std::numeric_limits<std::int32_t>::max());
                const std::size_t by = static_cast<std::size_t>(hidden.adds);
                if (by >= result.size() || result[by].units != hidden.units || !added.insert(hidden.adds).second)
                    own.fail("adds: expected an earlier layer of as many units that no other one adds");
            }
            if (own.has("context")) {
                hidden.join = own.choice("context", {"add", "gate"});
                hidden.context_activation = hidden.join ? Activation::sigmoid : Activation::identity;
                if (own.has("context_activation"))
                    hidden.context_activation =
                        static_cast<Activation>(own.choice("context_activation", activation_names()));
            }
            own.close();
            result.push_back(hidden);
        }
        return result;
    }

    void describe(Stored& stored, const std::vector<Hidden>& hidden) {
        if (hidden.size() + 1 != layers_.size())
            stored.fail("network: expected " + std::to_string(layers_.size() - 1) + " layers, as the tensors have");
        for (std::size_t l = 0; l < hidden.size(); ++l) {
            Layer<T>& layer = layers_[l];
            if (static_cast<std::size_t>(hidden[l].units) != layer.units())
                stored.fail("network[" + std::to_string(l) + "]: expected " + std::to_string(layer.units()) +
                            " units, as the tensors have");
            layer.activation = hidden[l].activation;
            layer.adds = hidden[l].adds;
            if (hidden[l].join < 0) continue;
            if (context_ == 0) stored.fail("network: expected no context to join where there is none");
            layer.is_joined = true;
            layer.join.gates = hidden[l].join == 1;
            layer.join.activation = hidden[l].context_activation;
            const std::uint64_t units = layer.units(), columns = static_cast<std::uint64_t>(context_);
            layer.join.weight = stored.template array<T>(prefix(l) + "context.weight", {units, columns});
            layer.join.bias = stored.template array<T>(prefix(l) + "context.bias", {units});
        }
    }

    int columns_, context_;
    int parts_ = 0;  // of values rounded to bf16; 0: they are exact
    std::vector<Layer<T>> layers_;
};

}  // namespace detail
}  // namespace headrace
