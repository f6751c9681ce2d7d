"""The program of a chain over time: the core's program with the vector of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Array, Floats
from headrace._core import cpu
from headrace._flow.flow import Flow
from headrace._flow.program.module import Block

if TYPE_CHECKING:
    from headrace.sequences.runs import Run

# Noise is drawn for blocks of NOISE_STEPS steps: cpp/core/sequences/chain.hpp.
NOISE_STEPS, MOST_SAMPLES = 64, 2**31
MOST_DRAWN_STEPS = 2**32

Link = tuple[Any, ...]
"""A transform in the core's form: ("network", transform, whether weights are rounded to bf16, whether it reads running
sizes), ("prediction", order), ("adaptive", order, window, every, floor, ceiling, start, damping) or ("steps", program,
the same program in the other dtype or None)."""


class Filter:
    """The filter of a linear prediction, from its parameters: reflection coefficients and gains, in float64."""

    def __init__(self, parameters: NDArray[np.floating], features: int, order: int) -> None:
        """`parameters`: the inverse hyperbolic tangents of reflection coefficients, (features * order,)."""
        theta = parameters.astype(np.float64).reshape(features, order)
        self.k = np.tanh(theta)
        with np.errstate(invalid="ignore"):  # parameters may be NaN
            self.log_gain = (np.logaddexp(theta, -theta) - np.log(2.0)).sum(axis=1)

    @property
    def coefficients(self) -> Floats:
        """Coefficients of earlier steps, (features, order), the coefficient of the latest step first."""
        return cpu.step_up(self.k)

    def of_core(self) -> tuple[Floats, Floats, float]:
        """The filter in the core's form: reflection coefficients, gains, and the sum of the gains' logarithms."""
        return self.k, np.exp(self.log_gain), float(self.log_gain.sum())


class Weights(NamedTuple):
    """Parameters in the form that calls read: the core's weights, perhaps rounded, and the filters of predictions."""

    core: Any
    filters: dict[int, Filter]  # filters by the index of their link


class SequenceProgram:
    """A chain with one vector of parameters: those of the base, then those of each transform, from latent to data.

    A change of parameters replaces the vector, and never writes to it, so that a running call keeps its parameters.
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
        """`blocks`: the blocks of parameters of the base, then of each link. `base` is a flow without transforms.

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
        """The current parameters in the form that calls read."""
        return self._current[1]

    def vector_of(self, caller: Any) -> Weights:
        """The current parameters in the form that a call reads."""
        return self.vector

    def read_by_calls(self, parameters: Array) -> Weights:
        """Parameters, a vector of `n_weights`, in the form that calls read."""
        filters = {i: Filter(parameters[self._of_link[i]], self.features, order) for i, order in self._orders.items()}
        cores = [each.of_core() for each in filters.values()]
        return Weights(self.core.weights(np.ascontiguousarray(parameters), cores), filters)

    def weights(self) -> Array:
        """A copy of the current parameters."""
        return self._current[0].copy()

    def set_weights(self, values: Array) -> None:
        """Replace the parameters by a copy of `values`, with zero for entries that are not weights."""
        self._take(packed(self._blocks, values, self.dtype))

    def _take(self, vector: Array) -> None:
        self._current = vector, self.read_by_calls(vector)

    # ---- blocks of steps, (rows, steps, features) --------------------------------------------------------------------

    def states(self, rows: int) -> Any:
        """The state of `rows` sequences before their first step."""
        return self.core.state(rows)

    def stream(self, vector: Weights, state: Any, context: Array | None, frames: Array | None) -> Any:
        """A stream of the core that continues from `state`, with context and covariates of each sequence."""
        stream = self._stream(self.core, vector.core, state, self.standardised(context))
        if frames is not None:
            stream.set_frames(frames)
        return stream

    def score(self, run: Run, inverse: bool, **results: Any) -> None:
        """Write scores of all steps of a call, and the transformed steps, to `results` (cpp/bindings/ragged.cpp)."""
        given, inputs = run.given.core, run.inputs()
        self.core.scores(run.vector.core, inverse, given, *inputs, scorer=run.cells, **results)

    def sums(self, rows: int) -> Array:
        """Zeros, (rows,), to which sums over the steps of each sequence are added."""
        return np.zeros(rows)

    def draw(self, run: Run, key: int, x: Array) -> None:
        """Write samples with the seed `key` to x, (rows, steps, features)."""
        self.core.sample(run.vector.core, key, *run.inputs(), x)

    def standardised(self, context: Array | None) -> Array | None:
        """The context as networks read it, in the dtype of the flow: standardised if the program has a `scale`."""
        if context is not None and self.scale is not None:
            mean, std = self.scale
            context = (context.astype(np.float64) - mean) / std
        return None if context is None else np.ascontiguousarray(context, self.dtype)


def packed(blocks: Sequence[Block], values: Array, dtype: np.dtype[Any]) -> Array:
    """A copy of parameters, with zero for entries that are not weights."""
    vector = np.array(values, dtype)
    for block, part in zip(blocks, slices(*(block.size for block in blocks)), strict=True):
        vector[part] = block.pack_named(block.named(vector[part]))
    return vector


def size_of(transform: Any) -> int:
    """The number of a transform's parameters."""
    return sum(block.size for _, block in transform._blocks())


def slices(*sizes: int, first: int = 0) -> list[slice]:
    """The slices of a vector for consecutive parts of the given sizes."""
    return [slice(*ends) for ends in pairwise(accumulate(sizes, initial=first))]
