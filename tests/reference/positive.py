"""A positive number from a raw one."""

import numpy as np

from .activations import softplus

LEAST = 1e-3
SHIFT = np.log(np.expm1(1.0 - LEAST))


def positive(raw):
    """``LEAST + softplus(raw + SHIFT)``: 1 at 0."""
    return LEAST + softplus(np.asarray(raw, np.float64) + SHIFT)
