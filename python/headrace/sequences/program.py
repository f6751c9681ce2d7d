"""What computes a chain over time: its links, its base density, and the vector of their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._module import Block
from headrace.flow import Flow
from headrace.sequences.links import Link, at_least_a_tile

__all__ = ["MOST_DRAWN_STEPS", "MOST_SAMPLES", "SequenceProgram"]

Array = NDArray[Any]

# Noise is drawn for this many steps at a time. Sample i has its steps of block b in rows (b * 2^31 + i) * 64 + 0 ... 63
# of the generator: so that all samples' steps of one block are one call, and none depends on how many are drawn.
NOISE_STEPS, MOST_SAMPLES = 64, 2**31
MOST_DRAWN_STEPS = 2**32


class SequenceProgram:
    """A chain with one vector of parameters: the base's, then each transform's, from latent to data.

    The vector is never changed but replaced: who computes keeps the one that was there when the call began.
    """

    def __init__(
        self, links: Sequence[Link], blocks: Sequence[Sequence[Block]], dtype: np.dtype[Any], base: Flow | None = None
    ) -> None:
        """`blocks` are the base's parameters and each link's; `base` is a flow without transforms."""
        self.links, self._base, self._dtype = tuple(links), base, dtype
        self.features = base.features if base is not None else 0
        self._blocks = [block for own in blocks for block in own]
        edges = np.cumsum([sum(block.size for block in own) for own in ((), *blocks)]).tolist()
        self._of_base, *self._own = (slice(*edge) for edge in pairwise(edges))
        self.n_weights: int = edges[-1]
        self._vector = np.zeros(self.n_weights, dtype)

    # ---- parameters --------------------------------------------------------------------------------------------------

    @property
    def vector(self) -> Array:
        """The parameters of now, which nobody writes to."""
        return self._vector

    def weights(self) -> Array:
        """A copy."""
        return self._vector.copy()

    def set_weights(self, values: Array) -> None:
        """Copy other ones in."""
        vector, start = np.array(values, self._dtype), 0
        for block in self._blocks:
            part = vector[start : start + block.size]
            part[:] = block.pack_named(block.named(part))  # what is no weight becomes zero
            start += block.size
        vector.flags.writeable = False
        self._vector = vector

    # ---- blocks of steps, (rows, steps, features) --------------------------------------------------------------------

    def states(self, rows: int) -> list[Any]:
        """The past of so many sequences that have not begun."""
        return [link.state(rows) for link in self.links]

    def run(
        self,
        vector: Array,
        inverse: bool,
        given: Array,
        context: Array | None,
        covariates: Array | None,
        states: Sequence[Any] | None,
    ) -> tuple[Array, Array]:
        """The other side of a block, and the log-derivative of each step; states go on by these steps."""
        value, log_det = given, np.zeros(given.shape[:2], self._dtype)
        order = range(len(self.links))
        for i in reversed(order) if inverse else order:
            state = None if states is None else states[i]
            value, own = self.links[i].run(vector[self._own[i]], inverse, value, context, covariates, state)
            log_det += own
        return value.astype(self._dtype, copy=False), log_det

    def parameters_of(self, vector: Array, link: int) -> Array:
        """Those of one link."""
        return vector[self._own[link]]

    def log_base(self, vector: Array, z: Array) -> Array:
        """The log density of each latent step under the base, (rows, steps)."""
        assert self._base is not None
        steps = z.reshape(-1, z.shape[2])
        log_prob = self._base.log_prob(at_least_a_tile(steps), parameters=self._base_parameters(vector))
        own: Array = log_prob[: len(steps)].reshape(z.shape[:2])
        return own

    def noise(self, vector: Array, seed: int, samples: range, begin: int, end: int) -> Array:
        """The latent steps from `begin` to `end` of these samples of a seed, (samples, steps, features)."""
        assert self._base is not None
        first, last = begin // NOISE_STEPS, -(-end // NOISE_STEPS)
        features = self._base.features
        drawn = np.empty((len(samples), (last - first) * NOISE_STEPS, features), self._dtype)
        for block in range(first, last):
            row = (block * MOST_SAMPLES + samples.start) * NOISE_STEPS
            own = self._base.sample(
                len(samples) * NOISE_STEPS, seed=seed, first_row=row, parameters=self._base_parameters(vector)
            )
            at = (block - first) * NOISE_STEPS
            drawn[:, at : at + NOISE_STEPS] = own.reshape(len(samples), NOISE_STEPS, features)
        return drawn[:, begin - first * NOISE_STEPS : end - first * NOISE_STEPS]

    def _base_parameters(self, vector: Array) -> Array | None:
        return vector[self._of_base] if self._of_base.stop else None
