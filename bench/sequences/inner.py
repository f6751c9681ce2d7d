"""A flow over the values of a step, whose context the network computes, beside separate calls of network and flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import headrace as hr

Call = Callable[[], Any]


class Apart:
    """The network of a flow of sequences, and its inner flow, as separate calls.

    Args:
        flow: A flow of one convolution with an inner flow that reads data, in float32.
        rows, steps: The number of sequences, and of their steps.
    """

    def __init__(self, flow: hr.SequenceFlow, rows: int, steps: int) -> None:
        """Draw random values, and compute the network's outputs."""
        rng = np.random.default_rng(0)
        self._flow, self._rows, self._steps = flow, rows, steps
        self._inner = flow.transforms[0].inner
        first = flow.transforms[0]
        self._core: Any = first._link(flow.dtype, "exact")[1]
        self._weights = first.parameters[: first._structure.n_weights]
        self._z = rng.standard_normal((rows, steps, flow.features)).astype(np.float32)
        self._x = flow.to_data(self._z)[0]
        self._raw = np.empty((rows, steps, self._inner.context), np.float32)
        self._outputs()
        want = self._density().reshape(rows, steps)
        np.testing.assert_allclose(flow.log_prob_steps(self._x), want, rtol=1e-4, atol=1e-4)

    def _outputs(self) -> None:
        self._core.outputs(self._weights, self._x, self._raw)

    def _density(self) -> Any:
        return self._inner.log_prob(
            self._x.reshape(-1, self._flow.features), self._raw.reshape(-1, self._inner.context)
        )

    def density(self) -> tuple[Call, Call]:
        """The calls for log densities of all steps: together, and apart."""

        def apart() -> None:
            self._outputs()
            self._density()

        return lambda: self._flow.log_prob(self._x), apart

    def sampling(self) -> tuple[Call, Call]:
        """Calls for sampling step after step: one call for network and flow, and a call for each."""
        contexts = np.ascontiguousarray(self._raw.swapaxes(0, 1))
        latent, data = (np.ascontiguousarray(a.swapaxes(0, 1)) for a in (self._z, self._x))
        one = np.empty((self._rows, 1, self._inner.context), np.float32)

        def apart() -> None:
            state = self._core.streams(self._rows)
            for z, x, context in zip(latent, data, contexts, strict=True):
                self._core.outputs(self._weights, x[:, None], one, state=state)
                self._inner.to_data(z, context)

        return lambda: self._flow.to_data(self._z), apart
