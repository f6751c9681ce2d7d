#include "masked.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "../../math/activations.hpp"
#include "../maps.hpp"
#include "masked_plan.hpp"

namespace headrace {
namespace {

// Indices sorted by key, where equal keys keep their order.
std::vector<int> sorted_places(const std::vector<int>& key) {
    std::vector<int> order(key.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return key[a] < key[b]; });
    return order;
}

// Sets values to zero; a few values by overlapping stores of fixed sizes, because a call of memset would take longer.
template <class T>
void clear_values(T* values, uint32_t count) {
    if (count > 16) {
        std::fill_n(values, count, T(0));
    } else if (count >= 8) {
        std::memset(values, 0, 8 * sizeof(T));
        std::memset(values + count - 8, 0, 8 * sizeof(T));
    } else if (count >= 4) {
        std::memset(values, 0, 4 * sizeof(T));
        std::memset(values + count - 4, 0, 4 * sizeof(T));
    } else if (count > 0) {
        values[0] = values[count / 2] = values[count - 1] = T(0);
    }
}

// Rows of bits that show which coordinates a unit reaches.
class BitRows {
  public:
    BitRows(size_t rows, size_t bits) : words_((bits + 63) / 64), data_(rows * words_) {}
    void set(size_t row, size_t bit) { data_[row * words_ + bit / 64] |= uint64_t(1) << bit % 64; }
    bool test(size_t row, size_t bit) const { return data_[row * words_ + bit / 64] >> bit % 64 & 1; }
    void merge(size_t row, const BitRows& other, size_t other_row) {
        for (size_t w = 0; w < words_; ++w) data_[row * words_ + w] |= other.data_[other_row * words_ + w];
    }

  private:
    size_t words_;
    std::vector<uint64_t> data_;
};

// Levels of coordinates: lengths of the longest paths of the relation "an active coordinate depends on another
// coordinate". Passive coordinates, and active coordinates without dependencies, have level 1.
std::vector<int> levels_of(const MaskedOptions& o, const BitRows& reach, int n_params) {
    std::vector<int> levels(o.features, 0), place_of(o.features, -1);
    for (size_t a = 0; a < o.active.size(); ++a) place_of[o.active[a]] = int(a);
    for (int c = 0; c < o.features; ++c)
        if (place_of[c] < 0) levels[c] = 1;
    std::vector<std::vector<int>> needs(o.features), needed_by(o.features);
    std::vector<int> open(o.features, 0);
    for (int c : o.active)
        for (size_t i = 0; i < o.reads.size(); ++i)
            for (int p = 0; p < n_params; ++p)
                if (reach.test(size_t(place_of[c]) * n_params + p, i)) {
                    needs[c].push_back(o.reads[i]);
                    if (place_of[o.reads[i]] >= 0) {
                        needed_by[o.reads[i]].push_back(c);
                        ++open[c];
                    }
                    break;
                }
    std::vector<int> ready;
    for (int c : o.active)
        if (open[c] == 0) ready.push_back(c);
    size_t settled = 0;
    while (!ready.empty()) {
        const int c = ready.back();
        ready.pop_back();
        ++settled;
        levels[c] = 1;
        for (int other : needs[c]) levels[c] = std::max(levels[c], levels[other] + 1);
        for (int other : needed_by[c])
            if (--open[other] == 0) ready.push_back(other);
    }
    if (settled == o.active.size()) return levels;
    // Every unassigned coordinate depends on another unassigned coordinate, so that a walk along dependencies must
    // close a cycle.
    int c = *std::find_if(o.active.begin(), o.active.end(), [&](int a) { return open[a] > 0; });
    std::vector<bool> seen(o.features, false);
    const auto unsettled_need = [&](int at) {
        return *std::find_if(needs[at].begin(), needs[at].end(), [&](int n) { return open[n] > 0; });
    };
    while (!seen[c]) {
        seen[c] = true;
        c = unsettled_need(c);
    }
    const int other = unsettled_need(c);
    throw std::invalid_argument(
        other == c ? "masks: coordinate " + std::to_string(c) + " depends on coordinate " + std::to_string(c) +
                         " (itself); expected no coordinate to depend on itself"
                   : "masks: coordinates " + std::to_string(c) + " and " + std::to_string(other) +
                         " depend on each other in a cycle; expected an order in which each depends on earlier ones");
}

// Checks that hidden layer `added`, whose sums layer l adds to its own sums, is below layer l and as wide. sizes[l + 1]
// is the width of layer l.
void check_added(int added, int l, const std::vector<int>& sizes) {
    if (added < 0) return;
    if (added >= l || sizes[size_t(added) + 1] != sizes[size_t(l) + 1])
        throw std::invalid_argument("layers[" + std::to_string(l) +
                                    "].adds: expected an earlier hidden layer of the same width, got " +
                                    std::to_string(added));
}

}  // namespace

MaskedConditioner::MaskedConditioner(MaskedOptions o, std::vector<int> levels, std::vector<std::vector<int>> degrees)
    : ConditionerOf(o.context, o.outputs, o.joint),
      features_(o.features),
      reads_(std::move(o.reads)),
      active_(std::move(o.active)),
      hidden_(std::move(o.hidden)),
      levels_(std::move(levels)),
      degrees_(std::move(degrees)) {
    if (is_joint() && (!reads().empty() || active().empty() || features() > max_vector_features))
        throw std::invalid_argument("reads, active: a vector map moves coordinates, and its network reads none");
    if (hidden_.empty()) {
        find_activation(o.activation);  // an unknown name is refused even if no layer has this activation
        hidden_.assign(degrees_.size(), {o.activation, -1, "", "", 0});
    }
    const auto distinct_coordinates = [&](const std::vector<int>& chosen) {
        std::vector<bool> seen(size_t(std::max(0, features_)), false);
        for (int c : chosen) {
            if (c < 0 || c >= features_ || seen[c]) return false;
            seen[c] = true;
        }
        return true;
    };
    if (features_ < 1 || !distinct_coordinates(reads_) || !distinct_coordinates(active_))
        throw std::invalid_argument("features, reads, active: expected different coordinates in range");
    const auto all_within = [](const std::vector<int>& values, int low, int high) {
        return std::all_of(values.begin(), values.end(), [&](int v) { return v >= low && v <= high; });
    };
    bool fits = int(levels_.size()) == features() && all_within(levels_, 1, features());
    for (const auto& degrees : degrees_) fits = fits && all_within(degrees, 0, features());
    if (!fits) throw std::invalid_argument("levels, degrees: expected a level from 1 and a degree from 0 to features");
    check_hidden();
    lay_out();
    pin_biases(o.unbiased);
}

std::shared_ptr<MaskedConditioner> MaskedConditioner::from_masks(MaskedOptions o,
                                                                 const std::vector<std::vector<uint8_t>>& masks,
                                                                 const std::vector<int>& sizes) {
    const int n_params = o.outputs, n_layers = int(masks.size());
    if (o.joint) throw std::invalid_argument("masks: a vector map has a network of levels and degrees");
    const size_t n_reads = o.reads.size();
    if (n_layers < 1 || sizes.size() != masks.size() + 1 || sizes.front() != int(n_reads) + o.context ||
        sizes.back() != int(o.active.size()) * n_params)
        throw std::invalid_argument("masks: sizes do not fit the transform");
    // reach[l][u] has the coordinates that unit u of layer l reads through the masks, without the context.
    std::vector<BitRows> reach;
    reach.emplace_back(sizes[0], n_reads);
    for (size_t i = 0; i < n_reads; ++i) reach[0].set(i, i);
    const auto adds = [&](int l) { return l < int(o.hidden.size()) ? o.hidden[l].adds : -1; };
    if (!o.hidden.empty() && int(o.hidden.size()) != n_layers - 1)
        throw std::invalid_argument("layers: expected one for each hidden layer");
    for (int l = 0; l < n_layers; ++l) {
        const size_t in = sizes[l], out = sizes[l + 1];
        if (masks[l].size() != in * out) throw std::invalid_argument("masks: sizes do not fit the transform");
        check_added(adds(l), l, sizes);
        BitRows rows(out, n_reads);
        for (size_t u = 0; u < out; ++u) {
            for (size_t k = 0; k < in; ++k)
                if (masks[l][u * in + k]) rows.merge(u, reach[l], k);
            if (adds(l) >= 0) rows.merge(u, reach[size_t(adds(l)) + 1], u);
        }
        reach.push_back(std::move(rows));
    }
    const std::vector<int> levels = levels_of(o, reach.back(), n_params);
    int max_level = 1;
    for (int c : o.active) max_level = std::max(max_level, levels[c]);
    // A dead unit reaches no output. A dead unit gets the degree max_level, which no output reads, and is never
    // computed.
    std::vector<std::vector<int>> degrees(n_layers - 1);
    std::vector<std::vector<bool>> live(sizes.size());  // whether each input of each layer reaches an output; the last
                                                        // entry is for the outputs
    for (size_t i = 0; i < sizes.size(); ++i) live[i].assign(size_t(sizes[i]), i + 1 == sizes.size());
    for (int l = n_layers - 1; l > 0; --l) {
        std::vector<bool>& below = live[l];
        for (size_t u = 0; u < live[l + 1].size(); ++u) {
            if (!live[l + 1][u]) continue;
            for (int k = 0; k < sizes[l]; ++k)
                if (masks[l][u * sizes[l] + k]) below[k] = true;
            if (adds(l) >= 0) live[size_t(adds(l)) + 1][u] = true;
        }
        auto& degree = degrees[l - 1];
        degree.assign(sizes[l], 0);
        for (int u = 0; u < sizes[l]; ++u) {
            for (size_t i = 0; i < n_reads; ++i)
                if (reach[l].test(u, i)) degree[u] = std::max(degree[u], levels[o.reads[i]]);
            if (!below[u]) degree[u] = max_level;
        }
    }
    const auto made = std::make_shared<MaskedConditioner>(std::move(o), levels, std::move(degrees));
    MaskedConditioner& t = *made;
    bool any = !t.pinned_.empty();
    std::vector<bool> pinned = any ? t.pinned_ : std::vector<bool>(t.n_weights_, false);
    for (int l = 0; l < n_layers; ++l) {
        const LayerShape& layer = t.layers_[size_t(t.n_context_layers_) + size_t(l)];
        const std::vector<int> inputs = t.columns_of(layer);
        for (int u = 0; u < layer.out; ++u)
            for (int k = 0; k < layer.visible[u]; ++k)
                if (!masks[l][size_t(layer.order[u]) * layer.in + inputs[k]]) pinned[layer.row[u] + k] = any = true;
    }
    if (any) t.pinned_ = std::move(pinned);
    return made;
}

void MaskedConditioner::lay_out() {
    const int n_reads = int(reads().size());
    std::vector<int> input_level(n_reads + context(), 0);
    for (int i = 0; i < n_reads; ++i) input_level[i] = levels_[reads()[i]];
    input_order_ = sorted_places(input_level);
    for (int i : input_order_) {
        input_level_.push_back(input_level[i]);
        if (i < n_reads) read_order_.push_back(reads()[i]);
    }
    for (int c : active()) max_level_ = std::max(max_level_, levels_[c]);

    std::vector<int> output_level;
    if (is_joint()) {
        output_level.assign(outputs(), max_level_);
    } else {
        for (int c : active()) output_level.insert(output_level.end(), outputs(), levels_[c]);
    }
    uint64_t offset = 0;
    const std::vector<int> context_degree(size_t(context()), 0);
    std::vector<int> joins;  // for each layer that reads only the context, the hidden layer that it joins
    for (size_t l = 0; l < degrees_.size(); ++l) {
        if (hidden_[l].context.empty()) continue;
        std::vector<int> degree = degrees_[l];  // a unit that joins a dead unit is dead
        for (int& d : degree) d = d == max_level_ ? max_level_ : 0;
        LayerShape layer = shape_of(std::move(degree), context_degree, false);
        layer.activation = find_activation(hidden_[l].context_activation);
        layer.context_alone = true;
        place_weights(layer, offset);
        layers_.push_back(std::move(layer));
        joins.push_back(int(l));
    }
    n_context_layers_ = int(joins.size());
    for (size_t l = 0; l <= degrees_.size(); ++l) {
        const bool output = l == degrees_.size(), first = l == 0;
        LayerShape layer =
            shape_of(output ? output_level : degrees_[l], first ? input_level_ : layers_.back().degree, output);
        layer.below = first ? -1 : int(layers_.size()) - 1;
        layer.activation = output ? identity_index : find_activation(hidden_[l].activation);
        layer.dropout = output ? 0 : hidden_[l].dropout;
        if (!output && hidden_[l].adds >= 0) layer.adds = n_context_layers_ + hidden_[l].adds;
        const auto joined = std::find(joins.begin(), joins.end(), int(l));
        if (joined != joins.end()) layer.context = int(joined - joins.begin());
        layer.gated = layer.context >= 0 && hidden_[l].context == "gate";
        place_weights(layer, offset);
        layers_.push_back(std::move(layer));
    }
    n_weights_ = uint32_t(offset);
    padding_ = padding_of_layers();
    if (is_joint()) active_order_ = active();
    for (size_t r = 0; !is_joint() && r < layers_.back().order.size(); r += outputs())
        active_order_.push_back(active()[layers_.back().order[r] / outputs()]);
}

// The shape of a layer whose units have the degrees `degree`, in the user's order, and read units of the degrees
// `below`.
MaskedConditioner::LayerShape MaskedConditioner::shape_of(std::vector<int> degree, const std::vector<int>& below,
                                                          bool output) const {
    LayerShape layer;
    layer.in = int(below.size());
    layer.out = int(degree.size());
    layer.order = sorted_places(degree);
    for (int u : layer.order) {
        layer.degree.push_back(degree[u]);
        // A hidden unit of degree d reads units whose degree is at most d; an output of level l reads units whose
        // degree is below l.
        const int limit = output ? degree[u] - 1 : degree[u];
        layer.visible.push_back(int(std::upper_bound(below.begin(), below.end(), limit) - below.begin()));
    }
    return layer;
}

void MaskedConditioner::place_weights(LayerShape& layer, uint64_t& offset) {
    for (int u = 0; u < layer.out; u += row_block) {
        const int end = std::min(layer.out, u + row_block), length = padded(layer.visible[end - 1]);
        for (int i = u; i < end; ++i, offset += length) layer.row.push_back(uint32_t(offset));
    }
    layer.bias = uint32_t(offset);
    offset += padded(layer.out);
    if (offset > std::numeric_limits<uint32_t>::max() / 2)
        throw std::invalid_argument("hidden: the network has more than 2^31 weights");
}

// A skip connection may only add units of equal or lower degree, and each layer can be added at most once.
void MaskedConditioner::check_hidden() const {
    const auto& hidden = hidden_;
    if (hidden.size() != degrees_.size()) throw std::invalid_argument("layers: expected one for each hidden layer");
    std::vector<int> sizes{0};
    for (const auto& degree : degrees_) sizes.push_back(int(degree.size()));
    std::vector<bool> added(hidden.size(), false);
    for (size_t l = 0; l < hidden.size(); ++l) {
        const std::string name = "layers[" + std::to_string(l) + "]";
        const HiddenOptions& h = hidden[l];
        if (h.adds < -1) throw std::invalid_argument(name + ".adds: expected a layer, or -1 for none");
        if (!h.context.empty() && h.context != "add" && h.context != "gate")
            throw std::invalid_argument(name + ".context: expected 'add', 'gate' or nothing, got '" + h.context + "'");
        if (!h.context.empty() && context() == 0)
            throw std::invalid_argument(name + ".context: expected none where no context is read, got '" + h.context +
                                        "'");
        if (!(h.dropout >= 0 && h.dropout < 1))
            throw std::invalid_argument(name + ".dropout: expected a number of at least 0 and below 1");
        check_added(h.adds, int(l), sizes);
        if (h.adds < 0) continue;
        if (added[size_t(h.adds)])
            throw std::invalid_argument(name + ".adds: expected a layer that no other one adds, got " +
                                        std::to_string(h.adds));
        added[size_t(h.adds)] = true;
        for (size_t u = 0; u < degrees_[l].size(); ++u)
            if (degrees_[size_t(h.adds)][u] > degrees_[l][u])
                throw std::invalid_argument(name + ".adds: unit " + std::to_string(u) +
                                            " adds a unit of a higher degree than its own");
    }
}

std::vector<int> MaskedConditioner::places(int layer) const {
    const auto& order = layers_[size_t(layer)].order;
    std::vector<int> places(order.size());
    for (size_t i = 0; i < order.size(); ++i) places[size_t(order[i])] = int(i);
    return places;
}

// The columns of the context come first among the sorted inputs of the network; layers that read only the context have
// no other columns.
std::vector<int> MaskedConditioner::columns_of(const LayerShape& layer) const {
    if (layer.below >= 0) return layers_[size_t(layer.below)].order;
    std::vector<int> columns(input_order_.begin(), input_order_.begin() + layer.in);
    if (layer.context_alone)
        for (int& column : columns) column -= int(reads().size());
    return columns;
}

void MaskedConditioner::pin_biases(const std::vector<int>& rows) {
    if (rows.empty()) return;
    const LayerShape& layer = layers_.back();
    std::vector<bool> unbiased(size_t(layer.out), false);
    for (int row : rows) {
        if (row < 0 || row >= layer.out) throw std::invalid_argument("unbiased: expected rows of the last layer");
        unbiased[size_t(row)] = true;
    }
    pinned_.assign(n_weights_, false);
    for (int u = 0; u < layer.out; ++u) pinned_[layer.bias + u] = unbiased[size_t(layer.order[u])];
}

bool MaskedConditioner::reads_passive_only() const {
    return std::none_of(reads_.begin(), reads_.end(),
                        [&](int c) { return std::find(active_.begin(), active_.end(), c) != active_.end(); });
}

int MaskedConditioner::first_of_degree(int layer, int degree) const {
    const auto& d = layers_[layer].degree;
    return int(std::lower_bound(d.begin(), d.end(), degree) - d.begin());
}

int MaskedConditioner::live_units(int layer) const {
    return layer + 1 == int(layers_.size()) ? layers_[layer].out : first_of_degree(layer, max_level_);
}

int MaskedConditioner::inputs_up_to(int level) const {
    return int(std::upper_bound(input_level_.begin(), input_level_.end(), level) - input_level_.begin());
}

int MaskedConditioner::coordinates_up_to(int level) const {
    const int units = first_of_degree(int(layers_.size()) - 1, level + 1);
    if (is_joint()) return level < max_level_ ? 0 : int(active_order_.size());
    return outputs() > 0 ? units / outputs() : 0;
}

// ---- weights

std::vector<WeightRange> MaskedConditioner::parts() const {
    std::vector<WeightRange> parts;
    int64_t begin = 0;
    for (const LayerShape& layer : layers_) {
        const int64_t end = layer.bias + padded(layer.out);
        parts.push_back({begin, layer.bias, false});
        parts.push_back({layer.bias, end, true});
        begin = end;
    }
    return parts;
}

// Blocks of the staircase of weights: units of one degree, or of several degrees with the same inputs.
std::vector<WeightBlock> MaskedConditioner::blocks() const {
    std::vector<WeightBlock> blocks;
    if (layers_.size() == 1) return blocks;  // a linear map, such as a factor of an LU decomposition
    for (const LayerShape& layer : layers_) {
        int columns = 0;
        for (int u = 0; u < layer.out; ++u) {
            if (layer.visible[u] == 0) continue;
            if (layer.visible[u] != columns) blocks.push_back({0, {}, columns = layer.visible[u]});
            blocks.back().row.push_back(layer.row[u]);
        }
    }
    return blocks;
}

std::vector<Tensor> MaskedConditioner::tensors() const {
    std::vector<Tensor> tensors;
    for (int l = 0; l < int(layers_.size()); ++l) {
        const LayerShape& layer = layers_[l];
        std::string name = "layers." + std::to_string(l - n_context_layers_);
        if (layer.context_alone) {
            const auto joined = std::find_if(layers_.begin(), layers_.end(),
                                             [&](const LayerShape& other) { return other.context == l; });
            name = "layers." + std::to_string(joined - layers_.begin() - n_context_layers_) + ".context";
        }
        tensors.push_back({name + ".weight", {layer.out, layer.in}});
        tensors.push_back({name + ".bias", {layer.out}});
    }
    return tensors;
}

template <class T>
void MaskedConditioner::pack_as(const std::vector<const T*>& tensors, T* weights) const {
    std::fill_n(weights, n_weights_, T(0));
    for (size_t l = 0; l < layers_.size(); ++l) {
        const LayerShape& layer = layers_[l];
        const std::vector<int> inputs = columns_of(layer);
        const T *const weight = tensors[2 * l], *const bias = tensors[2 * l + 1];
        for (int u = 0; u < layer.out; ++u) {
            const T* from = weight + size_t(layer.order[u]) * layer.in;
            for (int k = 0; k < layer.visible[u]; ++k)
                if (!is_pinned(layer.row[u] + k)) weights[layer.row[u] + k] = from[inputs[k]];
            if (!is_pinned(layer.bias + u)) weights[layer.bias + u] = bias[layer.order[u]];
        }
    }
}

template <class T>
void MaskedConditioner::unpack_as(const T* weights, const std::vector<T*>& tensors) const {
    for (size_t l = 0; l < layers_.size(); ++l) {
        const LayerShape& layer = layers_[l];
        const std::vector<int> inputs = columns_of(layer);
        T *const weight = tensors[2 * l], *const bias = tensors[2 * l + 1];
        std::fill_n(weight, size_t(layer.out) * layer.in, T(0));
        for (int u = 0; u < layer.out; ++u) {
            T* to = weight + size_t(layer.order[u]) * layer.in;
            for (int k = 0; k < layer.visible[u]; ++k) to[inputs[k]] = weights[layer.row[u] + k];
            bias[layer.order[u]] = weights[layer.bias + u];
        }
    }
}

void MaskedConditioner::mask(int l, uint8_t* mask) const {
    const LayerShape& layer = layers_.at(l);
    const std::vector<int> inputs = columns_of(layer);
    std::fill_n(mask, size_t(layer.out) * layer.in, uint8_t(0));
    for (int u = 0; u < layer.out; ++u)
        for (int k = 0; k < layer.visible[u]; ++k)
            mask[size_t(layer.order[u]) * layer.in + inputs[k]] = !is_pinned(layer.row[u] + k);
}

std::vector<MaskedConditioner::Padding> MaskedConditioner::padding_of_layers() const {
    std::vector<Padding> all;
    const auto add = [&](uint32_t begin, int count) {
        if (count > 0) all.push_back({begin, uint32_t(count)});
    };
    for (const LayerShape& layer : layers_) {
        for (int u = 0; u < layer.out; ++u) {
            const int last = std::min(layer.out, u / row_block * row_block + row_block) - 1, seen = layer.visible[u];
            add(layer.row[u] + uint32_t(seen), padded(layer.visible[last]) - seen);
        }
        add(layer.bias + uint32_t(layer.out), padded(layer.out) - layer.out);
    }
    return all;
}

template <class T>
void MaskedConditioner::clear_masked_in(T* weights) const {
    for (const Padding& one : padding_) clear_values(weights + one.begin, one.count);
    if (!pinned_.empty())
        for (uint32_t i = 0; i < n_weights_; ++i)
            if (pinned_[i]) weights[i] = T(0);
}

template <class T>
void MaskedConditioner::clear_dead_in(T* gradient) const {
    for (int l = 0; l < int(layers_.size()); ++l) {
        const LayerShape& layer = layers_[l];
        for (int u = live_units(l); u < layer.out; ++u) {
            std::fill_n(gradient + layer.row[u], layer.visible[u], T(0));
            gradient[layer.bias + u] = T(0);
        }
    }
}

// ---- products in bf16

MaskedConditioner::RoundedLayers MaskedConditioner::place_rounded(const Bf16Layout& layout) const {
    const auto pairs_before = [&](int n) { return int64_t(n / layout.step) * (layout.step / 2); };
    const auto pairs_with = [&](int n) { return pairs_before(n + layout.step - 1); };
    RoundedLayers all;
    int64_t pairs = 0, back = 0;
    for (const LayerShape& layer : layers_) {
        RoundedLayer r{};
        for (int u = 0; u < layer.out; u += bf16_units) {
            r.block.push_back(uint32_t(pairs));
            pairs += pairs_with(layer.visible[size_t(std::min(layer.out, u + bf16_units)) - 1]) * bf16_units;
        }
        r.block.push_back(uint32_t(pairs));
        for (int k = 0; k < layer.in; k += bf16_units) {
            const auto first =
                std::upper_bound(layer.visible.begin(), layer.visible.end(), k / layout.units * layout.units) -
                layer.visible.begin();
            r.back.push_back(back - pairs_before(int(first)) * bf16_units);
            back += (pairs_with(layer.out) - pairs_before(int(first))) * bf16_units;
        }
        r.layer = {nullptr, layer.row.data(), layer.visible.data(), layer.in, layer.out, r.block.data(), r.back.data()};
        all.layers.push_back(std::move(r));
    }
    const size_t parts(layout.parts), of_rows = size_t(pairs) * parts * size_t(layout.row_words);
    const size_t of_tiles = layout.apart ? size_t(pairs) * parts * size_t(layout.words) : 0;
    all.pairs = {of_rows + of_tiles, size_t(back) * parts * size_t(layout.words), layout.apart ? of_rows : 0};
    return all;
}

Conditioner::Pairs MaskedConditioner::n_pairs(const Bf16Layout& layout) const {
    return place_rounded(layout).pairs;
}

std::vector<RoundedLayer> MaskedConditioner::rounded(const Bf16Layout& layout) const {
    return place_rounded(layout).layers;
}

size_t MaskedConditioner::n_folded() const {
    size_t n = 0;
    for (const LayerShape& layer : layers_)
        if (layer.below < 0) n += size_t(layer.out);
    return n;
}

#define HR_INSTANTIATE(T)                                                               \
    template void MaskedConditioner::pack_as(const std::vector<const T*>&, T*) const;   \
    template void MaskedConditioner::unpack_as(const T*, const std::vector<T*>&) const; \
    template void MaskedConditioner::clear_masked_in(T*) const;                         \
    template void MaskedConditioner::clear_dead_in(T*) const;
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
