// The structure of a masked transform: levels of coordinates, degrees of hidden units, and where each weight lies.
//
// Coordinates carry a level, 1, 2, ...; a hidden unit carries the highest level it reaches, its degree (0: context or
// bias only). Inputs are sorted context first, then by level, units by degree, outputs by level; then what a unit sees
// is a prefix of the layer below it, and every weight matrix is a staircase.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../maps.hpp"
#include "../views.hpp"

namespace headrace {

// Rows of weights and biases take whole vectors.
inline int padded(int n) {
    return (n + row_padding - 1) / row_padding * row_padding;
}

// One weight matrix, dense, row-major (out, in), in the user's order of units.
template <class T>
struct DenseLayer {
    int out, in;
    const T* weight;
    const T* bias;
};

// What a hidden layer does beside its product.
struct HiddenOptions {
    std::string activation;
    int adds = -1;  // the earlier hidden layer whose sums, before its activation, are added to its own; -1: none
    std::string
        context;  // a layer of the context alone is added to the product ("add") or multiplies it ("gate"); or ""
    std::string context_activation;  // of that layer
    double dropout = 0;              // the share of its values that are left out while it is trained
};

struct MaskedOptions {
    int features = 0, context = 0;
    std::vector<int> reads;   // the coordinates that the network reads, in the order of its columns; context follows
    std::vector<int> active;  // the coordinates that it gives parameters for, in the order of its rows
    std::string map, variant, activation;  // variant: of affine, its scale
    std::vector<HiddenOptions> hidden;     // of each hidden layer; empty: the activation, and nothing else
    double slope = 1e-3, bound = 5, min_bin = 1e-3;
    std::optional<double> low;  // empty: -bound
    int bins = 8;
    bool reads_data = true;       // the conditioner sees x, or z
    bool formula_to_data = true;  // the map's forward direction gives x, or z
    std::vector<int> unbiased;    // rows whose bias is no weight: it is zero and stays zero
};

class MaskedTransform {
  public:
    // levels: of every coordinate. degrees: of every hidden unit, layer by layer, in the user's order.
    MaskedTransform(MaskedOptions options, std::vector<int> levels, std::vector<std::vector<int>> degrees);

    // Levels and degrees from masks, (out, in) row-major, one a layer of the network: a layer of the context alone has
    // none. Throws std::invalid_argument for a cycle.
    static MaskedTransform from_masks(MaskedOptions options, const std::vector<std::vector<uint8_t>>& masks,
                                      const std::vector<int>& sizes);

    // Layers that read the context alone come first, then those of the network one after another.
    struct LayerShape {
        int in = 0, out = 0;
        int below = -1;  // the layer whose units it reads; -1: the inputs
        int activation = 0;
        int adds = -1;     // the layer whose sums are added to its own
        int context = -1;  // the layer of context alone that joins it
        bool gated = false;
        bool context_alone = false;
        double dropout = 0;
        std::vector<int> order;     // the user's unit at each sorted place
        std::vector<int> degree;    // of each sorted unit; of an output the level of its coordinate
        std::vector<int> visible;   // each sorted unit sees so many of the sorted inputs
        std::vector<uint32_t> row;  // offset of each unit's weights
        uint32_t bias = 0;
    };

    const MaskedOptions& options() const { return options_; }
    const std::vector<int>& levels() const { return levels_; }
    const std::vector<LayerShape>& layers() const { return layers_; }
    const std::vector<int>& input_order() const { return input_order_; }    // the user's column at each sorted place
    const std::vector<int>& active_order() const { return active_order_; }  // active coordinates by level
    int map() const { return map_; }
    // The index of the vector map that all outputs together are the parameters of, or -1.
    int vector_map() const { return vector_map_; }
    int n_context_layers() const { return n_context_layers_; }
    bool is_output(int layer) const { return layer + 1 == int(layers_.size()); }
    // The unit's place in the order of degrees, for each of the user's units of a layer.
    std::vector<int> places(int layer) const;
    // Outputs for each active coordinate; of a vector map, all outputs.
    int n_params() const { return n_params_; }
    int max_level() const { return max_level_; }
    uint32_t n_weights() const { return n_weights_; }
    // True if what the network reads is never transformed: then both directions are parallel.
    bool reads_passive_only() const;
    // The first sorted unit of hidden layer l (or output) whose degree is at least d.
    int first_of_degree(int layer, int degree) const;
    // So many units of a layer are computed: the first ones; units of degree max_level are dead.
    int live_units(int layer) const;
    // So many sorted inputs have a level (context: 0) of at most `level`.
    int inputs_up_to(int level) const;

    // Dense layers to the weight vector and back; masked entries are dropped, and come back as zero.
    template <class T>
    void pack(const std::vector<DenseLayer<T>>& dense, T* weights) const;
    template <class T>
    void unpack(const T* weights, int layer, T* weight, T* bias) const;
    void mask(int layer, uint8_t* mask) const;
    // Sets everything to zero that is not a weight: padding, and what the masks hide.
    template <class T>
    void clear_masked(T* weights) const;
    // The same for a gradient, where nothing flows into dead units either.
    template <class T>
    void clear_dead(T* gradient) const;

  private:
    void check_hidden() const;
    void lay_out();
    LayerShape shape_of(std::vector<int> degree, const std::vector<int>& below, bool output) const;
    void place_weights(LayerShape& layer, uint64_t& offset);
    // The user's unit, or column, at each sorted place of what a layer reads.
    std::vector<int> columns_of(const LayerShape& layer) const;
    void pin_biases();
    bool is_pinned(uint32_t place) const { return !pinned_.empty() && pinned_[place]; }

    MaskedOptions options_;
    std::vector<int> levels_, input_order_, input_level_, active_order_;
    std::vector<std::vector<int>> degrees_;
    std::vector<LayerShape> layers_;
    std::vector<bool> pinned_;  // by place in the weight vector: zeros inside the staircase and among the biases
    int map_ = 0, vector_map_ = -1, n_params_ = 0, max_level_ = 0, n_context_layers_ = 0;
    uint32_t n_weights_ = 0;
};

}  // namespace headrace
