"""Calls on sequences: block by block of sequences, and range by range of their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller
from headrace._base.types import Array
from headrace.sequences.arrays import Block, Covariates, Sequences, blocks, chunks, given_as
from headrace.sequences.program import SequenceProgram, Weights


@dataclass(frozen=True)
class Part:
    """Some steps of a block, with the network's context and covariates."""

    block: Block
    begin: int
    values: Array  # (rows, steps, features)
    context: Array | None
    covariates: Array | None
    state: Any  # None where the part holds all steps


Scorer = Callable[[Part], Array]  # returns (rows, steps)


class Call(NamedTuple):
    """The arguments of a call, not yet checked."""

    name: str  # of the first argument
    value: Any
    context: Any
    covariates: Any
    parameters: Any = None
    lengths: Any = None
    integers: bool = False  # whether integers are taken, too


class Run:
    """One checked call: sequences, context, covariates, and the parameters from its start."""

    given: Sequences  # of a call that takes some
    shapes: tuple[Any, Any]  # of the context and the covariates of such a call as they were given; None for lists

    def __init__(
        self,
        program: SequenceProgram,
        caller: Caller,
        batch: tuple[int, ...],
        context: Array | None,
        covariates: Covariates,
        vector: Weights | None = None,
    ) -> None:
        """`context` is (rows, columns), or (1, columns) for all; `vector` replaces the program's own."""
        self.program, self.caller, self.batch, self.dtype = program, caller, batch, program.dtype
        self.context, self.covariates = context, covariates
        self.vector = program.vector if vector is None else vector

    @classmethod
    def opened(cls, flow: Any, call: Call) -> Run:
        """The checked arguments of a call of a flow."""
        caller, program = flow._caller(), flow._program
        kinds: dict[str, Any] = {"integers": call.integers, "holds": program.dtype}
        given = Sequences(caller, call.name, call.value, flow.features, lengths=call.lengths, **kinds)
        rows = context_of(caller, call.context, flow.context, given.batch)
        covariates = Covariates(flow, caller, call.covariates, given.batch)
        covariates.check(given.lengths)
        vector = None
        if (array := parameters_of(flow, caller, call.parameters)) is not None:
            vector = program.read_by_calls(array)
        run = cls(program, caller, given.batch, rows, covariates, vector)
        run.given, run.shapes = given, (getattr(call.context, "shape", None), getattr(call.covariates, "shape", None))
        return run

    def of_rows(self, rows: int, context: Array | None, covariates: Covariates) -> Run:
        """A run of other sequences with the same parameters."""
        return Run(self.program, self.caller, (rows,), context, covariates, self.vector)

    def context_of(self, index: NDArray[np.intp] | Sequence[int]) -> Array | None:
        """The context of these sequences, (rows, columns)."""
        if self.context is None:
            return None
        rows = self.context[np.zeros(len(index), np.intp) if len(self.context) == 1 else index]
        # Values are rounded after they are standardised: columns far from zero lose nothing.
        return np.ascontiguousarray(rows, self.dtype if self.program.scale is None else None)

    def log_prob(self, part: Part) -> Array:
        """Log densities of the steps of a part."""
        return self.program.log_prob(self.vector, part.values, part.context, part.covariates, part.state)

    def parts(self, whole: bool = False) -> Iterator[Part]:
        """All steps of all sequences; with `whole` each sequence in one part."""
        given = self.given
        for block, begin, end, *inputs in self._ranges(given.blocks(), whole):
            yield Part(block, begin, given.part(block, begin, end), *inputs)

    def _ranges(self, every: Iterator[Block], whole: bool = False) -> Iterator[tuple[Any, ...]]:
        """Blocks, the ends of their ranges of steps, and context, covariates and state there."""
        for block in every:
            index = block.index
            context, covariates = self.context_of(index), self.covariates.rows(index)
            ends = [(0, block.steps)] if whole else list(chunks(len(index), 0, block.steps, self.program.features))
            state = self.program.states(len(index)) if len(ends) > 1 else None
            for begin, end in ends:
                yield block, begin, end, context, covariates, state

    def scored(self, scorer: Scorer, whole: bool = False) -> Iterator[tuple[Part, Array]]:
        """The parts with their scores, zero after the end of a sequence."""
        for part in self.parts(whole):
            scores = scorer(part)
            scores[self.given.beyond(part.block, part.begin, part.begin + scores.shape[1])] = 0.0
            yield part, scores

    def totals(self, scorer: Scorer, whole: bool = False) -> Any:
        """Sums over the steps of each sequence, for the caller; in order, so that the parts do not affect them."""
        given = self.given
        sums = np.zeros(given.rows)
        for part, scores in self.scored(scorer, whole):
            wide = scores.astype(np.float64)
            wide[:, 0] += sums[part.block.index]
            sums[part.block.index] = np.cumsum(wide, axis=1)[:, -1]
        return given_as(self.caller, sums, given.batch, self.dtype)

    def steps(self, scorer: Scorer, whole: bool = False) -> Any:
        """Scores of each step, for the caller."""
        result = self.given.like(self.dtype)
        for part, scores in self.scored(scorer, whole):
            result.put(part.block, part.begin, scores)
        return result.give()

    def both(self, inverse: bool) -> tuple[Any, Any]:
        """The other side and its log-determinant, for the caller."""
        given = self.given
        values = given.like(self.dtype, given.features)

        def scored(part: Part) -> Array:
            inputs = (part.values, part.context, part.covariates, part.state)
            side, log_det = self.program.run(self.vector, inverse, *inputs)
            values.put(part.block, part.begin, side)
            return log_det

        log_det = self.totals(scored)
        return values.give(), log_det

    def drawn(self, steps: int, key: int) -> Any:
        """Samples of this many steps, (rows, steps, features), for the caller."""
        (rows,) = self.batch
        features = self.program.features
        result = self.caller.empty((rows, steps, features), self.dtype)
        self.covariates.check_steps(steps)
        for block, begin, end, *inputs in self._ranges(blocks(np.full(rows, steps, np.intp), features)):
            samples = range(block.index[0], block.index[-1] + 1)
            noise = self.program.noise(self.vector, key, samples, begin, end)
            x, _ = self.program.run(self.vector, False, noise, *inputs)
            result[samples.start : samples.stop, begin:end] = x
        return self.caller.give(result)


def parameters_of(flow: Any, caller: Any, parameters: Any) -> Any:
    """A vector in place of a flow's own parameters, checked; None for none."""
    if parameters is None:
        return None
    array = _arrays.shaped("parameters", parameters, (flow._program.n_weights,), caller)
    return _arrays.ready(array, flow.dtype, caller)


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
