"""The program of a chain over time: the core's, with the vector of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np

from headrace._base.types import Array
from headrace._core import cpu
from headrace._flow.flow import Flow
from headrace._flow.program.module import Block
from headrace.sequences.filter import Filter

# Noise is drawn for blocks of this many steps: cpp/core/sequences/chain.hpp.
NOISE_STEPS, MOST_SAMPLES = 64, 2**31
MOST_DRAWN_STEPS = 2**32

Link = tuple[Any, ...]
"""A transform in the core's form: ("network", transform, whether weights are rounded to bf16, whether it reads running
sizes), ("prediction", order), ("adaptive", order, window, every, floor, ceiling, start, damping) or ("steps", program,
its like in the other dtype or None)."""


class Weights(NamedTuple):
    """Parameters as calls read them: the core's, with those of networks rounded, and the filters that they make."""

    core: Any
    filters: dict[int, Filter]  # by the index of the link


@dataclass(frozen=True)
class Cotangent:
    """Cotangents of the results of a chain; None for zero."""

    value: Array | None = None  # (rows, steps, features)
    log_det: Array | None = None  # (rows, steps)
    log_prob: Array | None = None  # (rows, steps): by log densities of steps, in place of the other two


@dataclass(frozen=True)
class ChainGradients:
    """Gradients by the arguments of a chain; None for those not requested."""

    inputs: Array | None = None
    parameters: Array | None = None
    context: Array | None = None
    covariates: Array | None = None


class SequenceProgram:
    """A chain with one vector of parameters: the base's, then each transform's, from latent to data.

    The vector is never changed but replaced: a call keeps the weights from its start.
    """

    def __init__(
        self,
        links: Sequence[Link],
        blocks: Sequence[Sequence[Block]],
        features: int,
        dtype: np.dtype[Any],
        base: Flow | None = None,
        scale: tuple[Array, Array] | None = None,
    ) -> None:
        """`blocks` are the base's parameters and each link's; `base` is a flow without transforms.

        `scale`: mean and standard deviation of the context's columns, which networks read standardised.
        """
        self.features, self.scale, self.dtype = features, scale, dtype
        self._blocks = [block for part in blocks for block in part]
        _, *self._of_link = slices(*(sum(block.size for block in part) for part in blocks))
        self.n_weights: int = self._of_link[-1].stop
        self._orders = {i: order for i, (kind, order, *_) in enumerate(links) if kind == "prediction"}
        is_single = dtype == np.float32
        kind = cpu.SequenceChainF32 if is_single else cpu.SequenceChainF64
        self._stream: Any = cpu.ChainStreamF32 if is_single else cpu.ChainStreamF64
        self.core: Any = kind(features, list(links), None if base is None else base._program)
        self._take(np.zeros(self.n_weights, dtype))

    # ---- parameters --------------------------------------------------------------------------------------------------

    @property
    def vector(self) -> Weights:
        """The current parameters as calls read them."""
        return self._current[1]

    def read_by_calls(self, parameters: Array) -> Weights:
        """These parameters, a vector of `n_weights`, as calls read them."""
        filters = {i: Filter(parameters[self._of_link[i]], self.features, order) for i, order in self._orders.items()}
        of_core = [one.of_core(self.dtype) for one in filters.values()]
        return Weights(self.core.weights(np.ascontiguousarray(parameters), of_core), filters)

    def weights(self) -> Array:
        """A copy of the current parameters."""
        return self._current[0].copy()

    def set_weights(self, values: Array) -> None:
        """Replace the parameters by a copy of these, of which entries that are no weights become zero."""
        self._take(packed(self._blocks, values, self.dtype))

    def _take(self, vector: Array) -> None:
        self._current = vector, self.read_by_calls(vector)

    # ---- blocks of steps, (rows, steps, features) --------------------------------------------------------------------

    def states(self, rows: int) -> Any:
        """The state of this many sequences before their first step."""
        return self.core.state(rows)

    def stream(self, vector: Weights, state: Any, context: Array | None, frames: Array | None) -> Any:
        """The core's stream of a state, with context and covariates of each sequence."""
        stream = self._stream(self.core, vector.core, state, self.standardised(context))
        if frames is not None:
            stream.set_frames(frames)
        return stream

    def run(
        self,
        vector: Weights,
        inverse: bool,
        given: Array,
        context: Array | None,
        covariates: Array | None,
        state: Any,
    ) -> tuple[Array, Array]:
        """The other side of a block, and the log-derivative of each step; the state advances by these steps."""
        pair: tuple[Array, Array] = self.core.run(
            vector.core, inverse, given, self.standardised(context), covariates, state
        )
        return pair

    def vjp(
        self,
        vector: Weights,
        inverse: bool,
        given: Array,
        context: Array | None,
        covariates: Array | None,
        cotangent: Cotangent,
        kinds: tuple[str, ...],
    ) -> tuple[Array, ChainGradients]:
        """Gradients of a block, and the log densities of its steps if the cotangent is of these, (rows, steps)."""
        sums = np.zeros(self.n_weights) if "parameters" in kinds else None
        value, by_log_det, by_log_prob = (
            None if one is None else np.ascontiguousarray(one, self.dtype)
            for one in (cotangent.value, cotangent.log_det, cotangent.log_prob)
        )
        log_prob, inputs, by_context, by_frames, terms = self.core.vjp(
            *(vector.core, inverse, given, self.standardised(context), covariates),
            *(value, by_log_det, by_log_prob, sums, "context" in kinds, "covariates" in kinds, "inputs" in kinds),
        )
        by_steps = by_log_det if by_log_prob is None else by_log_prob
        for i, by_value, by_residual, x, z in terms:
            assert sums is not None
            sums[self._of_link[i]] += vector.filters[i].gradient(inverse, by_value, by_residual, x, z, by_steps)
        if self.scale is not None and by_context is not None:  # by the context as it is given
            by_context = (by_context / self.scale[1]).astype(self.dtype)
        return log_prob, ChainGradients(inputs, sums, by_context, by_frames)

    def standardised(self, context: Array | None) -> Array | None:
        """The context that networks read, in the dtype of the flow."""
        if context is None or self.scale is None:
            return context
        mean, std = self.scale
        return np.asarray(((context.astype(np.float64) - mean) / std).astype(self.dtype))

    def log_base(self, vector: Weights, z: Array) -> Array:
        """The log density of each latent step under the base, (rows, steps)."""
        return np.asarray(self.core.log_base(vector.core, z))

    def log_prob(self, vector: Weights, x: Array, context: Array | None, covariates: Array | None, state: Any) -> Array:
        """The log density of each step, (rows, steps)."""
        z, log_det = self.run(vector, True, x, context, covariates, state)
        return log_det + self.log_base(vector, z)

    def noise(self, vector: Weights, seed: int, samples: range, begin: int, end: int) -> Array:
        """The latent steps from `begin` to `end` of these samples of a seed, (samples, steps, features)."""
        return np.asarray(self.core.noise(vector.core, seed, samples.start, len(samples), begin, end))


def packed(blocks: Sequence[Block], values: Array, dtype: np.dtype[Any]) -> Array:
    """A copy of parameters, of which entries that are no weights become zero."""
    vector = np.array(values, dtype)
    for block, part in zip(blocks, slices(*(block.size for block in blocks)), strict=True):
        vector[part] = block.pack_named(block.named(vector[part]))
    return vector


def size_of(transform: Any) -> int:
    """The number of a transform's parameters."""
    return sum(block.size for _, block in transform._blocks())


def slices(*sizes: int, first: int = 0) -> list[slice]:
    """Parts of a vector of these sizes, one after another."""
    return [slice(*ends) for ends in pairwise(accumulate(sizes, initial=first))]
