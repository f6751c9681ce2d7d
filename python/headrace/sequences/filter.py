"""The filter of a linear prediction, from its parameters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats
from headrace._core import cpu


class Filter:
    """Reflection coefficients and gains, in float64."""

    def __init__(self, parameters: NDArray[np.floating], features: int, order: int) -> None:
        """`parameters`: whose hyperbolic tangents are reflection coefficients, (features * order,)."""
        theta = parameters.astype(np.float64).reshape(features, order)
        self.k = np.tanh(theta)
        with np.errstate(invalid="ignore"):  # for parameters that are NaN
            self.log_gain = (np.logaddexp(theta, -theta) - np.log(2.0)).sum(axis=1)

    @property
    def coefficients(self) -> Floats:
        """Coefficients of the steps before, that of the last one first, (features, order)."""
        return cpu.step_up(self.k)

    def of_core(self) -> tuple[Floats, Floats, float]:
        """Reflection coefficients, gains and the sum of their logarithms."""
        return self.k, np.exp(self.log_gain), float(self.log_gain.sum())
