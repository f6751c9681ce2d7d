"""The map from a raw parameter to a positive value."""

import numpy as np

from .activations import sigmoid, softplus

LEAST = 1e-3
SHIFT = np.log(np.expm1(1.0 - LEAST))


def positive(raw):
    """The value ``LEAST + softplus(raw + SHIFT)``, which is 1 at 0."""
    return LEAST + softplus(np.asarray(raw, np.float64) + SHIFT)


def excess(raw):
    """The value ``positive(raw) - 1``; near 0, where the difference would cancel, as the integral of its slope from
    0."""
    raw = np.asarray(raw, np.float64)
    nodes, weights = np.polynomial.legendre.leggauss(8)  # exact to the last digit for so short an interval
    mean_slope = sum(w * sigmoid(raw * (n + 1.0) / 2.0 + SHIFT) for n, w in zip(nodes, weights, strict=True)) / 2.0
    return np.where(np.abs(raw) < 0.1, raw * mean_slope, positive(raw) - 1.0)
