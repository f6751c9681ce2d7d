// Descriptions of transforms over time in files: checked parameters and settings, without code that computes.
#pragma once

#include <memory>
#include <variant>

#include "file.hpp"

namespace headrace {
namespace detail {

constexpr std::int64_t most_taps = 32, most_sequence_units = 1 << 13, most_layers = 1 << 10, most_dilation = 1 << 24;

// Limits of a level, the logarithm of a scale.
constexpr double least_level = -13.0, most_level = 2.0;

// Noise of a sample's steps 64 b to 64 b + 63 is rows (2^31 b + sample) 64, ... of the base's sample.
constexpr std::uint64_t noise_steps = 64, most_samples = std::uint64_t(1) << 31,
                        most_drawn_steps = std::uint64_t(1) << 32;
inline std::uint64_t noise_row(std::uint64_t step, std::uint64_t sample) {
    return (step / noise_steps * most_samples + sample) * noise_steps + step % noise_steps;
}

// The weights of a layer: (units, inputs, taps) for a convolution, otherwise (units, inputs).
template <class T>
struct CausalLayerDescription {
    std::vector<T> gate, gate_bias, context, covariates, out, out_bias;
};

template <class T, class Made>
struct CausalDescription {
    int features = 0, context = 0, covariates = 0, hop = 1;
    int channels = 0, skip = 0, kernel = 2;
    std::vector<int> dilations;
    bool is_companded = false, has_level = false, reads_data = true;
    bool reads_sizes = false;  // whether running sizes of the adaptive prediction at the data side replace covariates
    MapSettings map;           // map of each value; unused with an inner flow
    std::unique_ptr<FlowDescription<Made>> inner;  // flow of the values of a step, whose context is the outputs
    std::vector<T> input, input_bias, head, head_bias, last, last_bias;
    std::vector<CausalLayerDescription<T>> layers;

    // The number of values of a step that the network reads.
    int inputs() const { return is_companded ? 2 * features : features; }
    int columns() const { return reads_sizes ? 3 * features : covariates; }  // of covariates, or of running sizes
    int outputs() const { return inner ? inner->context : features * (map.n_params() + (has_level ? 1 : 0)); }
    std::int64_t field() const {
        std::int64_t steps = kernel;
        for (const int dilation : dilations) steps += std::int64_t(kernel - 1) * dilation;
        return steps;
    }
};

template <class T>
struct PredictionDescription {
    int features = 0, order = 0;
    std::vector<T> reflection;  // parameters (features, order)
};

struct AdaptiveDescription {
    int features = 0, order = 0, window = 0, every = 0;
    double floor = 0.0, ceiling = 0.0, start = 0.0, damping = 1.0;
};

// The description of a transform of rows that acts on each step.
template <class Made>
struct StepDescription {
    Made made;
    bool is_fixed = false;  // whether the transform has no parameters
};

template <class T, class Made>
using LinkDescription =
    std::variant<CausalDescription<T, Made>, PredictionDescription<T>, AdaptiveDescription, StepDescription<Made>>;

template <class T, class Made>
struct SequenceDescription {
    bool is_float = true;
    bool has_density = false;  // whether the file has a flow; otherwise it has one transform over time
    bool is_rounded = false;   // whether weights of causal networks are rounded to bf16
    int features = 0, context = 0, covariates = 0, hop = 1;
    std::int64_t field = 0;                       // number of steps before a step on which the density of the step
                                                  // depends
    BaseDescription base;                         // base density of a step
    std::vector<LinkDescription<T, Made>> chain;  // from latent to data
    std::vector<double> context_mean, context_std;
};

template <class T, class Made>
class CausalReader {
  public:
    CausalReader(Stored& stored, std::unique_ptr<FlowDescription<Made>> inner) : stored_(stored) {
        d_.inner = std::move(inner);
    }

    CausalDescription<T, Made> read() {
        d_.features = stored_.size("features", 1);
        d_.context = stored_.size("context");
        if (!d_.inner) d_.map = MapSettings(stored_);
        d_.channels = stored_.size("channels", 1, most_sequence_units);
        d_.skip = stored_.size("skip", 1, most_sequence_units);
        d_.kernel = stored_.size("kernel", 2, most_taps);
        d_.dilations = stored_.integers("dilations", 1, most_dilation);
        if (d_.dilations.empty() || d_.dilations.size() > static_cast<std::size_t>(most_layers))
            stored_.fail("dilations: expected 1 to " + std::to_string(most_layers) + " of them");
        if (stored_.has("covariates")) d_.covariates = stored_.size("covariates", 0, most_sequence_units);
        if (stored_.has("hop")) d_.hop = stored_.size("hop", 1, most_dilation);
        if (stored_.has("sizes")) d_.reads_sizes = stored_.truth("sizes");
        if (stored_.has("companded")) d_.is_companded = stored_.truth("companded");
        if (stored_.has("level")) d_.has_level = stored_.truth("level");
        d_.reads_data = stored_.choice("reads", {"data", "latent"}) == 0;
        check();
        read_weights();
        return std::move(d_);
    }

  private:
    void check() const {
        constexpr std::int64_t most = std::int64_t(1) << 32, unit = 16;  // `unit`: values of a layer are padded to
                                                                         // multiples of 16
        std::int64_t state = std::int64_t(d_.kernel) * d_.inputs();
        for (const int dilation : d_.dilations)
            state += std::int64_t(d_.kernel - 1) * dilation * ((d_.channels + unit - 1) / unit * unit);
        if (d_.reads_sizes && d_.covariates) stored_.fail("covariates: expected none beside sizes");
        if (state >= most) stored_.fail("dilations: expected a field whose values fit 32-bit offsets");
        if (!d_.inner) return;
        if (d_.inner->features != d_.features)
            stored_.fail("inner: expected a flow of " + std::to_string(d_.features) + " features");
        if (d_.inner->context == 0) stored_.fail("inner: expected a flow with context");
        if (d_.inner->base.kind != BaseKind::standard_normal) stored_.fail("inner: expected a flow on StandardNormal");
        if (d_.has_level) stored_.fail("level: expected false beside an inner flow");
    }

    void read_weights() {
        const auto size = [](int n) { return static_cast<std::uint64_t>(n); };
        const std::uint64_t r = size(d_.channels), s = size(d_.skip), k = size(d_.kernel), n = size(d_.outputs());
        d_.input = tensor("input.weight", {r, size(d_.inputs()), k});
        d_.input_bias = tensor("input.bias", {r});
        for (std::size_t l = 0; l < d_.dilations.size(); ++l) {
            const std::string name = "layers." + std::to_string(l);
            const std::uint64_t units = l + 1 < d_.dilations.size() ? r + s : s;
            CausalLayerDescription<T> layer;
            layer.gate = tensor(name + ".gate.weight", {2 * r, r, k});
            layer.gate_bias = tensor(name + ".gate.bias", {2 * r});
            if (d_.context) layer.context = tensor(name + ".gate.context", {2 * r, size(d_.context)});
            if (d_.columns()) layer.covariates = tensor(name + ".gate.covariates", {2 * r, size(d_.columns())});
            layer.out = tensor(name + ".out.weight", {units, r});
            layer.out_bias = tensor(name + ".out.bias", {units});
            d_.layers.push_back(std::move(layer));
        }
        d_.head = tensor("head.0.weight", {s, s});
        d_.head_bias = tensor("head.0.bias", {s});
        d_.last = tensor("head.1.weight", {n, s});
        d_.last_bias = tensor("head.1.bias", {n});
    }

    std::vector<T> tensor(const std::string& name, const std::vector<std::uint64_t>& shape) {
        return stored_.template array<T>(name, shape);
    }

    Stored& stored_;
    CausalDescription<T, Made> d_;
};

template <class T>
PredictionDescription<T> read_prediction(Stored& stored) {
    PredictionDescription<T> d;
    d.features = stored.size("features", 1, most_sequence_units);
    d.order = stored.size("order", 1, most_sequence_units);
    d.reflection = stored.template array<T>(
        "reflection", {static_cast<std::uint64_t>(d.features), static_cast<std::uint64_t>(d.order)});
    return d;
}

inline AdaptiveDescription read_adaptive(Stored& stored) {
    AdaptiveDescription d;
    d.features = stored.size("features", 1, most_sequence_units);
    d.order = stored.size("order", 1, most_sequence_units);
    d.window = stored.size("window", d.order + 1, most_dilation);
    d.every = stored.size("every", 1, most_dilation);
    d.floor = stored.number("floor", 0.0, std::numeric_limits<double>::infinity());
    d.ceiling = stored.number("ceiling", 0.0, std::numeric_limits<double>::infinity());
    d.start = stored.number("start", 0.0, std::numeric_limits<double>::infinity());
    d.damping = stored.number("damping", 0.0, std::numeric_limits<double>::infinity());
    if (d.damping > 1.0) stored.fail("damping: expected a number that is at most 1");
    if (!(d.ceiling >= d.floor)) stored.fail("ceiling: expected a number that is at least the floor");
    return d;
}

}  // namespace detail
}  // namespace headrace
