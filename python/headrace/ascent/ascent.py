"""A running dual ascent: steps that move rows towards the base, their history, and the resulting flow."""

from __future__ import annotations

import abc
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._base import progress as _progress
from headrace._base.types import Floats
from headrace._fit.clock import Clock
from headrace._fit.starts.scores import Shares
from headrace._flow.bases import Base, Normal, StandardNormal
from headrace._flow.transforms.elementwise import Elementwise
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.rotation import Rotation
from headrace._flow.transforms.transform import Transform
from headrace.ascent import directions as _directions
from headrace.ascent.flow import AscentFlow, AscentHistory
from headrace.ascent.standardised_rows import Parts, StandardisedRows, jittered

Judged = tuple[float, float | None]
"""The mean log-likelihoods of training rows and of held-out rows; the second is None without held-out rows."""

# The defaults of docs/notes/dual_ascent.md.
BLOCK = 32  # the size of each dense block of a rotation that has blocks
DENSE_BELOW = 128  # the number of features below which random rotations are dense
SLOPE = 1e-3  # the slope setting of an ascent's maps
SLOWER = 1.5  # the factor by which a step may take longer than the step before it
AGREES = {"float32": 1e-2, "float64": 1e-5}  # the largest difference of history and flow, in units of max(1, |nats|)


class Ascent(abc.ABC):
    """A running ascent: the training rows and the held-out rows, at their positions after the steps so far.

    Columns whose values do not vary are left out: `n` is the number of the other columns, those with a spread.
    """

    default_directions: str

    def __init__(
        self, settings: Any, rows: StandardisedRows, rng: np.random.Generator, n_steps: int, copies: int
    ) -> None:
        self.settings, self.rows, self.rng, self.n_steps = settings, rows, rng, n_steps
        self.history = AscentHistory()
        self.features, self.n = len(rows.mean), len(rows.active)
        self.directions = settings.directions or self.default_directions
        many = self.directions == "random" and self.n >= DENSE_BELOW
        blocks = (settings.rotations or ("blocks" if many else "dense")) == "blocks"
        self.sizes = [min(BLOCK, self.n - start) for start in range(0, self.n, BLOCK)] if blocks else [self.n]
        self.constant = 0.5 * self.features * math.log(settings.precision / (2.0 * math.pi)) - np.log(rows.std).sum()
        self.library, self.copies = rows.source.library, copies if rows.group is None else 0
        self.flat = self._flat(rows.own), self._flat(rows.others)
        """The contribution of columns without spread to the mean log-likelihoods, of training and of held-out rows."""
        self.own, self.others = ([(self._active(z), weights) for z, weights in of] for of in (rows.own, rows.others))
        self.count = rows.count
        self.is_resolved = True
        """Whether the flow of all steps agrees with the ascent."""
        if self.copies:
            self.own = [jittered(z, w, copies, settings.jitter * rows.unit, rng) for z, w in self.own]
            self.count *= copies
        weights = [of_rows for _, of_rows in self.own]
        self.shares, self.counts = Shares.over(weights, self.count, rows.source)
        self.effective_rows = self.shares.rows / max(self.copies, 1)  # noisy copies do not count

    def _active(self, z: NDArray[Any]) -> NDArray[Any]:
        """The columns of `z` whose values vary in the training rows."""
        return z if self.n == self.features else z[:, self.library.asarray(self.rows.active)]

    def _sum(self, of_parts: list[float]) -> float:
        """The sum of the parts' values over all processes of the group."""
        return self.rows.source.total(of_parts)

    def _total(self, parts: Parts) -> float:
        """The sum of all rows' weights; a row without a weight counts as 1."""
        return self._sum([float(len(z)) if weights is None else float(weights.sum()) for z, weights in parts])

    def _flat(self, parts: Parts) -> float:
        """The contribution to the mean log-likelihood of columns whose values do not vary."""
        if self.n == self.features:
            return 0.0
        rest = self.library.asarray(np.setdiff1d(np.arange(self.features), self.rows.active))
        squares = [_arrays.weighted_sum(np.square(z[:, rest]).sum(axis=1), weights) for z, weights in parts]
        penalty, total = self._sum(squares), self._total(parts)
        return -0.5 * self.settings.precision * penalty / total if total else 0.0

    # ---- the interface of an ascent

    @abc.abstractmethod
    def taken(self) -> Iterator[Judged]:
        """Take all steps; yield the log-likelihoods before the first step and after each step."""

    @abc.abstractmethod
    def transforms(self, count: int) -> list[list[Transform]]:
        """The transforms of the first `count` steps."""

    @abc.abstractmethod
    def checks(self) -> tuple[list[Judged], Any, Any]:
        """The log-likelihoods of some rows before the first step and after each step, and the indices of these rows.

        The indices are two lists with an array for each part, of training rows and of held-out rows; None stands for
        all rows.
        """

    def coordinates(self, count: int) -> list[Floats]:
        """The log-likelihood L of eq. 23 of each coordinate, for each of the first `count` steps; [] if unknown."""
        return []

    # ---- the run

    def go(self, progress: bool, clock: Clock) -> AscentFlow:
        """Take all steps that patience and the clock allow; return the flow of the best prefix, also after Ctrl-C."""
        s, history, begin = self.settings, self.history, time.perf_counter()
        bar = _progress.bar(self.n_steps, "ascent", "step", progress)
        last = begin
        try:
            for log_likelihood, held_out in self.taken() if self.n else iter([self._judged((0.0, 0.0))]):
                history.log_likelihood.append(log_likelihood)
                history.seconds.append(time.perf_counter() - begin)
                step = len(history.log_likelihood) - 1
                judged = history.validation_log_likelihood
                if held_out is None:
                    history.best_step = step
                else:
                    judged.append(held_out)
                    if held_out > judged[history.best_step]:
                        history.best_step = step
                bar.set_postfix({"train": f"{log_likelihood:.3f}"}, refresh=False)
                bar.update(min(step, 1))
                if s.patience is not None and step - history.best_step >= s.patience:
                    history.stopped = "patience"
                    break
                now = time.perf_counter()
                if not clock.has(SLOWER * (now - last)):
                    history.stopped = "time_budget"
                    break
                last = now
            else:
                history.stopped = "steps" if self.n else "constant"
        except KeyboardInterrupt:
            history.stopped = "interrupted"
        finally:
            bar.close()
        if history.log_likelihood and self.n:
            history.coordinates = self.coordinates(len(history.log_likelihood) - 1)
        return self._agreed(self.flow())

    def flow(self, count: int | None = None) -> AscentFlow:
        """The flow of the first `count` steps, by default of the steps up to the best step."""
        s = self.settings
        base: Base = StandardNormal(self.features)
        if s.precision != 1.0:
            base = Normal(self.features, scale=s.precision**-0.5, trainable=False)
        steps = self.transforms(self.history.best_step if count is None else count) if self.n else []
        return AscentFlow(steps, Standardize(self.rows.mean, self.rows.std), base, dtype=s.dtype)

    def whole(self) -> AscentFlow:
        """The flow of all steps taken, from which a joint training starts, including the steps after the best step."""
        return self.flow(len(self.history.log_likelihood) - 1 if self.is_resolved else None)

    def _agreed(self, flow: AscentFlow) -> AscentFlow:
        """The flow of the best prefix whose mean log-densities agree with the ascent's own measurement."""
        history, best = self.history, self.history.best_step
        checks, training, held_out = self.checks()
        if best >= len(checks):
            return flow
        device, parties = self.rows.device, self._means(training, held_out)

        def agrees(count: int) -> bool:
            part = flow[:count] if device is None else flow[:count].to(repr(device))
            for i, mean_of in parties:
                mean, want = mean_of(part), checks[count][i]
                assert want is not None
                if not abs(mean - want) <= AGREES[self.settings.dtype.name] * max(1.0, abs(want)):
                    return False
            return True

        if agrees(best):
            return flow
        low, high = 0, best  # a prefix of 0 steps agrees, a prefix of `high` does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if agrees(middle) else (low, middle)
        judged = history.validation_log_likelihood
        history.best_step = int(np.argmax(judged[: low + 1])) if judged else low
        self.is_resolved = False
        warnings.warn(
            f"x: after {low} of {best} steps {self.settings.dtype.name} no longer resolves what the ascent does to "
            f"some rows; the first {history.best_step} steps are kept",
            RuntimeWarning,
            stacklevel=6,
        )
        return flow[: history.best_step]

    def _means(self, training: Any, held_out: Any) -> list[tuple[int, Callable[[AscentFlow], float]]]:
        """Pairs of 0 (training rows) or 1 (held-out rows) and a function from a flow to its mean log-likelihood."""

        def mean_of(parts: Parts, chosen: Any) -> Callable[[AscentFlow], float]:
            if chosen is not None:
                parts = [(x[i], None if w is None else w[i]) for (x, w), i in zip(parts, chosen, strict=True)]
            total = self._total(parts)
            return lambda flow: self._sum([_arrays.weighted_sum(flow.log_prob(x), w) for x, w in parts]) / total

        rows = self.rows

        def with_weights(given: list[Any], of: Parts) -> Parts:
            return [(x, weights) for x, (_, weights) in zip(given, of, strict=True)]

        parties = []
        if not self.copies:
            parties.append((0, mean_of(with_weights(rows.given(), rows.own), training)))
        if rows.judge is not None:
            parties.append((1, mean_of(with_weights(rows.held_out(), rows.others), held_out)))
        return parties

    # ---- the parts of a step

    def _judged(self, means: tuple[float, float]) -> Judged:
        """The log-likelihoods of training and held-out rows, from the means of log-Jacobian - λ |z|² / 2 over rows."""
        training, held_out = (mean + flat + float(self.constant) for mean, flat in zip(means, self.flat, strict=True))
        return training, None if self.rows.judge is None else held_out

    def _turn(self, parts: list[Any], rng: np.random.Generator, moved: Any = None) -> _directions.Turn:
        """The next turn; sliced directions depend on a sample of the points in `parts`, which `moved` maps first.

        In a group all ranks take the turn of the first rank, because linear algebra on other machines may round
        differently.
        """
        source, unit = self.rows.source, math.sqrt(self.settings.precision)
        if self.directions == "random":
            turn = _directions.random_turn(self.sizes, rng)
        else:

            def pick(places: NDArray[np.int64]) -> Floats:
                return source.picked(places, parts)

            turn = _directions.sliced_turn(self.count, pick, self.sizes, rng, unit, moved)
        return replace(turn, blocks=[source.broadcast(block) for block in turn.blocks])

    def _turn_transforms(self, turn: _directions.Turn) -> list[Transform]:
        """The transforms of a turn of the columns whose values vary; all other columns stay unchanged."""
        if self.n == self.features:
            return turn.transforms()
        matrix, active, start = np.eye(self.features), self.rows.active, 0
        matrix[active, active] = 0.0
        for block in turn.blocks:
            end = start + len(block)
            matrix[np.ix_(active[start:end], active[turn.places()[start:end]])] = block
            start = end
        return [Rotation(matrix.T)]

    def _lines(self, *lines: Any) -> list[Floats]:
        """The parameters, for all columns, of lines with a smooth kink, a x + b + a γ sqrt(ε² + (x - center)²)."""
        identity = (1.0, 0.0, 0.0, 0.0, 1.0)
        return [self._of_all(values, rest) for values, rest in zip(lines, identity, strict=True)]

    def _of_all(self, values: Any, rest: float) -> Floats:
        """An array of shape (features,): `values` in the columns whose values vary, and `rest` in all others."""
        if self.n == self.features:
            return np.asarray(values, np.float64)
        of_all = np.full(self.features, rest)
        of_all[self.rows.active] = values
        return of_all


def kink_map(lines: list[Floats], dtype: Any) -> Elementwise:
    """A transform by lines with a smooth kink, a x + b + a γ sqrt(ε² + (x - center)²); `lines`: a, b, γ, center, ε."""
    return Elementwise._of_lines(*lines, slope=SLOPE, dtype=dtype)
