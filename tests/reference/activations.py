"""Activations of the hidden units, each accurate over the whole float64 range."""

import math

import numpy as np

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def relu(a):
    return np.maximum(a, 0.0)


def tanh(a):
    return np.tanh(a)


def elu(a):
    """The function ``a`` above zero, ``e^a - 1`` below (alpha is 1)."""
    return np.where(a > 0, a, np.expm1(np.minimum(a, 0.0)))


def sigmoid(a):
    """The function ``1 / (1 + e^-a)``, by its logarithm, which overflows neither for large ``a`` nor for small."""
    return np.exp(-np.logaddexp(0.0, -a))


def silu(a):
    return a * sigmoid(a)


def gelu(a):
    """The exact GELU: ``a`` times the standard normal distribution function of ``a``."""
    return a * 0.5 * _erfc(-a / math.sqrt(2.0))


def gelu_tanh(a):
    """The function ``a (1 + tanh(t)) / 2`` with ``t = sqrt(2 / pi) (a + 0.044715 a^3)``, which is ``a sigmoid(2
    t)``."""
    near = np.clip(a, -1e3, 1e3)  # beyond 1e3 the factor is 0 or 1
    return a * sigmoid(2.0 * math.sqrt(2.0 / math.pi) * (near + 0.044715 * near**3))


def softplus(a):
    return np.logaddexp(0.0, a)


def leaky_relu(a):
    """The function ``a`` above zero, and a hundredth of ``a`` below."""
    return np.where(a < 0, 0.01 * a, a)


def identity(a):
    return a


ACTIVATIONS = {
    "relu": relu,
    "tanh": tanh,
    "elu": elu,
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "softplus": softplus,
    "leaky_relu": leaky_relu,
    "sigmoid": sigmoid,
    "identity": identity,
}
