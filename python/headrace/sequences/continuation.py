"""The density of the steps after a prefix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from headrace._arrays.caller import Array, Caller
from headrace._base import arguments as check
from headrace._base.public import public
from headrace._base.rng import Rng, takes_rng
from headrace._base.types import Floats
from headrace._core import cpu
from headrace.sequences.arrays import Sequences, given_as
from headrace.sequences.forecast import Forecast, Quantiles
from headrace.sequences.program import MOST_DRAWN_STEPS
from headrace.sequences.runs import Run, tiled

_TOGETHER = 48  # draws of a prefix that take steps together, at least


@public("headrace.sequences")
class Continuation:
    """The density of the steps after a prefix, exactly; `SequenceFlow.given` makes it.

    A continuation keeps the flow of that time. The prefix was run once: later calls cost only their own steps.
    """

    def __init__(self, run: Run, quantiles: Quantiles | None = None) -> None:
        """`run`: the run of the prefix. `quantiles`: of a latent step, from which those of a step follow."""
        given, self._quantiles = run.given, quantiles
        self._run, self._features = run, given.features
        self._rows, self._position = given.rows, given.steps
        given.check(run.dtype)
        self._core = run.stream()
        self._core.push(given.array, False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Leading dimensions of the prefix: () for one, (rows,) for many."""
        return self._run.batch

    @property
    def position(self) -> int:
        """Steps of the prefix."""
        return self._position

    def __repr__(self) -> str:
        """Shape and length of the prefix."""
        return f"Continuation(shape={self.shape}, position={self._position})"

    @takes_rng
    def sample(
        self, n: int | Sequence[int], steps: int, seed: int | np.random.Generator | None = None, *, rng: Rng = None
    ) -> Array:
        """Draw the steps that follow.

        Args:
            n: How many draws for each prefix, or a shape of them; () for one each.
            steps: Of each draw.
            seed: As in `SequenceFlow.sample`: draw i of all prefixes takes the numbers of the next sequences there, at
                the steps that follow. So the values of ``flow.sample(rows, steps=t, seed=s)`` come back where its own
                beginnings are the prefix: bit for bit under one convolution, and up to rounding under several or a
                `Standardize`, through which the prefix has to go back.

        Returns:
            Shape ``(*n, *shape, steps, features)``, in the framework of the prefix.

        Raises:
            TypeError, ValueError: As in `SequenceFlow.sample`.
        """
        each = check.integers("n", n) if np.iterable(n) else (check.integer("n", n),)
        most = MOST_DRAWN_STEPS - self._position
        total, key = check.integer("steps", steps, least=1, most=most), check.seed(seed)
        self._check(total)
        caller, draws = self._run.caller, math.prod(each)
        result = caller.empty((*each, *self.shape, total, self._features), self._run.dtype)
        flat = result.reshape(draws * self._rows, total, self._features)
        for some, stream in self._together(draws):
            flat[some] = stream.pull(total, key, some.start)
        return caller.give(result)

    def log_prob(self, x: Array) -> Array:
        """Log density of the following steps given the prefix, the sum of `log_prob_steps`, shape ``(*n, *shape)``."""
        return self._scored(x, True)

    def log_prob_steps(self, x: Array) -> Array:
        """Log density of each step that follows.

        Args:
            x: Shape ``(*n, *shape, steps, features)``, as `sample` gives them: one for each prefix, or several.

        Returns:
            Shape ``(*n, *shape, steps)``.

        Raises:
            TypeError, ValueError: As in `SequenceFlow.log_prob`.
        """
        return self._scored(x, False)

    @takes_rng
    def forecast(
        self, steps: int, draws: int = 1000, seed: int | np.random.Generator | None = None, *, rng: Rng = None
    ) -> Forecast:
        """The distribution of each of the steps that follow: quantiles, intervals, scores.

        Args:
            steps: How many.
            draws: Paths by which steps beyond the first are known.
            seed: As in `sample`, which draws the paths.
        """
        paths = self.sample(check.integer("draws", draws, least=1), steps, seed)
        return Forecast(np.asarray(paths), None if self._quantiles is None else self._next)

    def _next(self, levels: Floats) -> Floats:
        """The quantiles of the next step, (levels, *shape, features)."""
        assert self._quantiles is not None
        run, n = self._run, len(levels)
        z = np.repeat(self._quantiles(levels), self._rows).astype(run.dtype).reshape(-1, 1, 1)
        values, given = np.empty_like(z), cpu.GivenSequences("levels", z, 1, np.ones(len(z), np.intp))
        context, frames = run.context_rows(), run.covariates.stacked()
        side = None if frames is None else list(np.asarray(tiled(frames, n)))
        own = run.program.standardised(tiled(context, n)), side
        state = self._core.copies(n).state
        run.program.core.scores(run.vector.core, False, given, *own, is_density=False, state=state, values=values)
        return values.reshape(n, *self.shape, 1)

    def _scored(self, x: Array, total: bool) -> Any:
        run, caller = self._run, Caller()
        given = Sequences(caller, "x", x, self._features)
        own = len(self.shape)
        if given.is_list or len(given.batch) < own or given.batch[len(given.batch) - own :] != self.shape:
            wanted = ", ".join(["...", *map(str, self.shape), "steps", str(self._features)])
            raise ValueError(f"x: expected shape ({wanted}), as the prefix has, got {np.shape(x)}")
        self._check(given.steps)
        given.check(run.dtype)
        scores = caller.empty((*given.batch, given.steps), run.dtype)
        flat = scores.reshape(given.rows, given.steps)
        for some, stream in self._together(given.rows // max(self._rows, 1)):
            flat[some] = stream.push(given.array[some], False)
        if not total:
            return caller.give(scores)
        return given_as(caller, np.cumsum(scores, axis=-1, dtype=np.float64)[..., -1], dtype=run.dtype)

    def _check(self, steps: int) -> None:
        self._run.covariates.check_steps(self._position + steps)

    def _together(self, draws: int) -> Iterator[tuple[slice, Any]]:
        """Draws of all prefixes that are computed together, as rows, and the stream of these."""
        size = max(1, _TOGETHER // max(self._rows, 1))
        for first in range(0, draws, size):
            last = min(first + size, draws)
            yield slice(first * self._rows, last * self._rows), self._core.copies(last - first)
