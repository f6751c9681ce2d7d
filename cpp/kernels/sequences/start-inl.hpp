// The start of a layer's gates: the terms of biases, context and covariates, without the products with inputs.
#pragma once

#include "../transpose-inl.hpp"
#include "products-inl.hpp"

namespace headrace {
namespace {

// Computes gate biases of all layers plus the contribution of one context row: [layer][gate_units].
template <class T>
void causal_fold(const CausalNetwork& n, const T* weights, const T* context, T* folded) noexcept {
    UnitProduct<T> a;
    a.stride = gate_units(n);
    a.inputs = n.context;
    a.x[0][0] = context;
    for (int l = 0; l < n.n_layers; ++l) {
        a.weights = weights + n.layers[l].context;
        a.start[0] = weights + n.layers[l].gate_bias;
        a.to[0] = folded + l * gate_units(n);
        unit_product(a, gate_units(n));
    }
}

template <class T>
HR_FN FramePlace<T> frame_place(const CausalNetwork& n, const CausalSide<T>& side, int64_t position) {
    return frame_place<T>(n, side.first_frame + side.n_frames - 1, position);
}

// Computes the products U_l g of one frame of one stream.
template <class T>
HR_FN void multiply_frame(const CausalNetwork& n, const T* weights, int l, const T* frame, T* to) {
    UnitProduct<T> a;
    a.weights = weights + n.layers[l].covariates;
    a.stride = gate_units(n);
    a.inputs = n.covariates;
    a.x[0][0] = frame;
    a.start[0] = nullptr;
    a.to[0] = to;
    unit_product(a, gate_units(n));
}

// The gate biases of a stream or sequence.
template <class T>
HR_FN const T* gate_bias_of(const CausalNetwork& n, const T* weights, const CausalSide<T>& side, int l) {
    return side.gate_bias ? side.gate_bias + l * gate_units(n) : weights + n.layers[l].gate_bias;
}

template <class T>
HR_FN const T* frame_of(const CausalNetwork& n, const CausalSide<T>& side, int64_t frame) {
    return side.frames + (frame - side.first_frame) * n.covariates;
}

}  // namespace
}  // namespace headrace
