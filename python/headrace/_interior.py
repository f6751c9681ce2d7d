"""What a fit, an ascent or a distillation needs of a flow: the one place where they meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.transforms.masked import Standardize, Transform

if TYPE_CHECKING:
    from headrace._arrays.caller import Caller
    from headrace._evaluation import Pair
    from headrace._module import Block, Program
    from headrace.bases import Base

__all__ = ["Interior", "Trainable"]


class Interior:
    """What is not public of a flow, as it is now; `Flow._interior` gives it."""

    def __init__(self, flow: Any) -> None:
        """`flow`: a `headrace.flow.Flow`, which imports this; its members are read when they are asked for."""
        self._flow = flow

    @property
    def chain(self) -> tuple[Transform, ...]:
        """The transforms as the flow got them: their structure counts, not their parameters."""
        chain: tuple[Transform, ...] = self._flow._chain
        return chain

    @property
    def base(self) -> Base:
        """The base as the flow got it, likewise."""
        base: Base = self._flow._base
        return base

    @property
    def standardize(self) -> Standardize | None:
        """The `Standardize` at the data end; None if there is none."""
        last = self.chain[-1] if self.chain else None
        return last if isinstance(last, Standardize) else None

    @property
    def is_fresh(self) -> bool:
        """Whether there is one, and nothing has set it."""
        last = self.standardize
        return last is not None and last.is_identity

    @property
    def widest(self) -> int:
        """Units of the widest hidden layer; 0 without any."""
        return max((n for t in self.chain for n in t._hidden()), default=0)

    @property
    def program(self) -> Program:
        """The compiled program, another one after `rescale`."""
        return self._flow._program

    def noise_program(self) -> Program:
        """A program on the CPU that draws rows of the standard density under the base."""
        return type(self.program)(self._flow.features, 0, self.base.name, [], 0, [], [])

    @property
    def on_device(self) -> bool:
        """Whether it computes on a CUDA device."""
        return self._flow._device is not None

    def caller(self) -> Caller:
        """Who takes arrays to where it computes."""
        caller: Caller = self._flow._caller()
        return caller

    def vector(self) -> NDArray[Any]:
        """The parameters on the host, a copy."""
        vector: NDArray[Any] = self._flow._vector()
        return vector

    def blocks(self) -> list[Block]:
        """Those of the parameters, in the order of the vector."""
        return [block for _, block in self._flow._blocks()]

    def rescale(
        self, links: tuple[Transform, ...] | None, context: Pair | None, parameters: NDArray[Any] | None = None
    ) -> None:
        """Standardise data (links for the last one) or context from now on; the parameters stay, or are these."""
        flow = self._flow
        if parameters is None:
            parameters = self.vector()
        if links is not None:
            flow._chain = (*flow._chain[:-1], *links)
        if context is not None:
            flow._standardize_context = context
        flow._program = flow._compile(flow.dtype, parameters)


class Trainable(Protocol):
    """A flow, as a fit sees it; `headrace.flow.Flow` is one."""

    parameters: Any

    @property
    def features(self) -> int:
        """Number of coordinates."""

    @property
    def context(self) -> int:
        """Number of context columns."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of parameters and results."""

    @property
    def standardize_context(self) -> Any:
        """Mean and standard deviation of context columns, or None."""

    @property
    def _interior(self) -> Interior:
        """The rest."""

    def log_prob(self, x: Any, context: Any = None, *, parameters: Any = None) -> Any:
        """Log density of each row."""
