// The conditioner: a network whose weights are multiplied by masks. A network is computed layer by layer, or in the
// order of a plan, in which a unit is computed as soon as the coordinates that it reads are available.
#pragma once

#include "layers.hpp"
#include "numbers.hpp"

namespace headrace {
namespace detail {

// Buffers for one row, which grow when necessary.
template <class T>
struct Scratch {
    std::vector<std::vector<T>> sums, values;  // sums and values of each layer
    std::vector<T> inputs, params, row, columns;
};

// The effect of a context on a layer: a separate, activated product.
template <class T>
struct Join {
    std::vector<T> weight, bias;  // (units, context) and (units,)
    bool gates = false;
    Activation activation = Activation::identity;
};

template <class T>
struct Layer {
    std::vector<T> bias;
    // For each row, the columns that the mask allows, and their weights: row u has entries first[u] to first[u + 1].
    std::vector<std::size_t> first;
    std::vector<std::uint32_t> column;
    std::vector<T> weight;
    Activation activation = Activation::identity;
    int adds = -1;  // layer whose sums are added
    bool is_joined = false;
    Join<T> join;

    std::size_t units() const { return bias.size(); }
};

template <class T>
class Network {
  public:
    explicit Network(Layers<T> described)
        : columns_(described.columns), context_(described.context), parts_(described.rounded_parts) {
        for (std::size_t l = 0; l < described.dense.size(); ++l) {
            layers_.push_back(shown_by_mask(std::move(described.dense[l])));
            Layer<T>& layer = layers_.back();
            layer.activation = described.activation_of(l);
            if (l < described.hidden.size()) {
                const Hidden& hidden = described.hidden[l];
                layer.adds = hidden.adds;
                layer.is_joined = hidden.join >= 0;
                layer.join.gates = hidden.join == 1;
                layer.join.activation = hidden.context_activation;
            }
            if (parts_ == 0) continue;
            for (T& w : layer.weight) w = to_bf16(w, parts_, least_bf16_weight);
            for (T& w : layer.join.weight) w = to_bf16(w, parts_, least_bf16_weight);
        }
    }

    int columns() const { return columns_; }
    int context() const { return context_; }
    std::vector<Layer<T>>& layers() { return layers_; }
    const std::vector<Layer<T>>& layers() const { return layers_; }
    const std::vector<T>& outputs(const Scratch<T>& s) const { return s.sums[layers_.size() - 1]; }

    // A value in the precision in which the network reads it.
    T read(T x) const { return parts_ > 0 ? to_bf16(x, parts_) : x; }

    // Prepares buffers for a row, in which values that are not computed yet are 0.
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

    // Computes the network; s.inputs has coordinates, then the context, in the order of the file.
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
    // A product, computed as four sums that do not wait for each other.
    static T dot(const Layer<T>& layer, std::size_t u, const T* below) {
        const std::size_t begin = layer.first[u], end = layer.first[u + 1];
        T sums[4] = {T(0), T(0), T(0), T(0)};
        std::size_t i = begin;
        for (; i + 4 <= end; i += 4)
            for (std::size_t k = 0; k < 4; ++k) sums[k] += layer.weight[i + k] * below[layer.column[i + k]];
        for (; i < end; ++i) sums[0] += layer.weight[i] * below[layer.column[i]];
        return (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }

    static Layer<T> shown_by_mask(DenseLayer<T> dense) {
        Layer<T> layer;
        layer.first.push_back(0);
        const std::size_t rows = dense.units(), width = rows ? dense.weight.size() / rows : 0;
        for (std::size_t u = 0, i = 0; u < rows; ++u) {
            for (std::size_t c = 0; c < width; ++c, ++i) {
                if (!dense.mask.empty() && !dense.mask[i]) continue;
                layer.column.push_back(static_cast<std::uint32_t>(c));
                layer.weight.push_back(dense.weight[i]);
            }
            layer.first.push_back(layer.column.size());
        }
        layer.bias = std::move(dense.bias);
        layer.join.weight = std::move(dense.context_weight);
        layer.join.bias = std::move(dense.context_bias);
        return layer;
    }

    int columns_ = 0, context_ = 0;
    int parts_ = 0;  // number of parts of values rounded to bf16; 0: values are exact
    std::vector<Layer<T>> layers_;
};

}  // namespace detail
}  // namespace headrace
