"""Calls on sequences: block by block of sequences, and range by range of their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller
from headrace._base.types import Array
from headrace.sequences.arrays import Block, Covariates, Sequences, blocks, chunks
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


class Run:
    """One checked call: sequences, context, covariates, and the parameters from its start."""

    def __init__(
        self,
        program: SequenceProgram,
        caller: Caller,
        batch: tuple[int, ...],
        context: Array | None,
        covariates: Covariates,
        dtype: np.dtype[Any],
        *,
        given: Sequences | None = None,
        vector: Weights | None = None,
    ) -> None:
        """`context` is (rows, columns), or (1, columns) for all; `vector` replaces the program's own."""
        self.program, self.caller, self.batch, self.dtype = program, caller, batch, dtype
        self.context, self.covariates = context, covariates
        self._given = given
        self.vector = program.vector if vector is None else vector

    @property
    def given(self) -> Sequences:
        """The sequences of a call that takes some."""
        assert self._given is not None
        return self._given

    def context_of(self, index: NDArray[np.intp] | Sequence[int]) -> Array | None:
        """The context of these sequences, (rows, columns)."""
        if self.context is None:
            return None
        rows = self.context[np.zeros(len(index), np.intp) if len(self.context) == 1 else index]
        # What is standardised is rounded after that: columns far from zero lose nothing.
        return np.ascontiguousarray(rows, self.dtype if self.program.scale is None else None)

    def log_prob(self, part: Part) -> Array:
        """Log densities of the steps of a part."""
        return self.program.log_prob(self.vector, part.values, part.context, part.covariates, part.state)

    def parts(self, whole: bool = False) -> Iterator[Part]:
        """All steps of all sequences; with `whole` each sequence in one part."""
        given = self.given
        for block in given.blocks():
            index = block.index
            context, covariates = self.context_of(index), self.covariates.rows(index)
            edges = [(0, block.steps)] if whole else list(chunks(len(index), 0, block.steps, given.features))
            state = self.program.states(len(index)) if len(edges) > 1 else None
            for begin, end in edges:
                yield Part(block, begin, given.part(block, begin, end), context, covariates, state)

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
        result = given.each(self.dtype)
        result[...] = sums
        return given.give_each(result)

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
        for block in blocks(np.full(rows, steps, np.intp), features):
            context, covariates = self.context_of(block.index), self.covariates.rows(block.index)
            edges = list(chunks(len(block.index), 0, steps, features))
            state = self.program.states(len(block.index)) if len(edges) > 1 else None
            samples = range(block.index[0], block.index[-1] + 1)
            for begin, end in edges:
                noise = self.program.noise(self.vector, key, samples, begin, end)
                x, _ = self.program.run(self.vector, False, noise, context, covariates, state)
                result[samples.start : samples.stop, begin:end] = x
        return self.caller.give(result)


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
