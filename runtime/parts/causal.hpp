// The network of a causal convolution, computed step by step (docs/conventions.md, Sequences).
#pragma once

#include "numbers.hpp"
#include "sequence_descriptions.hpp"

namespace headrace {
namespace detail {

// Values of past positions in the state of a stream, (slots, columns), where position t has slot t mod slots. Until the
// values of a position are stored, its slot has the oldest values.
struct Ring {
    std::size_t begin, slots, columns;

    template <class T>
    T* at(T* state, std::uint64_t position) const {
        return state + begin + static_cast<std::size_t>(position % slots) * columns;
    }
};

// The companded value asinh(512 v) / asinh(512).
template <class T>
T companded(T v) {
    constexpr T rate = T(512), unit = T(6.931472759272405);
    return std::asinh(v * rate) / unit;
}

// Products with the weights (units, inputs, taps) of a file, stored as lines of units, so that a loop reads adjacent
// weights.
template <class T>
class Lines {
  public:
    Lines() = default;
    Lines(const std::vector<T>& weight, std::size_t units, std::size_t taps, bool is_rounded)
        : units_(units), inputs_(weight.size() / units / taps), weight_(weight.size()) {
        std::size_t from = 0;
        for (std::size_t u = 0; u < units; ++u)
            for (std::size_t i = 0; i < inputs_; ++i)
                for (std::size_t tap = 0; tap < taps; ++tap, ++from)
                    weight_[(tap * inputs_ + i) * units + u] =
                        is_rounded ? to_bf16(weight[from], 1, least_bf16_weight) : weight[from];
    }

    void add(std::size_t tap, const T* x, T* sums) const {
        const T* const w = weight_.data() + tap * inputs_ * units_;
        std::size_t u = 0;
        for (; u + block <= units_; u += block) {  // in blocks of constant length, which compilers keep in vectors
            T own[block];
            std::copy(sums + u, sums + u + block, own);
            for (std::size_t i = 0; i < inputs_; ++i) {
                const T* const line = w + i * units_ + u;
                for (std::size_t k = 0; k < block; ++k) own[k] += line[k] * x[i];
            }
            std::copy(own, own + block, sums + u);
        }
        for (; u < units_; ++u)
            for (std::size_t i = 0; i < inputs_; ++i) sums[u] += w[i * units_ + u] * x[i];
    }

  private:
    static constexpr std::size_t block = 16;

    std::size_t units_ = 0, inputs_ = 0;
    std::vector<T> weight_;
};

template <class T>
struct CausalWork {
    std::vector<T> values, skip, sums, gated, out, hidden;
};

template <class T>
class CausalNetwork {
  public:
    template <class Made>
    CausalNetwork(const CausalDescription<T, Made>& d, bool is_rounded)
        : channels_(size(d.channels)),
          skip_(size(d.skip)),
          taps_(size(d.kernel)),
          values_(size(d.features)),
          is_companded_(d.is_companded),
          input_(d.input, channels_, taps_, is_rounded),
          input_bias_(d.input_bias),
          head_(d.head, skip_, 1, is_rounded),
          last_(d.last, size(d.outputs()), 1, is_rounded),
          head_bias_(d.head_bias),
          last_bias_(d.last_bias) {
        past_ = {0, taps_, size(d.inputs())};
        numbers_ = past_.slots * past_.columns;
        for (std::size_t l = 0; l < d.layers.size(); ++l) {
            const CausalLayerDescription<T>& from = d.layers[l];
            Layer layer;
            layer.dilation = static_cast<std::uint64_t>(d.dilations[l]);
            layer.ring = {numbers_, (taps_ - 1) * size(d.dilations[l]), channels_};
            numbers_ += layer.ring.slots * channels_;
            layer.gate = Lines<T>(from.gate, 2 * channels_, taps_, is_rounded);
            layer.out = Lines<T>(from.out, from.out_bias.size(), 1, is_rounded);
            if (d.context) layer.context = Lines<T>(from.context, 2 * channels_, 1, is_rounded);
            if (d.covariates) layer.covariates = Lines<T>(from.covariates, 2 * channels_, 1, is_rounded);
            layer.gate_bias = from.gate_bias;
            layer.out_bias = from.out_bias;
            layers_.push_back(std::move(layer));
        }
    }

    // The number of values of a stream's state, which are zero before the first step, and the rings in which they are
    // stored.
    std::size_t numbers() const { return numbers_; }
    std::vector<Ring> rings() const {
        std::vector<Ring> all{past_};
        for (const Layer& layer : layers_) all.push_back(layer.ring);
        return all;
    }
    std::size_t outputs() const { return last_bias_.size(); }

    // The gate biases of all layers, with the part of a context, which may be null.
    std::vector<T> starts(const T* context) const {
        std::vector<T> all;
        for (const Layer& layer : layers_) {
            std::vector<T> own = layer.gate_bias;
            if (context) layer.context.add(0, context, own.data());
            all.insert(all.end(), own.begin(), own.end());
        }
        return all;
    }

    // Computes the outputs at a position from values before it, and stores values of layers in the state. `frame` has
    // covariates, or is null.
    void run(T* state, std::uint64_t position, const T* starts, const T* frame, CausalWork<T>& w, T* outputs) const {
        w.values = input_bias_;
        for (std::size_t tap = 0; tap < taps_; ++tap) input_.add(tap, past_.at(state, position + tap), w.values.data());
        w.skip.assign(skip_, T(0));
        for (const Layer& layer : layers_) {
            w.sums.assign(starts, starts + 2 * channels_);
            starts += 2 * channels_;
            run_layer(layer, state, position, frame, w);
        }
        rectify(w.skip);
        w.hidden = head_bias_;
        head_.add(0, w.skip.data(), w.hidden.data());
        rectify(w.hidden);
        std::copy(last_bias_.begin(), last_bias_.end(), outputs);
        last_.add(0, w.hidden.data(), outputs);
    }

    // Stores the values that the network reads at a position as part of the past.
    void keep(T* state, std::uint64_t position, const T* values) const {
        T* const to = past_.at(state, position);
        std::copy(values, values + values_, to);
        if (!is_companded_) return;
        for (std::size_t c = 0; c < values_; ++c) to[values_ + c] = companded(values[c]);
    }

  private:
    struct Layer {
        std::uint64_t dilation = 1;
        Ring ring{};
        Lines<T> gate, context, covariates, out;
        std::vector<T> gate_bias, out_bias;
    };

    static std::size_t size(int n) { return static_cast<std::size_t>(n); }
    static void rectify(std::vector<T>& values) {
        for (T& x : values) x = activated(Activation::relu, x);
    }

    void run_layer(const Layer& layer, T* state, std::uint64_t position, const T* frame, CausalWork<T>& w) const {
        if (frame) layer.covariates.add(0, frame, w.sums.data());
        for (std::size_t tap = 0; tap + 1 < taps_; ++tap)
            layer.gate.add(tap, layer.ring.at(state, position + tap * layer.dilation), w.sums.data());
        layer.gate.add(taps_ - 1, w.values.data(), w.sums.data());
        std::copy(w.values.begin(), w.values.end(), layer.ring.at(state, position));
        w.gated.resize(channels_);
        for (std::size_t u = 0; u < channels_; ++u) w.gated[u] = std::tanh(w.sums[u]) * sigmoid(w.sums[channels_ + u]);
        w.out = layer.out_bias;
        layer.out.add(0, w.gated.data(), w.out.data());
        const std::size_t first = w.out.size() - skip_;  // the last layer has only skip outputs
        for (std::size_t u = 0; u < first; ++u) w.values[u] += w.out[u];
        for (std::size_t u = 0; u < skip_; ++u) w.skip[u] += w.out[first + u];
    }

    std::size_t channels_, skip_, taps_, values_;
    bool is_companded_;
    Lines<T> input_;
    std::vector<T> input_bias_;
    std::vector<Layer> layers_;
    Lines<T> head_, last_;
    std::vector<T> head_bias_, last_bias_;
    Ring past_{};
    std::size_t numbers_ = 0;
};

}  // namespace detail
}  // namespace headrace
