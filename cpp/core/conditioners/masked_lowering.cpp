// Conversion of a masked network's layers to arguments of kernels: lines for products, sums and values, and the order
// of products.
#include <algorithm>
#include <utility>

#include "../../math/activations.hpp"
#include "masked.hpp"
#include "masked_plan.hpp"

namespace headrace {
namespace {

template <class T>
class Lines {
  public:
    Lines(const MaskedConditioner& t, Kept& kept, const Bf16Layout& bf16)
        : t_(t), kept_(kept), parts_(bf16.parts), added_by_(t.layers().size(), -1) {
        c_.bf16 = bf16;
        if (parts_ > 0) {
            rounded_ = t.rounded(bf16);
            c_.tile_weights = int64_t(t.n_pairs(bf16).tiles);
            c_.input_pairs = pairs(c_.pairs, t.layers()[0].in);
        }
    }

    Lowered<T> lowered() {
        const auto& shapes = t_.layers();
        for (size_t l = 0; l < shapes.size(); ++l)
            if (shapes[l].adds >= 0) added_by_[size_t(shapes[l].adds)] = int(l);
        for (size_t l = 0; l < shapes.size(); ++l) add_layer(int(l));
        for (size_t l = 0; l < shapes.size(); ++l)
            if (added_by_[l] >= 0) layers_[l].added_to = lines_of_adding(int(l));
        c_.pairs = std::max(c_.pairs, grad_pairs_);  // gradients may reuse lines of values, which are no longer needed
        c_.waits = std::exchange(c_.pairs, c_.pairs + waiting_);
        const auto keeps = [](const Layer& layer) { return keeps_slopes(layer); };
        c_.slopes = std::any_of(layers_.begin(), layers_.end() - 1, keeps) ? c_.units : -1;
        c_.outputs = layers_.back().product;
        c_.n_layers = int(layers_.size());
        Lowered<T> made{};
        for (const Layer& layer : layers_)
            made.summed.push_back({layer.product, layer.live, layer.bias, 0, layer.row, layer.visible, layer.panel,
                                   parts_ > 0 ? layer.grad_rows : -1});
        made.pairs = c_.pairs;
        made.sums = c_.sums;
        made.panels = panels_;
        c_.layers = kept_.keep(std::move(layers_));
        made.kernels = any_of(c_);
        return made;
    }

    MaskedNetwork<T>& network() { return c_; }
    void add_waiting(int lines) { waiting_ = lines; }

  private:
    int units(int n) { return std::exchange(c_.units, c_.units + padded(n)); }
    // The next lines of pairs for n values, rounded up to whole steps.
    int pairs(int& next, int n) const {
        const int words = std::max(c_.bf16.words, c_.bf16.row_words) * bf16_step / 2;
        return std::exchange(next, next + parts_ * words * ((n + bf16_step - 1) / bf16_step));
    }

    // Products, sums and values have separate lines only where two of them are needed.
    void add_layer(int l) {
        const auto& shape = t_.layers()[size_t(l)];
        const bool hidden = !t_.is_output(l), joined = shape.context >= 0 || shape.adds >= 0;
        Layer layer{};
        layer.row = shape.row.data();
        layer.visible = shape.visible.data();
        layer.bias = shape.bias;
        layer.in = shape.in;
        layer.out = shape.out;
        layer.below = shape.below;
        layer.activation = shape.activation;
        layer.product = units(shape.out);
        layer.sum = shape.gated ? units(shape.out) : layer.product;
        const bool is_changed = shape.activation != identity_index || shape.dropout > 0;
        layer.value = added_by_[size_t(l)] >= 0 && is_changed ? units(shape.out) : layer.sum;
        layer.dropout = shape.dropout;
        layer.relu = shape.activation == relu_index && !joined && layer.value == layer.product && !shape.dropout;
        layer.sweep = joined || shape.dropout > 0 || !(layer.relu || shape.activation == identity_index);
        layer.context_alone = shape.context_alone;
        layer.gated = shape.gated;
        layer.c_layer = shape.context;
        layer.live = t_.live_units(l);
        layer.panel =
            std::exchange(panels_, panels_ + (parts_ > 0 ? rounded_lines(padded(shape.in)) : padded(shape.in)));
        if (parts_ > 0) add_pairs(layer, l);
        if (shape.below < 0) layer.fold = std::exchange(folded_, folded_ + shape.out);
        if (shape.context >= 0) layer.c = kept_.keep(lines_of(l, shape.context, layers_[size_t(shape.context)].value));
        if (shape.adds >= 0) layer.adds = kept_.keep(lines_of(l, shape.adds, layers_[size_t(shape.adds)].sum));
        if (hidden) c_.has_slope_sweep = c_.has_slope_sweep || (layer.sweep && layer.activation != relu_index);
        layers_.push_back(layer);
    }

    // Assigns lines of bf16 values, and the positions of a layer's rounded weights.
    void add_pairs(Layer& layer, int l) {
        layer.block = kept_.keep(std::move(rounded_[size_t(l)].block));
        layer.back = kept_.keep(std::move(rounded_[size_t(l)].back));
        layer.pairs = !t_.is_output(l) && !layer.context_alone ? pairs(c_.pairs, layer.out) : -1;
        layer.grad_pairs = pairs(grad_pairs_, layer.out);
        layer.grad_rows = std::exchange(
            panels_, panels_ + rounded_lines(c_.bf16.settles ? padded(layer.out) + row_block : layer.out));
        layer.sums = std::exchange(c_.sums, c_.sums + padded(layer.out) * c_.bf16.planes);
    }

    // The number of float32 lines that n lines of rounded values occupy.
    int rounded_lines(int n) const { return (n * parts_ * c_.bf16.words + 1) / 2; }

    // For each unit of `layer`, in the order of degrees, the line of the unit of layer `other` that has the same index
    // in the user's order; the lines of `other` start at `first`.
    std::vector<int> lines_of(int layer, int other, int first) const {
        const std::vector<int> places = t_.places(other);
        std::vector<int> lines;
        for (int unit : t_.layers()[size_t(layer)].order) lines.push_back(first + places[size_t(unit)]);
        return lines;
    }

    // For each sum of layer l, the line of the later layer's sum to which it is added.
    const int* lines_of_adding(int l) const {
        const Layer& by = layers_[size_t(added_by_[size_t(l)])];
        std::vector<int> lines = lines_of(l, added_by_[size_t(l)], by.sum);
        for (int& line : lines)
            if (line >= by.sum + by.live) line = -1;  // a dead unit has no gradient
        return kept_.keep(std::move(lines));
    }

    const MaskedConditioner& t_;
    Kept& kept_;
    const int parts_;
    std::vector<int> added_by_;  // for each layer, the layer that adds the layer's sums to its own; -1: none
    std::vector<RoundedLayer> rounded_;
    std::vector<Layer> layers_;
    MaskedNetwork<T> c_{};
    int panels_ = 0, folded_ = 0, grad_pairs_ = 0, waiting_ = 0;
};

template <class Storage>
auto rounding(Storage plan, const MaskedConditioner& t, const Bf16Layout& bf16) {
    if (bf16.parts > 0) plan_rounding(plan, t);
    return plan;
}

}  // namespace

template <class T>
Lowered<T> MaskedConditioner::lower_as(Kept& kept, const ChainSide& side) const {
    const Bf16Layout& bf16 = side.bf16;
    Lines<T> lines(*this, kept, bf16);
    MaskedNetwork<T>& c = lines.network();
    c.levels = n_positions(*this);
    std::vector<int> first;
    for (int level = 0; level <= c.levels; ++level) first.push_back(coordinates_up_to(level));
    c.first_coordinate = kept.keep(std::move(first));
    const auto keep = [&](PlanStorage plan) -> ForwardPlan {
        plan = rounding(std::move(plan), *this, bf16);
        return {kept.keep(std::move(plan.ops)), kept.keep(std::move(plan.first))};
    };
    const auto keep_back = [&](BackPlanStorage plan) -> BackPlan {
        plan = rounding(std::move(plan), *this, bf16);
        return {kept.keep(std::move(plan.ops)), kept.keep(std::move(plan.done))};
    };
    const bool in_bf16 = bf16.parts > 0;
    if (side.reads_built) {
        const int step = bf16.steps ? bf16.step : 1, block = bf16.steps ? bf16.units : row_block;
        PlanStorage plan = sequential_plan(*this, choose_panel(*this), step, block);
        if (bf16.waits) lines.add_waiting(plan_waiting(plan, *this));
        c.tile_plan = keep(std::move(plan));
        c.small_plan = keep(in_bf16 ? small_batch_plan(*this, true, bf16.quad) : sequential_plan(*this, 1));
        c.back_plan = keep_back(sequential_back_plan(*this));
    } else {
        const int block = in_bf16 ? bf16.units : row_block;
        c.tile_plan = c.small_plan = keep(parallel_plan(*this, block));
        if (in_bf16) c.small_plan = keep(small_batch_plan(*this, false, bf16.quad));
        c.back_plan = keep_back(parallel_back_plan(*this, block));
    }
    return lines.lowered();
}

template Lowered<float> MaskedConditioner::lower_as(Kept&, const ChainSide&) const;
template Lowered<double> MaskedConditioner::lower_as(Kept&, const ChainSide&) const;

}  // namespace headrace
