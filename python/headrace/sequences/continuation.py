"""The density of the steps after a prefix, and forecasts of these steps: quantiles, intervals and scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from headrace._arrays.caller import Array, Caller
from headrace._base import arguments as check
from headrace._base.public import public
from headrace._base.rng import Rng, takes_rng
from headrace._base.types import Floats
from headrace._core import cpu
from headrace._flow.bases import Logistic, StandardNormal
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.support import Support, circles_of
from headrace.sequences.arrays import Sequences, given_as
from headrace.sequences.program import MOST_DRAWN_STEPS
from headrace.sequences.runs import Run, tiled
from headrace.sequences.sequential import OverTime

Quantiles = Callable[[Floats], Floats]

_TOGETHER = 48  # the number of sequences computed at a time, or the number of rows if more


@public("headrace.sequences")
class Continuation:
    """The exact density of the steps after a prefix, as returned by `SequenceFlow.given`.

    A continuation keeps the parameters that the flow had when the continuation was created. The prefix is evaluated
    once, so that calls of a continuation compute only the steps after the prefix.
    """

    def __init__(self, run: Run, quantiles: Quantiles | None = None) -> None:
        """`run`: the `Run` of the prefix. `quantiles`: the result of `quantiles_of_base` for the flow."""
        prefix, self._quantiles = run.given, quantiles
        self._run, self._features = run, prefix.features
        self._rows, self._position = prefix.rows, prefix.steps
        prefix.check(run.dtype)
        self._core = run.stream()
        self._core.push(prefix.array, False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Leading dimensions of the prefix: () for one sequence, (rows,) for several."""
        return self._run.batch

    @property
    def position(self) -> int:
        """The number of steps of the prefix."""
        return self._position

    def __repr__(self) -> str:
        """Shape and length of the prefix."""
        return f"Continuation(shape={self.shape}, position={self._position})"

    @takes_rng
    def sample(
        self, n: int | Sequence[int], steps: int, seed: int | np.random.Generator | None = None, *, rng: Rng = None
    ) -> Array:
        """Draw the steps that follow the prefix.

        Args:
            n: The number of draws for each prefix, or a shape of draws; () for one draw of each.
            steps: The number of steps of each draw.
            seed: As in `SequenceFlow.sample`: for p prefixes, draw i of prefix j has the random values of sequence i *
                p + j at the steps after the prefix. If prefixes are the first steps of ``flow.sample(rows, steps=t,
                seed=s)``, draw 0 with the seed s is the rest of that sample: bit for bit for one convolution, and up to
                rounding for several convolutions or a `Standardize`, because the prefix passes them in the inverse
                direction.

        Returns:
            The draws, shape ``(*n, *shape, steps, features)``, in the framework of the prefix.

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
        """Log density of the steps after the prefix, the sum of `log_prob_steps`, shape ``(*n, *shape)``."""
        return self._scored(x, True)

    def log_prob_steps(self, x: Array) -> Array:
        """Log density of each step after the prefix.

        Args:
            x: Steps after the prefix, shape ``(*n, *shape, steps, features)`` like results of `sample`.

        Returns:
            The log densities, shape ``(*n, *shape, steps)``.

        Raises:
            TypeError, ValueError: As in `SequenceFlow.log_prob`.
        """
        return self._scored(x, False)

    @takes_rng
    def forecast(
        self, steps: int, draws: int = 1000, seed: int | np.random.Generator | None = None, *, rng: Rng = None
    ) -> Forecast:
        """The distribution of each step after the prefix, as a `Forecast` with quantiles, intervals and scores.

        Args:
            steps: The number of steps.
            draws: The number of sampled paths, which represent the distribution.
            seed: As in `sample`, which draws the paths.
        """
        paths = self.sample(check.integer("draws", draws, least=1), steps, seed)
        return Forecast(np.asarray(paths), None if self._quantiles is None else self._next)

    def _next(self, levels: Floats) -> Floats:
        """The exact quantiles of the first step after the prefix, (levels, *shape, features)."""
        assert self._quantiles is not None
        run, n = self._run, len(levels)
        z = np.repeat(self._quantiles(levels), self._rows).astype(run.dtype).reshape(-1, 1, 1)
        values, latent = np.empty_like(z), cpu.GivenSequences("levels", z, 1, np.ones(len(z), np.intp))
        context, frames = run.context_rows(), run.covariates.stacked()
        side = None if frames is None else list(np.asarray(tiled(frames, n)))
        inputs = run.program.standardised(tiled(context, n)), side
        state = self._core.copies(n).state
        run.program.core.scores(run.vector.core, False, latent, *inputs, is_density=False, state=state, values=values)
        return values.reshape(n, *self.shape, 1)

    def _scored(self, x: Array, total: bool) -> Any:
        run, caller = self._run, Caller()
        opened = Sequences(caller, "x", x, self._features)
        n_axes = len(self.shape)
        if opened.is_list or len(opened.batch) < n_axes or opened.batch[len(opened.batch) - n_axes :] != self.shape:
            wanted = ", ".join(["...", *map(str, self.shape), "steps", str(self._features)])
            raise ValueError(f"x: expected shape ({wanted}), as the prefix has, got {np.shape(x)}")
        self._check(opened.steps)
        opened.check(run.dtype)
        scores = caller.empty((*opened.batch, opened.steps), run.dtype)
        flat = scores.reshape(opened.rows, opened.steps)
        for some, stream in self._together(opened.rows // max(self._rows, 1)):
            flat[some] = stream.push(opened.array[some], False)
        if not total:
            return caller.give(scores)
        return given_as(caller, np.cumsum(scores, axis=-1, dtype=np.float64)[..., -1], dtype=run.dtype)

    def _check(self, steps: int) -> None:
        self._run.covariates.check_steps(self._position + steps)

    def _together(self, draws: int) -> Iterator[tuple[slice, Any]]:
        """Yield slices of draws that are computed together, each with a stream of copies of the prefixes."""
        size = max(1, _TOGETHER // max(self._rows, 1))
        for first in range(0, draws, size):
            last = min(first + size, draws)
            yield slice(first * self._rows, last * self._rows), self._core.copies(last - first)


def quantiles_of_base(flow: Any) -> Quantiles | None:
    """The base's quantile function, if known and if a step is an increasing function of its latent step; or None."""
    rises = flow.features == 1 and all(
        isinstance(t, (OverTime, Standardize, Support))
        and (not isinstance(t, Support) or not circles_of(t))
        and getattr(getattr(t, "_settings", None), "inner", None) is None
        for t in flow._chain
    )
    known: dict[type, Quantiles] = {
        Logistic: lambda levels: np.log(levels) - np.log1p(-levels),
        StandardNormal: np.vectorize(NormalDist().inv_cdf, otypes=[float]),
    }
    return known.get(type(flow._base)) if rises else None


@public("headrace.sequences")
class Forecast:
    """The distribution of each step after a prefix, in NumPy arrays, as returned by `Continuation.forecast`.

    The distribution is represented by sampled paths. The **first** step is exact for flows of one value per step on
    `Logistic` or `StandardNormal` without an inner flow, such as a default `WaveNet`: such a step increases with its
    latent value, so that quantiles of the base become quantiles of the step.
    """

    def __init__(self, draws: Array, first: Quantiles | None) -> None:
        """`first`: maps levels to exact quantiles of the first step, ``(levels, *shape, features)``; or None."""
        self.draws: Floats = draws
        """The sampled paths, each with all steps, shape ``(draws, *shape, steps, features)``."""
        self._first = first

    def __repr__(self) -> str:
        """The numbers of steps and draws, and whether the first step is exact."""
        steps, exact = self.draws.shape[-2], self._first is not None
        return f"Forecast(steps={steps}, draws={len(self.draws)}, first_step_is_exact={exact})"

    def quantiles(self, levels: Any) -> Floats:
        """The quantiles of each value, shape ``(*levels, *shape, steps, features)``.

        Args:
            levels: A probability between 0 and 1, or an array of them.

        >>> import numpy as np, headrace as hr
        >>> rest = hr.WaveNet(layers=4, channels=8).given(np.zeros((5, 200, 1)))
        >>> low, middle, high = rest.forecast(24, draws=100).quantiles([0.1, 0.5, 0.9])
        >>> middle.shape, bool((low < high).all())
        ((5, 24, 1), True)
        """
        shares = np.asarray(levels, np.float64)
        if not ((shares > 0.0) & (shares < 1.0)).all():
            raise ValueError(f"levels: expected probabilities between 0 and 1, got {levels!r}")
        quantiles = np.quantile(self.draws, shares, axis=0)
        if self._first is not None:
            quantiles[..., 0, :] = self._first(shares.reshape(-1)).reshape(quantiles[..., 0, :].shape)
        return np.asarray(quantiles)

    def interval(self, share: float = 0.9) -> tuple[Floats, Floats]:
        """The ends of each value's central interval of probability `share`, two arrays ``(*shape, steps, features)``.

        Args:
            share: A probability between 0 and 1.
        """
        half = 0.5 * check.number("share", share, above=0.0, below=1.0)
        low, high = self.quantiles([0.5 - half, 0.5 + half])
        return low, high

    def crps(self, x: Array) -> Floats:
        """The continuous ranked probability score of each observed value, in the value's units: lower is better.

        The score is ∫ (F(v) − 1{x ≤ v})² dv for the forecast's distribution function F (Gneiting, Raftery 2007), the
        absolute error if the forecast has no spread. The estimate from draws has no bias; for an exact first step,
        quantiles replace the draws.

        Args:
            x: The observed steps, NaN for missing ones, shape ``(*shape, steps, features)``.

        Returns:
            The scores, shape ``(*shape, steps, features)``, with NaN for missing steps.
        """
        came, n = np.asarray(x, np.float64), len(self.draws)
        if came.shape != self.draws.shape[1:]:
            raise ValueError(f"x: expected shape {self.draws.shape[1:]}, got {came.shape}")
        factor = np.full(came.shape, n / max(n - 1.0, 1.0))
        values = np.sort(self.draws.astype(np.float64), axis=0)
        if self._first is not None:
            values[..., 0, :], factor[..., 0, :] = self._first((np.arange(n) + 0.5) / n), 1.0
        rank = (2.0 * np.arange(n) - n + 1.0).reshape(n, *[1] * came.ndim)
        return np.asarray(np.abs(values - came).mean(axis=0) - factor * (rank * values).sum(axis=0) / n**2)
