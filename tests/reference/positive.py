"""A positive number from a raw one."""

import numpy as np

from .activations import sigmoid, softplus

LEAST = 1e-3
SHIFT = np.log(np.expm1(1.0 - LEAST))


def positive(raw):
    """``LEAST + softplus(raw + SHIFT)``: 1 at 0."""
    return LEAST + softplus(np.asarray(raw, np.float64) + SHIFT)


def excess(raw):
    """``positive(raw) - 1``; as the integral of its slope from 0 where the difference would cancel."""
    raw = np.asarray(raw, np.float64)
    nodes, weights = np.polynomial.legendre.leggauss(8)  # exact to the last digit over an interval as short as this
    mean_slope = sum(w * sigmoid(raw * (n + 1.0) / 2.0 + SHIFT) for n, w in zip(nodes, weights, strict=True)) / 2.0
    return np.where(np.abs(raw) < 0.1, raw * mean_slope, positive(raw) - 1.0)
