// A masked network: levels of coordinates, degrees of hidden units, and the position of each weight.
//
// Each coordinate has a level, 1, 2, ...; a hidden unit has a degree, the highest level of the coordinates that it
// reads (0: context or bias only). Inputs are sorted with the context first, then by level, hidden units by degree, and
// outputs by level. In this order the inputs of a unit are a prefix of the layer below, and every weight matrix is a
// staircase.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../conditioner.hpp"
#include "../views.hpp"

namespace headrace {

// Options of a hidden layer other than its weights.
struct HiddenOptions {
    std::string activation;
    int adds = -1;  // the earlier hidden layer whose sums (before activation) are added to this layer's sums; -1: none
    std::string
        context;  // a layer that reads only context is added to the product ("add") or multiplies it ("gate"); "": none
    std::string context_activation;  // activation of the layer that reads only the context
    double dropout = 0;              // the share of the layer's values that are dropped in training
};

struct MaskedOptions {
    int features = 0, context = 0;
    std::vector<int> reads;   // coordinates that the network reads, in the order of its columns; the context follows
    std::vector<int> active;  // coordinates whose parameters the network computes, in the order of its rows
    int outputs = 0;          // number of outputs for each coordinate, or, if `joint`, for all coordinates together
    bool joint = false;
    std::string activation;
    std::vector<HiddenOptions> hidden;  // options of each hidden layer; empty: only activations
    std::vector<int> unbiased;          // rows of the output whose bias is zero and stays zero
};

class MaskedConditioner final : public ConditionerOf<MaskedConditioner> {
  public:
    // A network with the level of every coordinate, and the degree of every hidden unit, layer by layer, in the user's
    // order.
    MaskedConditioner(MaskedOptions options, std::vector<int> levels, std::vector<std::vector<int>> degrees);

    // A network whose levels and degrees follow from masks, (out, in) row-major, one for each layer; layers that read
    // only the context have no mask. Throws std::invalid_argument for a cycle of dependencies.
    static std::shared_ptr<MaskedConditioner> from_masks(MaskedOptions options,
                                                         const std::vector<std::vector<uint8_t>>& masks,
                                                         const std::vector<int>& sizes);

    // Shapes of layers. Layers that read only the context come first, then the layers of the network in order.
    struct LayerShape {
        int in = 0, out = 0;
        int below = -1;  // the layer whose units this layer reads; -1: the inputs
        int activation = 0;
        int adds = -1;     // the layer whose sums are added to this layer's sums
        int context = -1;  // the layer that reads only the context and joins this layer
        bool gated = false;
        bool context_alone = false;
        double dropout = 0;
        std::vector<int> order;     // the user's unit for each sorted index
        std::vector<int> degree;    // degree of each sorted unit; the degree of an output is the level of its
                                    // coordinate
        std::vector<int> visible;   // number of sorted inputs that each sorted unit reads
        std::vector<uint32_t> row;  // offset of each unit's weights
        uint32_t bias = 0;
    };

    const std::vector<LayerShape>& layers() const { return layers_; }
    int n_context_layers() const { return n_context_layers_; }
    bool is_output(int layer) const { return layer + 1 == int(layers_.size()); }
    // For each of the user's units of a layer, its index in the order of degrees.
    std::vector<int> places(int layer) const;
    int max_level() const { return max_level_; }
    // The first sorted unit of a hidden layer, or of the output layer, whose degree is at least `degree`.
    int first_of_degree(int layer, int degree) const;
    // The number of computed units of a layer, which are its first units; units of degree max_level are dead.
    int live_units(int layer) const;
    // The number of sorted inputs whose level is at most `level`; the context has level 0.
    int inputs_up_to(int level) const;
    // The number of active coordinates whose level is at most `level`.
    int coordinates_up_to(int level) const;
    // Writes the dense mask of a layer, (out, in).
    void mask(int layer, uint8_t* mask) const;

    int features() const { return features_; }
    const std::vector<int>& reads() const { return reads_; }
    const std::vector<int>& active() const { return active_; }

    bool fits(int features) const override { return features == features_; }
    std::vector<int> read_order(int) const override { return read_order_; }
    std::vector<int> active_order(int) const override { return active_order_; }
    bool reads_passive_only() const override;
    bool is_constant() const override { return layers_.size() == 1 && layers_[0].in == 0; }

    uint32_t n_weights() const override { return n_weights_; }
    std::vector<WeightRange> parts() const override;
    std::vector<WeightBlock> blocks() const override;
    std::vector<Tensor> tensors() const override;
    template <class T>
    void pack_as(const std::vector<const T*>& tensors, T* weights) const;
    template <class T>
    void unpack_as(const T* weights, const std::vector<T*>& tensors) const;
    template <class T>
    void clear_masked_in(T* weights) const;
    template <class T>
    void clear_dead_in(T* gradient) const;

    Bf16Layout bf16(const Bf16Layout& of_program) const override {
        return layers_.size() > 1 ? of_program : Bf16Layout{};  // a network without hidden layers has exact products
    }
    Pairs n_pairs(const Bf16Layout& layout) const override;
    std::vector<RoundedLayer> rounded(const Bf16Layout& layout) const override;
    size_t n_folded() const override;

    template <class T>
    Lowered<T> lower_as(Kept& kept, const ChainSide& side) const;

  private:
    void check_hidden() const;
    void lay_out();
    LayerShape shape_of(std::vector<int> degree, const std::vector<int>& below, bool output) const;
    void place_weights(LayerShape& layer, uint64_t& offset);
    struct Padding {
        uint32_t begin, count;
    };
    std::vector<Padding> padding_of_layers() const;
    // The user's unit, or the column of the input, for each sorted index of a layer's inputs.
    std::vector<int> columns_of(const LayerShape& layer) const;
    void pin_biases(const std::vector<int>& unbiased);
    bool is_pinned(uint32_t place) const { return !pinned_.empty() && pinned_[place]; }
    struct RoundedLayers {
        std::vector<RoundedLayer> layers;
        Pairs pairs;
    };
    RoundedLayers place_rounded(const Bf16Layout& layout) const;

    int features_;
    std::vector<int> reads_, active_;
    std::vector<HiddenOptions> hidden_;
    std::vector<int> levels_, input_order_, input_level_, read_order_, active_order_;
    std::vector<std::vector<int>> degrees_;
    std::vector<LayerShape> layers_;
    std::vector<bool> pinned_;      // for each weight, whether it is fixed at zero inside the staircase or among the
                                    // biases
    std::vector<Padding> padding_;  // computed once, because training clears padding several times in a step
    int max_level_ = 0, n_context_layers_ = 0;
    uint32_t n_weights_ = 0;
};

}  // namespace headrace
