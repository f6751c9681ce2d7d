"""A weighted mean of several densities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Mixture:
    """The density Σ weight · density, and the spread of the logarithms of its densities."""

    members: Sequence[Any]
    weights: Any

    def log_probs(self, x, context=None):
        return np.stack([member.log_prob(x, context) for member in self.members])

    def _share(self):
        weights = np.asarray(self.weights, np.float64)
        return (weights / weights.sum())[:, None]

    def log_prob(self, x, context=None):
        each = self.log_probs(x, context)
        most = each.max(axis=0)
        return most + np.log((self._share() * np.exp(each - most)).sum(axis=0))

    def spread(self, x, context=None):
        each, share = self.log_probs(x, context), self._share()
        mean = (share * each).sum(axis=0)
        return np.sqrt((share * (each - mean) ** 2).sum(axis=0))
