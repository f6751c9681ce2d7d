"""The filter of a linear prediction, from its parameters, and the derivatives of the way there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Array, Floats


class Filter:
    """Coefficients and gains, in float64."""

    def __init__(self, parameters: NDArray[Any], features: int, order: int) -> None:
        """`parameters`: whose hyperbolic tangents are reflection coefficients, (features * order,)."""
        self.theta = parameters.astype(np.float64).reshape(features, order)
        self.k = np.tanh(self.theta)
        self._steps = [np.zeros((features, 0))]
        for m in range(order):
            a, k = self._steps[-1], self.k[:, m : m + 1]
            self._steps.append(np.hstack([a - k * a[:, ::-1], k]))
        self.coefficients = self._steps[-1]
        with np.errstate(invalid="ignore"):  # of parameters that are NaN
            self.log_gain = (np.logaddexp(self.theta, -self.theta) - np.log(2.0)).sum(axis=1)

    def of_core(self, dtype: np.dtype[Any]) -> tuple[Array, Array, float]:
        """The coefficients, of the oldest step first, the gains and the sum of their logarithms."""
        oldest_first = np.ascontiguousarray(self.coefficients[:, ::-1], dtype)
        return oldest_first, np.exp(self.log_gain).astype(dtype), float(self.log_gain.sum())

    def gradient(
        self, inverse: bool, by_value: Array, by_residual: Array, x: Array, z: Array, by_log_det: Array | None
    ) -> Floats:
        """The gradient by the parameters, a vector.

        `by_value`: gradients by the results of a run, `by_residual` by those of the filter before or after its gain,
        all (rows, steps, features); `by_log_det`: by the log-derivatives of steps.
        """
        wide, seen = by_residual.astype(np.float64), x.astype(np.float64)
        by_coefficients = np.zeros_like(self.coefficients)
        for lag in range(1, min(self.k.shape[1], x.shape[1] - 1) + 1):
            by_coefficients[:, lag - 1] = (wide[:, lag:] * seen[:, :-lag]).sum(axis=(0, 1))
        sign = 1.0 if inverse else -1.0
        of_log_det = 0.0 if by_log_det is None else sign * float(by_log_det.sum(dtype=np.float64))
        if inverse:
            by_gain = (by_value.astype(np.float64) * z).sum(axis=(0, 1))
        else:
            by_gain = -(wide / np.exp(self.log_gain).astype(by_value.dtype) * z).sum(axis=(0, 1))
        return self._by_parameters(-sign * by_coefficients, by_gain + of_log_det)

    def _by_parameters(self, by_coefficients: Floats, by_log_gain: Floats) -> Floats:
        by_k, by_a = np.empty_like(self.k), by_coefficients
        for m in reversed(range(self.k.shape[1])):
            a, k = self._steps[m], self.k[:, m : m + 1]
            rest, last = by_a[:, :-1], by_a[:, -1]
            by_k[:, m] = last - (rest * a[:, ::-1]).sum(axis=1)
            by_a = rest - k * rest[:, ::-1]
        found: Floats = by_k * (1.0 - np.square(self.k)) + by_log_gain[:, None] * self.k
        return found.reshape(-1)
