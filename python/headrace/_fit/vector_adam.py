"""Adam on the parameter vector of a flow without a program of the core: the steps of `cpp/math/adam.hpp`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Array


class VectorAdam:
    """The optimiser that `Adam` uses instead of the core's.

    Args:
        flow: Its `parameters` are replaced in each step.
        decays: Shape (n,): which of them weight decay shrinks.
        beta1, beta2, epsilon, weight_decay, clip, average: As in `Adam`; 0 for no limit and for no running mean.
    """

    def __init__(
        self,
        flow: Any,
        decays: NDArray[np.bool_],
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
        clip: float,
        average: float,
    ) -> None:
        self._flow, self._decays = flow, decays
        self._beta1, self._beta2, self._clip = beta1, beta2, clip
        self._weight_decay, self._decay = weight_decay, average
        self._epsilon = max(epsilon, float(np.finfo(flow.dtype).tiny))  # 0 / 0 is NaN
        start = flow.parameters
        self._mean, self._square = np.zeros_like(start), np.zeros_like(start)
        self._average: Array | None = start.copy() if average else None
        self._steps = 0

    def memory(self) -> tuple[Array, Array, Array | None, Array]:
        """Copies of the moments, of the running mean of the parameters, and the clock, as from the core's optimiser.

        The clock has the powers of both decays, and the number of steps.
        """
        clock = np.array([self._beta1**self._steps, self._beta2**self._steps, self._steps])
        average = None if self._average is None else self._average.copy()
        return self._mean.copy(), self._square.copy(), average, clock

    def set_memory(self, mean: Array, square: Array, average: Array | None, clock: Array) -> None:
        """Go on from a result of `memory`."""
        self._mean, self._square, self._steps = mean.copy(), square.copy(), int(clock[2])
        self._average = None if average is None else average.copy()

    def step(self, gradient: Array, learning_rate: float) -> float:
        """Take one step; the norm of the gradient. If the norm is not finite, nothing changes."""
        norm = math.sqrt(float(np.square(gradient, dtype=np.float64).sum()))
        if not math.isfinite(norm):
            return norm
        self._steps += 1
        dtype, t = self._mean.dtype.type, self._steps
        g = gradient * dtype(self._clip / norm if 0.0 < self._clip < norm else 1.0)
        self._mean += dtype(1.0 - self._beta1) * (g - self._mean)
        self._square += dtype(1.0 - self._beta2) * (g * g - self._square)
        rate = dtype(learning_rate / (1.0 - self._beta1**t))
        root = np.sqrt(self._square * dtype(1.0 / (1.0 - self._beta2**t))) + dtype(self._epsilon)
        moved = self._flow.parameters
        if self._weight_decay:
            moved[self._decays] *= dtype(1.0 - learning_rate * self._weight_decay)
        moved -= self._mean * rate / root
        self._flow.parameters = moved
        if self._average is not None:
            gain = 1.0 - min(self._decay, (1.0 + t) / (10.0 + t))
            self._average += dtype(gain) * (self._flow.parameters - self._average)
        return norm

    def average(self) -> Array:
        """The running mean of the parameters, a copy."""
        if self._average is None:
            raise ValueError("average: expected a decay when the optimiser was made, got None")
        return np.array(self._average)
