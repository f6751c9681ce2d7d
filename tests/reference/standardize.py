"""The affine transform with fixed mean and standard deviation at a flow's data end."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Standardize:
    """The map whose inverse is ``z = (x - mean) / std``, so that data become of order one."""

    mean: np.ndarray
    std: np.ndarray

    def forward(self, z, context=None):
        z = np.asarray(z, np.float64)
        return z * self.std + self.mean, np.full(len(z), np.log(self.std).sum())

    def inverse(self, x, context=None):
        x = np.asarray(x, np.float64)
        return (x - self.mean) / self.std, np.full(len(x), -np.log(self.std).sum())
