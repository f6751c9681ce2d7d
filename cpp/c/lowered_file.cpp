#include "lowered_file.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <variant>

#include "../core/conditioners/masked.hpp"
#include "../math/lane.hpp"

namespace headrace {
namespace {

template <class T>
using Values = std::vector<T>;

// A network step whose conditioner is not yet constructed, because the columns that the step uses may still change.
template <class T>
struct Network {
    bool inverted = false, reads_data = false;
    MaskedOptions options;
    MapSettings map;
    bool has_levels = true;  // false: the structure follows from masks
    std::vector<int> levels;
    std::vector<std::vector<int>> degrees;
    std::vector<std::vector<uint8_t>> masks;
    std::vector<Values<T>> tensors;
};

template <class T>
using Draft = std::variant<Network<T>, StepSpec>;
template <class T>
using Drafts = std::vector<Draft<T>>;

std::vector<int> first_integers(int n) {
    std::vector<int> all(static_cast<size_t>(n));
    std::iota(all.begin(), all.end(), 0);
    return all;
}
std::vector<int> inverse_order(const std::vector<int>& order) {
    std::vector<int> back(order.size());
    for (size_t i = 0; i < order.size(); ++i) back[size_t(order[i])] = int(i);
    return back;
}

MapSettings settings_named(const char* name, const char* variant) {
    MapSettings s;
    s.name = name;
    s.variant = variant;
    return s;
}
const std::string& name_of(detail::Activation activation) {
    return detail::activation_names()[size_t(activation)];
}

// A map of all coordinates by a network without inputs, whose biases are the map's raw parameters.
template <class T>
Network<T> constant(bool inverted, int features, MapSettings map, Values<T> biases) {
    Network<T> network;
    network.inverted = inverted;
    network.options.features = features;
    network.options.active = first_integers(features);
    network.options.activation = "relu";
    network.map = std::move(map);
    network.levels.assign(size_t(features), 1);
    network.tensors = {{}, std::move(biases)};
    return network;
}
template <class T, class Number>
Values<T> pairs(const std::vector<Number>& first, const std::vector<Number>& second) {
    Values<T> both;
    for (size_t i = 0; i < first.size(); ++i) {
        both.push_back(T(first[i]));
        both.push_back(T(second[i]));
    }
    return both;
}
template <class T, class Number>
Network<T> lines(bool inverted, const std::vector<Number>& shift, const std::vector<Number>& log_scale) {
    return constant<T>(inverted, int(shift.size()), settings_named("affine", "exp"), pairs<T>(shift, log_scale));
}

// Makes the drafts of a description, in the order of a program from latent to data; where `inverted`, from data to
// latent.
template <class T>
class Drafting {
  public:
    static Drafts<T> of(detail::TransformDescription<T>& d, bool inverted) {
        return std::visit([&](auto& own) { return made(d, own, inverted); }, d.kind);
    }

  private:
    using D = detail::TransformDescription<T>;

    static Drafts<T> one(Draft<T> draft) {
        Drafts<T> drafts;
        drafts.push_back(std::move(draft));
        return drafts;
    }

    static Drafts<T> made(const D& d, detail::MaskedDescription<T>& own, bool inverted) {
        Network<T> network = described(own.layers);
        network.inverted = inverted;
        network.reads_data = own.reads_data;
        network.options.features = d.features;
        network.options.context = d.context;
        network.options.reads = std::move(own.reads);
        network.options.active = std::move(own.active);
        network.map = settings_of(own.map);
        network.has_levels = own.has_levels;
        network.levels = std::move(own.levels);
        network.degrees = std::move(own.degrees);
        if (!own.has_levels) check_derivable(d, network, own.map.n_params());
        order_outputs(network, own.place);
        return one(std::move(network));
    }

    static Drafts<T> made(const D& d, detail::VectorDescription<T>& own, bool inverted) {
        MapSettings map = settings_named(own.is_planar ? "planar" : "radial", "");
        if (own.is_planar) map.variant = own.is_tanh ? "tanh" : "leaky_relu";
        map.slope = own.negative_slope;
        if (d.context == 0)
            return one(constant<T>(inverted, d.features, std::move(map), Values<T>(own.raw.begin(), own.raw.end())));
        Network<T> network = described(own.layers);
        network.inverted = inverted;
        network.options.features = d.features;
        network.options.context = d.context;
        network.options.active = first_integers(d.features);
        network.map = std::move(map);
        network.levels.assign(size_t(d.features), 1);
        for (size_t l = 0; l + 1 < own.layers.dense.size(); ++l)
            network.degrees.emplace_back(network.tensors[2 * l + 1].size(), 0);
        return one(std::move(network));
    }

    static Drafts<T> made(const D& d, detail::ElementwiseDescription<T>& own, bool inverted) {
        Network<T> network = constant<T>(inverted, d.features, settings_of(own.map), std::move(own.params));
        network.reads_data = true;
        return one(std::move(network));
    }
    static Drafts<T> made(const D&, const detail::ActNormDescription<T>& own, bool inverted) {
        return one(lines<T>(inverted, own.shift, own.log_scale));
    }

    // Drafts of a linear map: two triangular factors with the diagonal between them, then signs and the order.
    static Drafts<T> made(const D& d, detail::LinearDescription<T>& own, bool inverted) {
        const int n = d.features;
        const std::vector<int> all = first_integers(n), back = inverse_order(own.order);
        const size_t size = size_t(n);
        if (own.fixed) return made_fixed(own, *own.fixed, inverted);
        Values<T> zeros(size), bias(size);
        for (size_t i = 0; i < bias.size(); ++i) bias[size_t(own.order[i])] = own.shift[i] * T(own.signs[i]);
        Network<T> upper = triangle(inverted, n, std::move(own.upper), zeros);
        for (int c = 0; c < n; ++c) upper.levels[size_t(c)] = n - c;
        upper.options.unbiased = all;
        Network<T> diagonal = lines<T>(inverted, zeros, own.log_diagonal);
        for (int c = 0; c < n; ++c) diagonal.options.unbiased.push_back(2 * c);
        Network<T> lower = triangle(inverted, n, std::move(own.lower), std::move(bias));
        for (int c = 0; c < n; ++c) lower.levels[size_t(c)] = c + 1;
        Drafts<T> drafts;
        drafts.push_back(std::move(upper));
        drafts.push_back(std::move(diagonal));
        drafts.push_back(std::move(lower));
        if (std::count(own.signs.begin(), own.signs.end(), -1) > 0) {
            std::vector<double> signs(size);
            for (size_t c = 0; c < size; ++c) signs[c] = own.signs[size_t(back[c])];
            drafts.push_back(StepSpec(RotationSpec{inverted, std::move(signs), std::vector<int>(size_t(n), 1)}));
        }
        if (own.order != all) drafts.push_back(StepSpec(PermutationSpec{inverted ? back : own.order}));
        if (inverted) std::reverse(drafts.begin(), drafts.end());
        return drafts;
    }

    // Drafts of a linear map that is not trainable: products with fixed factors, as in
    // python/headrace/_flow/transforms/linear.py.
    static Drafts<T> made_fixed(const detail::LinearDescription<T>& own,
                                const typename detail::LinearDescription<T>::Fixed& fixed, bool inverted) {
        const size_t size = own.order.size();
        const std::vector<int> all = first_integers(int(size)), back = inverse_order(own.order);
        const auto is_zero = [](double value) { return value == 0.0; };
        const auto has_any = [&](const std::vector<double>& values) {
            return !std::all_of(values.begin(), values.end(), is_zero);
        };
        Drafts<T> drafts;
        const auto add_factor = [&](const std::vector<double>& factor, bool is_lower) {
            std::vector<double> matrix(size * size, 0.0);
            for (size_t i = 0; i < size; ++i)
                for (size_t k = 0; k < size; ++k)
                    matrix[i * size + k] = i == k ? 1.0 : (k < i) == is_lower ? factor[i * size + k] : 0.0;
            std::vector<double> inverse = inverse_of_unit(matrix, size, is_lower);
            drafts.push_back(StepSpec(RotationSpec{inverted, std::move(matrix), {int(size)}, std::move(inverse)}));
        };
        const std::vector<double> zeros(size, 0.0), ones(size, 1.0);
        if (has_any(fixed.upper)) add_factor(fixed.upper, false);
        if (has_any(fixed.log_diagonal)) {
            std::vector<double> scale(size);
            for (size_t i = 0; i < size; ++i) scale[i] = std::exp(fixed.log_diagonal[i]);
            drafts.push_back(StepSpec(StandardizeSpec{inverted, zeros, std::move(scale)}));
        }
        if (has_any(fixed.lower)) add_factor(fixed.lower, true);
        if (std::count(own.signs.begin(), own.signs.end(), -1) > 0) {
            std::vector<double> signs(size);
            for (size_t c = 0; c < size; ++c) signs[c] = own.signs[size_t(back[c])];
            drafts.push_back(StepSpec(RotationSpec{inverted, std::move(signs), std::vector<int>(size, 1)}));
        }
        if (own.order != all) drafts.push_back(StepSpec(PermutationSpec{inverted ? back : own.order}));
        if (has_any(fixed.shift)) drafts.push_back(StepSpec(StandardizeSpec{inverted, fixed.shift, ones}));
        if (inverted) std::reverse(drafts.begin(), drafts.end());
        return drafts;
    }

    static std::vector<double> inverse_of_unit(const std::vector<double>& matrix, size_t size, bool is_lower) {
        std::vector<double> inverse(size * size, 0.0);
        for (size_t i = 0; i < size; ++i) inverse[i * size + i] = 1.0;
        for (size_t step = 0; step < size; ++step) {
            const size_t i = is_lower ? step : size - 1 - step;
            for (size_t k = is_lower ? 0 : i + 1; k < (is_lower ? i : size); ++k)
                for (size_t j = 0; j < size && matrix[i * size + k] != 0.0; ++j)
                    inverse[i * size + j] -= product(matrix[i * size + k], inverse[k * size + j]);
        }
        return inverse;
    }

    static Drafts<T> made(const D&, detail::RotationDescription& own, bool inverted) {
        return one(StepSpec(RotationSpec{inverted, std::move(own.numbers), std::move(own.sizes)}));
    }
    static Drafts<T> made(const D&, const detail::PermutationDescription& own, bool inverted) {
        return one(StepSpec(PermutationSpec{inverted ? inverse_order(own.order) : own.order}));
    }
    static Drafts<T> made(const D&, const detail::StandardizeDescription& own, bool inverted) {
        if (own.is_identity()) return {};
        return one(StepSpec(StandardizeSpec{inverted, own.mean, own.std}));
    }
    static Drafts<T> made(const D&, const detail::SupportDescription& own, bool inverted) {
        static constexpr Support supports[] = {Support::any,      Support::lower,  Support::upper,
                                               Support::interval, Support::linear, Support::circle};
        if (own.is_identity()) return {};
        SupportSpec spec{inverted, {}, {}, {}};
        for (const detail::SupportEnds& ends : own.columns) {
            spec.supports.push_back(supports[size_t(ends.kind)]);
            spec.low.push_back(ends.low);
            spec.high.push_back(ends.high);
        }
        return one(StepSpec(std::move(spec)));
    }
    static Drafts<T> made(const D& d, detail::GaussianizeDescription& own, bool inverted) {
        const auto map = std::make_shared<const TransformMap>(settings_of(own.map));
        Drafts<T> drafts = one(StepSpec(MarginalSpec{inverted, map, std::move(own.params)}));
        const detail::StandardizeDescription scale{std::move(own.mean), std::move(own.std)};
        for (Draft<T>& draft : made(d, scale, inverted)) drafts.push_back(std::move(draft));
        if (inverted) std::reverse(drafts.begin(), drafts.end());
        return drafts;
    }

    static Drafts<T> made(const D&, detail::InverseDescription<T>& own, bool inverted) {
        return of(*own.inner, !inverted);
    }

    static Drafts<T> made(const D& d, detail::OnColumnsDescription<T>& own, bool inverted) {
        Drafts<T> drafts;
        for (Draft<T>& draft : of(*own.inner, inverted)) {
            if (Network<T>* const network = std::get_if<Network<T>>(&draft)) {
                move_columns(*network, own.columns, d.features);
                drafts.push_back(std::move(draft));
                continue;
            }
            StepSpec& spec = std::get<StepSpec>(draft);
            if (PermutationSpec* const permutation = std::get_if<PermutationSpec>(&spec)) {
                std::vector<int> order = first_integers(d.features);
                for (size_t i = 0; i < own.columns.size(); ++i)
                    order[size_t(own.columns[i])] = own.columns[size_t(permutation->order[i])];
                drafts.push_back(StepSpec(PermutationSpec{std::move(order)}));
                continue;
            }
            turn_columns(std::get<RotationSpec>(spec), own.columns, d.features, drafts);
        }
        return drafts;
    }

    // Adds a rotation of some columns, between permutations that move these columns to the front and back, because the
    // blocks of the rotation follow each other on the diagonal.
    static void turn_columns(RotationSpec turn, const std::vector<int>& columns, int features, Drafts<T>& drafts) {
        std::vector<int> first = columns;
        std::vector<bool> is_moved(size_t(features), false);
        for (const int c : columns) is_moved[size_t(c)] = true;
        for (int c = 0; c < features; ++c)
            if (!is_moved[size_t(c)]) first.push_back(c);
        turn.matrix.resize(turn.matrix.size() + size_t(features) - columns.size(), 1.0);
        turn.blocks.resize(turn.blocks.size() + size_t(features) - columns.size(), 1);
        drafts.push_back(StepSpec(PermutationSpec{first}));
        drafts.push_back(StepSpec(std::move(turn)));
        drafts.push_back(StepSpec(PermutationSpec{inverse_order(first)}));
    }

    static void move_columns(Network<T>& network, const std::vector<int>& columns, int features) {
        for (std::vector<int>* const side : {&network.options.reads, &network.options.active})
            for (int& c : *side) c = columns[size_t(c)];
        network.options.features = features;
        if (!network.has_levels) return;
        std::vector<int> levels(size_t(features), 1);
        for (size_t i = 0; i < columns.size(); ++i) levels[size_t(columns[i])] = network.levels[i];
        network.levels = std::move(levels);
    }

    static Network<T> triangle(bool inverted, int n, Values<T> weight, Values<T> bias) {
        Network<T> network = constant<T>(inverted, n, settings_named("additive", "exp"), {});
        network.options.reads = first_integers(n);
        network.tensors = {std::move(weight), std::move(bias)};
        return network;
    }

    // The network that a file describes, with layers that read only the context before the others.
    static Network<T> described(detail::Layers<T>& layers) {
        Network<T> network;
        network.options.activation = name_of(layers.activation);
        for (size_t l = 0; l < layers.hidden.size(); ++l) {
            const detail::Hidden& hidden = layers.hidden[l];
            HiddenOptions options;
            options.activation = name_of(hidden.activation);
            options.adds = hidden.adds;
            options.dropout = hidden.dropout;
            if (hidden.join >= 0) {
                options.context = hidden.join == 1 ? "gate" : "add";
                options.context_activation = name_of(hidden.context_activation);
                network.tensors.push_back(std::move(layers.dense[l].context_weight));
                network.tensors.push_back(std::move(layers.dense[l].context_bias));
            }
            network.options.hidden.push_back(std::move(options));
        }
        for (detail::DenseLayer<T>& layer : layers.dense) {
            network.masks.emplace_back(layer.mask.begin(), layer.mask.end());
            network.tensors.push_back(std::move(layer.weight));
            network.tensors.push_back(std::move(layer.bias));
        }
        return network;
    }

    // Orders rows of the last layer coordinate by coordinate.
    static void order_outputs(Network<T>& network, const std::vector<size_t>& place) {
        const size_t last = network.tensors.size() - 1, rows = place.size();
        const size_t width = rows ? network.tensors[last - 1].size() / rows : 0;
        const auto ordered = [&](auto& values, size_t columns) {
            auto result = values;
            for (size_t r = 0; r < rows; ++r)
                for (size_t c = 0; c < columns; ++c) result[r * columns + c] = values[place[r] * columns + c];
            values = std::move(result);
        };
        ordered(network.tensors[last - 1], width);
        ordered(network.tensors[last], 1);
        ordered(network.masks.back(), width);
    }

    // Refuses masks if the derivation of a structure would need far more memory than the masks.
    static void check_derivable(const D& d, const Network<T>& network, int n_params) {
        size_t units = 0, size = 0;
        for (const auto& mask : network.masks) size += mask.size();
        for (size_t i = 1; i < network.tensors.size(); i += 2) units += network.tensors[i].size();
        const size_t reads = network.options.reads.size(), active = network.options.active.size();
        const size_t needed = units * reads / 8 + 8 * reads * active;
        if (needed > std::max(size_t(1) << 30, 256 * size) || n_params < 1)
            detail::refuse_at(d.place, "masks: expected what takes less memory to derive a structure from");
    }
};

template <class T>
StepSpec finished(Network<T>& network, std::vector<T>& weights) {
    const auto map = std::make_shared<const TransformMap>(network.map);
    network.options.joint = map->is_vector();
    network.options.outputs = map->n_params(int(network.options.active.size()));
    std::vector<int> sizes{int(network.options.reads.size()) + network.options.context};
    std::shared_ptr<const MaskedConditioner> conditioner;
    if (network.has_levels) {
        conditioner = std::make_shared<const MaskedConditioner>(network.options, network.levels, network.degrees);
    } else {
        const size_t first = network.tensors.size() - 2 * network.masks.size();
        for (size_t l = 0; l < network.masks.size(); ++l)
            sizes.push_back(int(network.tensors[first + 2 * l + 1].size()));
        conditioner = MaskedConditioner::from_masks(network.options, network.masks, sizes);
    }
    const std::vector<Tensor> wanted = conditioner->tensors();
    bool fits = wanted.size() == network.tensors.size();
    std::vector<const T*> values;
    for (size_t i = 0; fits && i < wanted.size(); ++i) {
        int64_t n = 1;
        for (const int64_t size : wanted[i].shape) n *= size;
        fits = n == int64_t(network.tensors[i].size());
        values.push_back(network.tensors[i].data());
    }
    if (!fits) throw std::invalid_argument("layers: expected the tensors of this network");
    const size_t begin = weights.size();
    weights.resize(begin + conditioner->n_weights());
    conditioner->pack(values, weights.data() + begin);
    return NetworkSpec{network.inverted, network.reads_data, map, conditioner};
}

template <class T>
LoweredSteps<T> finished(Drafts<T> drafts, const std::string& place) {
    LoweredSteps<T> lowered;
    try {
        for (Draft<T>& draft : drafts) {
            if (Network<T>* const network = std::get_if<Network<T>>(&draft)) {
                lowered.steps.push_back(finished(*network, lowered.weights));
                *network = {};  // values of the tensors have been copied to the weights
            } else {
                lowered.steps.push_back(std::move(std::get<StepSpec>(draft)));
            }
        }
    } catch (const std::invalid_argument& error) {
        detail::refuse_at(place, error.what());
    }
    return lowered;
}

}  // namespace

MapSettings settings_of(const detail::MapSettings& map) {
    MapSettings s;
    s.name = detail::map_names()[size_t(map.kind)];
    s.variant = detail::scale_names()[size_t(map.scale)];
    s.slope = map.slope;
    s.bins = map.bins;
    s.bound = map.high;
    s.low = map.low;
    s.min_bin = map.min_bin;
    s.formula_to_data = map.formula_to_data;
    return s;
}

template <class T>
LoweredSteps<T> Lower<T>::operator()(detail::TransformDescription<T> description) const {
    try {
        return finished<T>(Drafting<T>::of(description, false), description.place);
    } catch (const std::invalid_argument& error) {
        detail::refuse_at(description.place, error.what());
    }
}

Base standard_of(const detail::BaseDescription& base) {
    switch (base.kind) {
        case detail::BaseKind::standard_normal:
        case detail::BaseKind::normal: return Base::normal;
        case detail::BaseKind::logistic: return Base::logistic;
        default: return Base::density;
    }
}

template <class T>
LoweredSteps<T> lowered_base(const detail::BaseDescription& base) {
    static constexpr ColumnDensity densities[] = {ColumnDensity::normal, ColumnDensity::logistic,
                                                  ColumnDensity::uniform, ColumnDensity::student};
    LoweredSteps<T> lowered;
    switch (base.kind) {
        case detail::BaseKind::standard_normal:
        case detail::BaseKind::logistic: return lowered;
        case detail::BaseKind::normal: {
            if (!base.is_trained) {
                lowered.steps.emplace_back(StandardizeSpec{false, base.loc, base.scale});
                return lowered;
            }
            Drafts<T> drafts;
            drafts.push_back(lines<T>(false, base.loc, base.log_scale));
            return finished<T>(std::move(drafts), "base");
        }
        default: break;
    }
    DensitySpec spec;
    spec.components = base.components;
    for (const detail::ColumnKind kind : base.columns) spec.columns.push_back(densities[size_t(kind)]);
    std::vector<double> raw = base.log_df;
    if (base.components > 0)
        for (const std::vector<double>* part : {&base.logits, &base.loc, &base.log_scale})
            raw.insert(raw.end(), part->begin(), part->end());
    spec.n_raw = int(raw.size());
    if (base.is_trained) {
        lowered.weights.assign(raw.begin(), raw.end());
        lowered.weights.resize(size_t(spec.n_weights()));
    } else {
        spec.fixed = std::move(raw);
    }
    lowered.steps.emplace_back(std::move(spec));
    return lowered;
}

#define HR_INSTANTIATE(T)     \
    template struct Lower<T>; \
    template LoweredSteps<T> lowered_base<T>(const detail::BaseDescription&);
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
