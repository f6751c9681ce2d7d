"""A base density pushed through a chain of transforms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Flow:
    """A flow: transforms in the order latent to data; log-determinants of a composition add (eq. 26-27)."""

    transforms: Sequence[Any]
    base: Any

    def to_data(self, z, context=None):
        value = np.asarray(z, np.float64)
        log_det = np.zeros(len(value))
        for transform in self.transforms:
            value, step = transform.forward(value, context)
            log_det = log_det + step
        return value, log_det

    def to_latent(self, x, context=None):
        value = np.asarray(x, np.float64)
        log_det = np.zeros(len(value))
        for transform in reversed(self.transforms):
            value, step = transform.inverse(value, context)
            log_det = log_det + step
        return value, log_det

    def log_prob(self, x, context=None):
        """The log density by a change of variables: ``log p(x) = log p_base(z(x)) + log |dz/dx|`` (eq. 27)."""
        z, log_det = self.to_latent(x, context)
        return self.base.log_prob(z) + log_det
