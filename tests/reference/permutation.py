"""A change of the order of the coordinates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Permutation:
    """The permutation ``x_i = z_order[i]`` forward."""

    order: Sequence[int]

    def forward(self, z, context=None):
        z = np.asarray(z, np.float64)
        return np.stack([z[:, j] for j in self.order], axis=1), np.zeros(len(z))

    def inverse(self, x, context=None):
        x = np.asarray(x, np.float64)
        z = np.empty_like(x)
        for i, j in enumerate(self.order):
            z[:, j] = x[:, i]
        return z, np.zeros(len(x))
