"""Calls on sequences: their checked arguments, and results for the caller."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller
from headrace._base.types import Array
from headrace.sequences.arrays import Covariates, Sequences, given_as


class Run:
    """One checked call: sequences, context, covariates, and the parameters from its start."""

    given: Sequences  # of a call that takes some
    shapes: tuple[Any, Any]  # of the context and the covariates of such a call as they were given; None for lists
    cells: Any = None  # the scorer of steps in place of their density, a `Cells`

    def __init__(
        self,
        program: Any,
        caller: Caller,
        batch: tuple[int, ...],
        context: Array | None,
        covariates: Covariates,
        vector: Any = None,
    ) -> None:
        """`program`: that of the CPU, or of a device."""
        self.program, self.caller, self.batch, self.dtype = program, caller, batch, program.dtype
        self.context, self.covariates = context, covariates
        with caller.queue():
            self.vector = program.vector_of(caller) if vector is None else vector

    @classmethod
    def opened(
        cls,
        flow: Any,
        name: str,
        value: Any,
        context: Any,
        covariates: Any,
        parameters: Any = None,
        lengths: Any = None,
        integers: bool = False,
    ) -> Run:
        """The checked arguments of a call of a flow, of which the first one has this name."""
        caller, program, where = flow._caller(), flow._program, flow.device
        is_list = isinstance(value, (list, tuple))
        if caller.device is not None and (is_list or lengths is not None):
            what = f"{name}: expected an array of sequences on {where}, no list"
            what = what if is_list else f"lengths: expected None for sequences on {where}"
            raise ValueError(f"{what}; call once for those of each length, or .to('cpu') of the flow")
        given = Sequences(caller, name, value, flow.features, lengths=lengths, integers=integers)
        rows = context_of(caller, context, flow.context, given.batch)
        frames = Covariates(flow, caller, covariates, given.batch)
        frames.check(given.lengths)
        vector = None
        if parameters is not None:
            array = _arrays.shaped("parameters", parameters, (program.n_weights,), caller)
            vector = program.read_by_calls(_arrays.ready(array, flow.dtype, caller))
        run = cls(program, caller, given.batch, rows, frames, vector)
        run.given, run.shapes = given, (getattr(context, "shape", None), getattr(covariates, "shape", None))
        return run

    def inputs(self) -> tuple[Array | None, Any]:
        """Context and covariates for calls of the program."""
        return self.program.standardised(self.context), self.covariates.of_program()

    def context_rows(self) -> Array | None:
        """A copy of the context of each sequence, (rows, columns)."""
        if self.context is None:
            return None
        # What is standardised is rounded after that: columns far from zero lose nothing.
        rows = np.broadcast_to(self.context, (math.prod(self.batch), self.context.shape[1]))
        return np.array(rows, self.dtype if self.program.scale is None else None, order="C")

    def stream(self, state: Any = None) -> Any:
        """The core's stream of all sequences, before their first step or with the state that they have."""
        program = self.program
        state = program.states(math.prod(self.batch)) if state is None else state
        return program.stream(self.vector, state, self.context_rows(), self.covariates.stacked())

    def totals(self) -> Any:
        """Log densities of sequences, for the caller: sums over steps in order."""
        with self.caller.queue():
            return self._sums(True)

    def steps(self) -> Any:
        """Log densities of steps, for the caller."""
        with self.caller.queue():
            result = self.given.like(self.dtype)
            self.program.score(self, True, steps=result)
        return self.given.give(result)

    def both(self, inverse: bool) -> tuple[Any, Any]:
        """The other side and its log-determinant, for the caller."""
        given = self.given
        with self.caller.queue():
            values = given.like(self.dtype, given.features)
            sums = self._sums(inverse, is_density=False, values=values)
        return given.give(values), sums

    def drawn(self, steps: int, key: int) -> Any:
        """Samples of this many steps, (rows, steps, features), for the caller."""
        self.covariates.check_steps(steps)
        with self.caller.queue():
            x = self.caller.empty((*self.batch, steps, self.program.features), self.dtype)
            self.program.draw(self, key, x)
        return self.caller.give(x)

    def _sums(self, inverse: bool, **more: Any) -> Any:
        sums = self.program.sums(self.given.rows)
        self.program.score(self, inverse, totals=sums, **more)
        return given_as(self.caller, sums, self.batch, self.dtype)


def tiled(rows: NDArray[Any] | None, n: int) -> NDArray[Any] | None:
    """All rows n times."""
    return None if rows is None else np.concatenate([rows] * n)


def context_of(caller: Any, context: Any, columns: int, batch: tuple[int, ...]) -> NDArray[Any] | None:
    """One row for each sequence, or one for all."""
    rows = int(np.prod(batch))
    if len(batch) > 1 and columns and context is not None:
        array = caller.open("context", context, whole=True)
        if array.shape == (*batch, columns):
            with caller.queue():
                own: NDArray[Any] = array.reshape(rows, columns)
            return own
    return _arrays.context_rows(context, rows, columns, caller=caller)
