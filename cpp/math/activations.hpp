// THE list of activations of hidden units. ReLU is applied inside the product kernel, the other activations by a sweep
// over the finished units while they are in L1.
//
// `slope` is the derivative: a function of the activation's value where slope_of_value is true, otherwise of the
// argument.
#pragma once

#include "lane.hpp"

// X(index, type, name in Python) for each activation.
#define HR_ACTIVATIONS(X)         \
    X(0, Relu, "relu")            \
    X(1, Tanh, "tanh")            \
    X(2, Elu, "elu")              \
    X(3, Silu, "silu")            \
    X(4, Gelu, "gelu")            \
    X(5, Softplus, "softplus")    \
    X(6, LeakyRelu, "leaky_relu") \
    X(7, Sigmoid, "sigmoid")      \
    X(8, Identity, "identity")    \
    X(9, GeluTanh, "gelu_tanh")

namespace headrace {
namespace {

struct Relu {
    template <class V>
    HR_FN static V value(V x) {
        return max(x, Scalar<V>(0));
    }
    static constexpr bool slope_of_value = true;
    template <class V>
    HR_FN static V slope(V y) {
        return select(y > Scalar<V>(0), splat<V>(1), splat<V>(0));
    }
};

struct Tanh {
    template <class V>
    HR_FN static V value(V x) {
        return tanh(x);
    }
    static constexpr bool slope_of_value = true;
    template <class V>
    HR_FN static V slope(V y) {
        return fma(-y, y, Scalar<V>(1));
    }
};

// ELU with alpha = 1.
struct Elu {
    template <class V>
    HR_FN static V value(V x) {
        return select(x < Scalar<V>(0), expm1(min(x, Scalar<V>(0))), x);
    }
    static constexpr bool slope_of_value = true;
    template <class V>
    HR_FN static V slope(V y) {
        return min(y, Scalar<V>(0)) + Scalar<V>(1);
    }
};

// Limit of x where x is multiplied by a factor that is 0 for much smaller x already, because infinity times 0 would be
// NaN.
constexpr double beyond = 1e30;

struct Silu {
    template <class V>
    HR_FN static V value(V x) {
        return max(x, -Scalar<V>(beyond)) * sigmoid(x);
    }
    static constexpr bool slope_of_value = false;
    template <class V>
    HR_FN static V slope(V x) {
        const V s = sigmoid(x);
        return s * fma(max(min(x, Scalar<V>(beyond)), -Scalar<V>(beyond)), sigmoid(-x), Scalar<V>(1));
    }
};

// The exact GELU, x Phi(x); its approximation is GeluTanh.
struct Gelu {
    template <class V>
    HR_FN static V value(V x) {
        return max(x, -Scalar<V>(beyond)) * normal_cdf(x);
    }
    static constexpr bool slope_of_value = false;
    template <class V>
    HR_FN static V slope(V x) {
        const V density = exp(x * x * Scalar<V>(-0.5)) * Scalar<V>(0.39894228040143267794);
        return fma(max(min(x, Scalar<V>(beyond)), -Scalar<V>(beyond)), density, normal_cdf(x));
    }
};

// The approximation of Gelu by tanh: x (1 + tanh(u / 2)) / 2 = x sigmoid(u) with u = 2 sqrt(2 / pi) (x + 0.044715 x^3)
// (Hendrycks and Gimpel, arXiv:1606.08415). The sigmoid has all digits for negative u, where 1 + tanh cancels. The
// error is at most 9 ulp for x above -2, and larger below, from the rounding of u.
struct GeluTanh {
    template <class V>
    HR_FN static V value(V x) {
        return max(x, -Scalar<V>(beyond)) * sigmoid(argument(x));
    }
    static constexpr bool slope_of_value = false;
    template <class V>
    HR_FN static V slope(V x) {
        const V near = max(min(x, Scalar<V>(flat)), -Scalar<V>(flat)), u = argument(near);
        const V argument_slope = fma(near * near, Scalar<V>(3 * cubic), Scalar<V>(linear));
        return sigmoid(u) * fma(near * argument_slope, sigmoid(-u), Scalar<V>(1));
    }

  private:
    static constexpr double linear = 1.5957691216057307117597842397375, cubic = 0.044715 * linear;
    static constexpr double flat = 100;  // beyond this u the slope is 0 or 1 exactly, and the cube is finite

    template <class V>
    HR_FN static V argument(V x) {
        return x * fma(x * x, Scalar<V>(cubic), Scalar<V>(linear));
    }
};

struct Softplus {
    template <class V>
    HR_FN static V value(V x) {
        return softplus(x);
    }
    static constexpr bool slope_of_value = true;
    template <class V>
    HR_FN static V slope(V y) {
        return -expm1(-y);
    }
};

// ReLU with a slope of 1/100 below zero.
struct LeakyRelu {
    template <class V>
    HR_FN static V value(V x) {
        return select(x < Scalar<V>(0), x * Scalar<V>(0.01), x);
    }
    static constexpr bool slope_of_value = true;
    template <class V>
    HR_FN static V slope(V y) {
        return select(y > Scalar<V>(0), splat<V>(1), splat<V>(0.01));
    }
};

struct Sigmoid {
    template <class V>
    HR_FN static V value(V x) {
        return sigmoid(x);
    }
    static constexpr bool slope_of_value = true;
    template <class V>
    HR_FN static V slope(V y) {
        return y * (Scalar<V>(1) - y);
    }
};

// No activation: for a layer that only adds to another layer, or whose sums are used unchanged.
struct Identity {
    template <class V>
    HR_FN static V value(V x) {
        return x;
    }
    static constexpr bool slope_of_value = true;
    template <class V>
    HR_FN static V slope(V) {
        return splat<V>(1);
    }
};

// The activation that the product kernel applies itself, and the activation that needs no work.
constexpr int relu_index = 0, identity_index = 8;

// Calls f.operator()<Activation>() for the activation with the given index.
template <class F>
HR_FN void with_activation(int index, F&& f) {
    switch (index) {
#define HR_CASE(i, type, name) \
    case i: f.template operator()<type>(); break;
        HR_ACTIVATIONS(HR_CASE)
#undef HR_CASE
        default: break;
    }
}

// Whether an activation's value determines its derivative.
HR_FN bool has_slope_of_value(int index) {
    bool result = false;
    with_activation(index, [&]<class A>() { result = A::slope_of_value; });
    return result;
}

}  // namespace
}  // namespace headrace
