"""Base densities: independent coordinates, their log-densities summed."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StandardNormal:
    def log_prob(self, z):
        return (-0.5 * z**2 - 0.5 * math.log(2.0 * math.pi)).sum(axis=1)


@dataclass(frozen=True)
class Normal:
    loc: np.ndarray | float
    scale: np.ndarray | float

    def log_prob(self, z):
        scale = np.broadcast_to(self.scale, z.shape[1:])
        return StandardNormal().log_prob((z - self.loc) / scale) - np.log(scale).sum()


@dataclass(frozen=True)
class Logistic:
    """Standard logistic: density ``e^-z / (1 + e^-z)^2``, written symmetrically so that no exponential overflows."""

    def log_prob(self, z):
        return (-np.abs(z) - 2.0 * np.log1p(np.exp(-np.abs(z)))).sum(axis=1)
