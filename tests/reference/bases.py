"""Base densities of independent coordinates, whose log densities are added."""

import math
from collections.abc import Sequence
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
    """The standard logistic density ``e^-z / (1 + e^-z)^2``, in a symmetric form whose exponentials do not overflow."""

    def log_prob(self, z):
        return (-np.abs(z) - 2.0 * np.log1p(np.exp(-np.abs(z)))).sum(axis=1)


@dataclass(frozen=True)
class Uniform:
    """The uniform density on [-1, 1] in each coordinate."""

    def log_prob(self, z):
        return np.where((np.abs(z) <= 1.0).all(axis=1), -z.shape[1] * math.log(2.0), -np.inf)


@dataclass(frozen=True)
class StudentT:
    df: np.ndarray

    def log_prob(self, z):
        df = np.broadcast_to(self.df, z.shape[1:])
        log_gamma = np.vectorize(math.lgamma)
        constant = log_gamma((df + 1.0) / 2.0) - log_gamma(df / 2.0) - np.log(df * math.pi) / 2.0
        # The series is for large df, where the logarithms of both Γ nearly cancel.
        series = -0.5 * math.log(2.0 * math.pi) - 1.0 / (4.0 * df) + 1.0 / (24.0 * df**3)
        constant = np.where(df > 1e4, series, constant)
        return (constant - (df + 1.0) / 2.0 * np.log1p(z**2 / df)).sum(axis=1)


@dataclass(frozen=True)
class NormalMixture:
    """A mixture of normal densities with ``logits`` (K,), and ``loc`` and ``scale`` (K, D)."""

    logits: np.ndarray
    loc: np.ndarray
    scale: np.ndarray

    def log_prob(self, z):
        with np.errstate(divide="ignore"):
            shares = np.exp(self.logits - np.max(self.logits))
            parts = np.log(shares / shares.sum())[:, None] + np.stack(
                [Normal(loc, scale).log_prob(z) for loc, scale in zip(self.loc, self.scale, strict=True)]
            )
            return np.logaddexp.reduce(parts, axis=0)


@dataclass(frozen=True)
class Independent:
    """A density of independent coordinates; ``densities`` has a name for each coordinate."""

    densities: Sequence

    def log_prob(self, z):
        known = {"normal": StandardNormal(), "logistic": Logistic(), "uniform": Uniform()}
        return sum(known[name].log_prob(z[:, [c]]) for c, name in enumerate(self.densities))
