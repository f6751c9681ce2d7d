// Elementary functions whose intermediate results neither overflow nor lose digits, and activations of hidden units.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace headrace {
namespace detail {

template <class T>
T softplus(T x) {
    return x > T(0) ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
}
template <class T>
T sigmoid(T x) {
    const T e = std::exp(-std::abs(x));
    return (x < T(0) ? e : T(1)) / (T(1) + e);
}

// A positive value from a raw value x: 0.001 + log(1 + e^(x + c)), which is 1 at x = 0.
template <class T>
struct Positive {
    T value, excess;  // excess is value - 1, without cancellation where x is small
};
constexpr double positive_shift = 0.539742417236952;  // c = log(e^0.999 - 1)
constexpr double positive_slope = 0.631752495386337;  // slope at x = 0: 1 - e^-0.999
template <class T>
Positive<T> positive(T x) {
    if (std::abs(x) < T(0.5)) {  // excess as log((1 + e^(x + c)) / (1 + e^c))
        const T near = std::log1p(std::expm1(x) * T(positive_slope));
        return {near + T(1), near};
    }
    const T far = softplus(x + T(positive_shift));
    return {far + T(1e-3), far + T(1e-3 - 1.0)};
}

// Rounds to the nearest value with 8 significant bits, ties to even; values below `least` become 0.
constexpr float least_bf16_value = 0x1p-63f, least_bf16_weight = 0x1p-47f;
inline float nearest_bf16(float x, float least) {
    if (x != x) return x;
    if (!(std::abs(x) >= least)) return 0.0f;
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
    float rounded;
    std::memcpy(&rounded, &bits, sizeof rounded);
    return rounded;
}

// The sum of `parts` parts, each of which is the bf16 value nearest to the remainder after the parts before.
template <class T>
T to_bf16(T x, int parts, float least = least_bf16_value) {
    float left = static_cast<float>(x);
    T sum = T(0);
    for (int i = 0; i < parts; ++i) {
        const float part = nearest_bf16(left, least);
        sum += T(part);
        left -= part;
    }
    return sum;
}

enum class Activation { relu, tanh, elu, silu, gelu, softplus, leaky_relu, sigmoid, identity, gelu_tanh };

inline const std::vector<std::string>& activation_names() {
    static const std::vector<std::string> names{"relu",     "tanh",       "elu",     "silu",     "gelu",
                                                "softplus", "leaky_relu", "sigmoid", "identity", "gelu_tanh"};
    return names;
}

// The value of an activation at x; NaN stays NaN.
template <class T>
T activated(Activation activation, T x) {
    // x is limited, because its factor is 0 long before the limit, and infinity times 0 would be NaN.
    const T limited = x < T(-1e30) ? T(-1e30) : x;
    switch (activation) {
        case Activation::relu: return x < T(0) ? T(0) : x;
        case Activation::tanh: return std::tanh(x);
        case Activation::elu: return x < T(0) ? std::expm1(x) : x;
        case Activation::silu: return limited * sigmoid(x);
        case Activation::gelu: return limited * (T(0.5) * std::erfc(x * T(-0.70710678118654752440)));
        case Activation::gelu_tanh:  // x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))
            return limited * sigmoid(T(1.5957691216057307118) * (x * (T(1) + T(0.044715) * x * x)));
        case Activation::softplus: return softplus(x);
        case Activation::leaky_relu: return x < T(0) ? x * T(0.01) : x;
        case Activation::sigmoid: return sigmoid(x);
        case Activation::identity: break;
    }
    return x;
}

}  // namespace detail
}  // namespace headrace
