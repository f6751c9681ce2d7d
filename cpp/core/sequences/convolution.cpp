#include "convolution.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "../../math/bf16.hpp"
#include "calls.hpp"

namespace headrace {
namespace {

constexpr int most_size = 1 << 20;  // limit of every option, far beyond use, and small enough that sizes cannot
                                    // overflow

void check(const char* name, int value, int least, int most = most_size) {
    if (value < least || value > most)
        throw std::invalid_argument(std::string(name) + ": expected from " + std::to_string(least) + " to " +
                                    std::to_string(most) + ", got " + std::to_string(value));
}

void check_state(int64_t numbers) {
    if (numbers > std::numeric_limits<uint32_t>::max())
        throw std::invalid_argument("dilations: expected a field whose values fit 32-bit offsets");
}

}  // namespace

CausalConvolution::CausalConvolution(CausalOptions options) : options_(std::move(options)) {
    const CausalOptions& o = options_;
    check("inputs", o.inputs, 1);
    check("channels", o.channels, 1);
    check("skip", o.skip, 1);
    check("kernel", o.kernel, 2, most_causal_taps);
    check("outputs", o.outputs, 1);
    check("context", o.context, 0);
    check("covariates", o.covariates, 0);
    check("hop", o.hop, 1);
    if (o.dilations.empty()) throw std::invalid_argument("dilations: expected one for each of one or more layers");
    for (int dilation : o.dilations) check("dilations", dilation, 1);
    lay_out();
}

int64_t CausalConvolution::field() const {
    int64_t field = options_.kernel;
    for (int dilation : options_.dilations) field += int64_t(options_.kernel - 1) * dilation;
    return field;
}

// Adds a block, and returns the offset of its weights.
uint32_t CausalConvolution::add(Block block) {
    const uint64_t end = uint64_t(n_weights_) + uint64_t(block.lines()) * uint64_t(block.stride);
    if (end > std::numeric_limits<uint32_t>::max())
        throw std::invalid_argument("channels, skip: expected fewer weights than 2^32");
    block.offset = n_weights_;
    blocks_.push_back(block);
    n_weights_ = uint32_t(end);
    return block.offset;
}

// Adds the pairs of the last block, and returns their offset among all pairs.
uint32_t CausalConvolution::add_pairs() {
    Block& block = blocks_.back();
    block.pairs = n_pairs_;
    const int taps = std::max(1, block.taps);
    n_pairs_ += uint32_t(taps * pair_lines(block.inputs)) * uint32_t(block.stride);
    return uint32_t(block.pairs);
}

void CausalConvolution::lay_out() {
    const CausalOptions& o = options_;
    const int r = padded(o.channels), s = padded(o.skip), n_outputs = padded(o.outputs);
    const int n_layers = int(o.dilations.size());
    CausalNetwork n{};
    n.values = o.inputs;
    n.is_companded = o.is_companded;
    n.inputs = o.is_companded ? 2 * o.inputs : o.inputs;
    n.channels = o.channels;
    n.skip = o.skip;
    n.kernel = o.kernel;
    n.n_layers = n_layers;
    n.outputs = o.outputs;
    n.context = o.context;
    n.covariates = o.covariates;
    n.hop = o.hop;
    n.channel_units = r;
    n.skip_units = s;
    n.output_units = n_outputs;
    const auto bias = [](const std::string& of, int units, int stride, int split, int second) {
        return Block{of + ".bias", units, 0, 0, 0, stride, split, second};
    };
    n.input = add({"input.weight", o.channels, n.inputs, o.kernel, 0, r, o.channels, 0});
    n.input_bias = add(bias("input", o.channels, r, o.channels, 0));
    int64_t state = 0;
    for (int l = 0; l < n_layers; ++l) {
        const std::string name = "layers." + std::to_string(l);
        const auto gate = [&](const char* what, int inputs, int taps) {
            return Block{name + ".gate." + what, 2 * o.channels, inputs, taps, 0, 2 * r, o.channels, r};
        };
        CausalLayer layer{};
        layer.dilation = o.dilations[size_t(l)];
        layer.is_last = l + 1 == n_layers;
        layer.gate = add(gate("weight", o.channels, o.kernel));
        layer.gate_pairs = add_pairs();
        layer.gate_bias = add(gate("bias", 0, 0));
        if (o.context > 0) layer.context = add(gate("context", o.context, 0));
        if (o.covariates > 0) layer.covariates = add(gate("covariates", o.covariates, 0));
        const int units = layer.is_last ? o.skip : o.channels + o.skip, stride = layer.is_last ? s : r + s;
        const int split = layer.is_last ? units : o.channels;
        layer.out = add({name + ".out.weight", units, o.channels, 0, 0, stride, split, r});
        layer.out_pairs = add_pairs();
        layer.out_bias = add(bias(name + ".out", units, stride, split, r));
        layer.ring = uint32_t(state);
        state += int64_t(o.kernel - 1) * layer.dilation * r;
        check_state(state);
        layers_.push_back(layer);
    }
    n.head = add({"head.0.weight", o.skip, o.skip, 0, 0, s, o.skip, 0});
    n.head_pairs = add_pairs();
    n.head_bias = add(bias("head.0", o.skip, s, o.skip, 0));
    n.last = add({"head.1.weight", o.outputs, o.skip, 0, 0, n_outputs, o.outputs, 0});
    n.last_pairs = add_pairs();
    n.last_bias = add(bias("head.1", o.outputs, n_outputs, o.outputs, 0));
    n.past = uint32_t(state);
    state += int64_t(o.kernel) * n.inputs;
    check_state(state);
    n.state = uint32_t(state);
    n.layers = layers_.data();
    network_ = n;
}

std::vector<WeightRange> CausalConvolution::parts() const {
    std::vector<WeightRange> parts;
    for (const Block& block : blocks_) {
        const int64_t begin = block.offset, end = begin + int64_t(block.lines()) * block.stride;
        parts.push_back({begin, end, block.inputs == 0});
    }
    return parts;
}

std::vector<Tensor> CausalConvolution::tensors() const {
    std::vector<Tensor> tensors;
    for (const Block& block : blocks_) {
        std::vector<int64_t> shape{block.units};
        if (block.inputs > 0) shape.push_back(block.inputs);
        if (block.taps > 0) shape.push_back(block.taps);
        tensors.push_back({block.name, std::move(shape)});
    }
    return tensors;
}

// Calls visit(index in the tensor, index among the weights) for each weight of a block.
template <class F>
void CausalConvolution::for_weights(const Block& block, F&& visit) const {
    const int inputs = std::max(1, block.inputs), taps = std::max(1, block.taps);
    size_t from = 0;
    for (int u = 0; u < block.units; ++u) {
        const int place = u < block.split ? u : block.second + u - block.split;
        for (int i = 0; i < inputs; ++i)
            for (int tap = 0; tap < taps; ++tap)
                visit(from++,
                      block.offset + (size_t(tap) * size_t(inputs) + size_t(i)) * size_t(block.stride) + size_t(place));
    }
}

template <class T>
void CausalConvolution::pack_as(const std::vector<const T*>& tensors, T* weights) const {
    std::fill_n(weights, n_weights_, T(0));
    for (size_t b = 0; b < blocks_.size(); ++b)
        for_weights(blocks_[b], [&](size_t from, size_t to) { weights[to] = tensors[b][from]; });
}

template <class T>
void CausalConvolution::unpack_as(const T* weights, const std::vector<T*>& tensors) const {
    for (size_t b = 0; b < blocks_.size(); ++b)
        for_weights(blocks_[b], [&](size_t to, size_t from) { tensors[b][to] = weights[from]; });
}

void CausalConvolution::round(const float* weights, float* to) const {
    const auto rounded = [&](int64_t i) { return bf16_rounded(weights[i], least_bf16_weight); };
    const auto put = [](uint32_t word, float* at) { std::memcpy(at, &word, sizeof word); };
    std::copy_n(weights, n_weights_, to);
    for (const Block& block : blocks_) {
        if (block.inputs == 0) continue;  // biases are not rounded
        const int64_t end = block.offset + int64_t(block.lines()) * block.stride;
        for (int64_t i = block.offset; i < end; ++i) put(rounded(i), to + i);
        if (block.pairs < 0) continue;
        float* pair = to + n_weights_ + block.pairs;
        for (int tap = 0; tap < std::max(1, block.taps); ++tap)
            for (int input = 0; input < block.inputs; input += 2) {
                const int64_t even = block.offset + (int64_t(tap) * block.inputs + input) * block.stride;
                const bool has_odd = input + 1 < block.inputs;
                for (int64_t u = 0; u < block.stride; ++u)
                    put(rounded(even + u) >> 16 | (has_odd ? rounded(even + block.stride + u) : 0), pair++);
            }
    }
}

template <class T>
void CausalConvolution::clear_masked_in(T* weights) const {
    for (const Block& block : blocks_) {
        const int second = block.split < block.units ? block.second + block.units - block.split : block.stride;
        const int gap = block.split < block.units ? block.second : block.stride;
        for (int line = 0; line < block.lines(); ++line) {
            T* const at = weights + block.offset + size_t(line) * size_t(block.stride);
            std::fill(at + block.split, at + gap, T(0));
            std::fill(at + second, at + block.stride, T(0));
        }
    }
}

// The functions are instantiated here, because inline members of convolution.hpp call them from other files.
#define HR_INSTANTIATE(T)                                                               \
    template void CausalConvolution::pack_as(const std::vector<const T*>&, T*) const;   \
    template void CausalConvolution::unpack_as(const T*, const std::vector<T*>&) const; \
    template void CausalConvolution::clear_masked_in(T*) const;
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
