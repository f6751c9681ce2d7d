"""Links of a chain over time: each takes blocks of steps, (rows, steps, features), in either direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace._core import LEAST_ROWS, cpu

if TYPE_CHECKING:
    from headrace.sequences.settings import CausalSettings
    from headrace.transforms.transform import Transform

__all__ = ["CausalLink", "Link", "StepLink", "at_least_a_tile"]

Block = NDArray[Any]




class Link(Protocol):
    """One transform of the chain, for the parameters that a call gives."""

    def state(self, rows: int) -> Any:
        """What it keeps of the past of so many sequences; None for nothing."""

    def run(
        self,
        parameters: NDArray[Any],
        inverse: bool,
        given: Block,
        context: NDArray[Any] | None,
        covariates: NDArray[Any] | None,
        state: Any,
    ) -> tuple[Block, Block]:
        """The other side, and the log-derivative of each step, (rows, steps)."""


class CausalLink:
    """A causal convolution, which the core computes."""

    def __init__(self, settings: CausalSettings, structure: Any, dtype: np.dtype[Any]) -> None:
        """`structure`: the network in the core."""
        self._reads_data = settings.reads == "data"
        self._outputs = settings.outputs
        self._context, self._covariates = bool(settings.context), bool(settings.covariates)
        self._dtype = dtype
        kind = cpu.CausalTransformF32 if dtype == np.float32 else cpu.CausalTransformF64
        self.core = kind(structure, reads_data=self._reads_data, **settings.map_options())

    def state(self, rows: int) -> Any:
        """See `Link`."""
        return self.core.state(rows)

    def _own(self, context: Any, covariates: Any) -> dict[str, Any]:
        """Of what the chain is given, what this network reads."""
        return {
            "context": context if self._context else None,
            "covariates": covariates if self._covariates else None,
        }

    def run(
        self,
        parameters: NDArray[Any],
        inverse: bool,
        given: Block,
        context: NDArray[Any] | None,
        covariates: NDArray[Any] | None,
        state: Any,
    ) -> tuple[Block, Block]:
        """See `Link`."""
        own = given.astype(self._dtype, copy=False)
        value, log_det = np.empty(own.shape, self._dtype), np.empty(own.shape[:2], self._dtype)
        verb = self.core.parallel if inverse == self._reads_data else self.core.sequential
        verb(parameters, own, value, log_det, state=state, **self._own(context, covariates))
        return value, log_det

    def raw(
        self,
        parameters: NDArray[Any],
        read: Block,
        context: NDArray[Any] | None,
        covariates: NDArray[Any] | None,
        state: Any,
    ) -> NDArray[Any]:
        """Raw parameters of the map, (rows, steps, outputs), from the values of the side that the network sees."""
        own = read.astype(self._dtype, copy=False)
        raw = np.empty((*own.shape[:2], self._outputs), self._dtype)
        self.core.outputs(parameters, own, raw, state=state, **self._own(context, covariates))
        return raw


class StepLink:
    """A transform of rows, applied to each step by itself."""

    def __init__(self, transform: Transform) -> None:
        """It takes no context."""
        self._transform = transform

    def state(self, rows: int) -> None:
        """See `Link`."""

    def run(
        self,
        parameters: NDArray[Any],
        inverse: bool,
        given: Block,
        context: NDArray[Any] | None,
        covariates: NDArray[Any] | None,
        state: Any,
    ) -> tuple[Block, Block]:
        """See `Link`."""
        verb = self._transform.inverse if inverse else self._transform.forward
        steps = given.reshape(-1, given.shape[2])
        value, log_det = verb(at_least_a_tile(steps), parameters=parameters if len(parameters) else None)
        return value[: len(steps)].reshape(given.shape), log_det[: len(steps)].reshape(given.shape[:2])


def at_least_a_tile(rows: NDArray[Any]) -> NDArray[Any]:
    """The rows, and copies of the first one if they are few, so that bits do not depend on their number."""
    if not 0 < len(rows) < LEAST_ROWS:
        return rows
    return np.concatenate([rows, np.repeat(rows[:1], LEAST_ROWS - len(rows), axis=0)])
