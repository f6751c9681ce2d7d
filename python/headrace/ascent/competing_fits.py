"""The competing fits of a dual ascent: an ascent alone, and jointly trained ascents of several lengths."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headrace._arrays import caller as _arrays
from headrace._fit import plan
from headrace._fit.clock import Clock
from headrace._fit.history import History
from headrace._flow.transforms.masked import MaskedAutoregressive
from headrace._flow.transforms.rotation import Rotation
from headrace._flow.transforms.transform import Transform
from headrace.ascent.ascent import Ascent
from headrace.ascent.flow import AscentFlow, AscentHistory
from headrace.ascent.kinks import KinkAscent
from headrace.ascent.splines import SplineAscent
from headrace.ascent.standardised_rows import StandardisedRows

# Defaults from docs/dual_ascent.md.
STEPS = {"spline": 600, "kink": 2000}  # the largest number of steps of an ascent without a joint training
BINS = 40  # the bins of the splines of an ascent without a joint training

# Shares of a time budget, by phase of the fit.
ASCENDING = 0.2  # the share for the ascent before a joint training
REFINING = 0.6  # the share of the remaining time for the joint training if another ascent competes

# Defaults of an ascent whose steps are trained jointly afterwards.
COMPETES_BELOW = 5000  # the number of training rows below which an ascent without a joint training competes
REFINED_BINS = 8  # the bins of a spline in up to three dimensions
MANY_COLUMNS_BINS = 4  # the bins of a spline above three dimensions
SMALL_TABLE_BINS = 3  # the bins above three dimensions with fewer than COMPETES_BELOW training rows
REFINE_STEPS, REFINE_RATE = 12_000, 4e-3  # the number of updates of the optimiser, and its learning rate
MOST_BATCH = 256
COPIES = 16  # the number of noisy copies of each row in up to three dimensions
MOST_COPIED = 150_000  # the largest number of rows, including copies
LENGTHS = (16, 32, 48)  # the numbers of steps that compete above three dimensions
CLEARLY = 1.0  # a longer chain is better if it gains more than this number of standard errors


@dataclass
class Fitted:
    """A flow and the history of its fit."""

    flow: AscentFlow
    history: AscentHistory
    whole: Callable[[], AscentFlow]
    """A function that returns the flow of all steps of the ascent."""

    @property
    def is_over(self) -> bool:
        """Whether no further fit can follow, because Ctrl-C was pressed or the values of no column vary."""
        return self.history.stopped in ("interrupted", "constant")


def best_fit(settings: Any, rows: StandardisedRows, rng: np.random.Generator, clock: Clock, progress: bool) -> Fitted:
    """The competing fit with the least loss on held-out rows. After Ctrl-C the result is the best fit so far.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed before the first step was complete.
    """
    is_small = rows.count < COMPETES_BELOW
    refine = not is_small or rows.judge is not None if settings.refine is None else settings.refine
    fits = _Fits(settings, rows, progress)
    if not refine:
        return fits.ascent(rng, False, settings.steps or STEPS[settings.map], clock)
    lengths = _lengths(settings, rows)
    if len(lengths) > 1:
        return fits.of_best_length(lengths, rng, clock)
    rivals = settings.refine is None and is_small
    fitted = fits.trained(rng, lengths[0], clock, REFINING if rivals else 1.0)
    if rivals and not fitted.is_over and clock.has(0.0):
        return fits.better_alone(fitted, rng, clock)
    return fitted


def _lengths(settings: Any, rows: StandardisedRows) -> tuple[int, ...]:
    """The lengths, in steps, of the jointly trained chains, which compete if there are several."""
    features = len(rows.mean)
    if settings.steps is not None:
        return (settings.steps,)
    if features <= 3:
        return (8 if features == 1 else 48,)
    return LENGTHS[:1] if rows.judge is None or rows.count < COMPETES_BELOW else LENGTHS


@dataclass
class _Fits:
    """Competing fits of the same rows."""

    settings: Any
    rows: StandardisedRows
    progress: bool

    def ascent(self, rng: np.random.Generator, refine: bool, steps: int, clock: Clock) -> Fitted:
        """The best prefix of a new ascent. `refine`: whether a joint training follows, which sets the bins."""
        s, rows = self.settings, self.rows
        bins = (self._refined_bins() if refine else BINS) if s.bins is None else s.bins
        arguments = (s, rows, rng, steps, 0 if refine else s.copies or 0)
        ascent: Ascent = KinkAscent(*arguments) if s.map == "kink" else SplineAscent(*arguments, bins=bins)
        fitted = Fitted(ascent.go(self.progress, clock), ascent.history, ascent.whole)
        if fitted.history.stopped == "interrupted" and fitted.history.best_step == 0:
            raise KeyboardInterrupt  # no step is complete, so that there is no flow to return
        return fitted

    def _refined_bins(self) -> int:
        if len(self.rows.mean) <= 3:
            return REFINED_BINS
        return SMALL_TABLE_BINS if self.rows.count < COMPETES_BELOW else MANY_COLUMNS_BINS

    def trained(self, rng: np.random.Generator, steps: int, clock: Clock, share: float = 1.0) -> Fitted:
        """An ascent, then the joint training of its steps for a share of the time that is left after the ascent."""
        fitted = self.ascent(rng, True, steps, clock.share(ASCENDING))
        if not fitted.is_over and clock.has(0.0):
            self._train(fitted, rng, clock.share(share) if share < 1.0 else clock)
        return fitted

    def _train(self, fitted: Fitted, rng: np.random.Generator, clock: Clock, *growing: Any) -> AscentFlow | None:
        """Train the steps of an ascent jointly; the result replaces the fit's flow if the loss on held-out rows
        decreases.

        `growing` contains the last arguments of `_refined`.
        """
        history, flow = fitted.history, None
        try:
            flow, refinement = self._refined(fitted.whole(), rng, clock, *growing)
            history.refinement = refinement
            judged = history.validation_log_likelihood
            if not judged or refinement.best_loss < -judged[history.best_step]:
                fitted.flow, history.best_step, history.refined = flow, len(flow), True
            if refinement.stopped == "interrupted":
                history.stopped = "interrupted"
        except KeyboardInterrupt:  # the flow is complete even if Ctrl-C came after its fit
            history.stopped = "interrupted"
        return flow

    def better_alone(self, fitted: Fitted, rng: np.random.Generator, clock: Clock) -> Fitted:
        """The fit `fitted`, or an ascent without a joint training if the ascent's loss on held-out rows is less."""
        refinement = fitted.history.refinement
        try:
            rival = self.ascent(rng, False, self.settings.steps or STEPS[self.settings.map], clock)
            judged = rival.history.validation_log_likelihood
            own = fitted.history.validation_log_likelihood[fitted.history.best_step]
            if judged[rival.history.best_step] > (own if refinement is None else max(own, -refinement.best_loss)):
                return rival
            if not rival.is_over:
                return fitted
        except KeyboardInterrupt:
            pass
        fitted.history.stopped = "interrupted"
        return fitted

    def of_best_length(self, lengths: Sequence[int], rng: np.random.Generator, clock: Clock) -> Fitted:
        """The fit of the best length; the next longer chain is tried as long as the preceding length gained clearly.

        Each chain begins with the trained steps of the chain before it, so that all chains together take as many
        updates as a single chain.
        """
        best, chain = self.ascent(rng, True, lengths[-1], clock.share(ASCENDING)), list[list[Transform]]()
        tried: dict[int, float] = {}
        for at, length in enumerate(lengths):
            if best.is_over or not clock.has(0.0):
                break
            fitted, part = replace(best, history=replace(best.history)), clock.share(1.0 / (len(lengths) - at))
            trained = self._train(fitted, rng, part, chain, length, len(lengths))
            gains, history = not at, fitted.history
            if trained is not None and history.refinement is not None:
                tried[length], chain = history.refinement.best_loss, trained._by_step()
            try:
                gains = gains or (trained is not None and self._gains(fitted, best))
            except KeyboardInterrupt:
                history.stopped = "interrupted"
            if not gains:
                best.history.stopped = history.stopped
                break
            best = fitted
        best.history.lengths = tried
        return best

    def _gains(self, fitted: Fitted, other: Fitted) -> bool:
        """Whether `fitted` is clearly better than `other` on held-out rows, by paired differences of log-densities."""
        rows, of = self.rows, _arrays.weighted_sum
        differences = []
        for x, (_, weights) in zip(rows.held_out(), rows.others, strict=True):
            new, old = (f.flow.log_prob(x).astype(np.float64) for f in (fitted, other))
            differences.append((new - old, weights))
        total = rows.source.total
        sums = [total([of(d**power, weights) for d, weights in differences]) for power in (0, 1, 2)]
        squares = total([float(len(d)) if weights is None else of(weights, weights) for d, weights in differences])
        mean = sums[1] / sums[0]
        error = math.sqrt(max(sums[2] / sums[0] - mean**2, 0.0) * squares) / sums[0]
        return mean > CLEARLY * error

    def _refined(
        self,
        flow: AscentFlow,
        rng: np.random.Generator,
        clock: Clock,
        begun: Sequence[list[Transform]] = (),
        end: int | None = None,
        parts: int = 1,
    ) -> tuple[AscentFlow, History]:
        """Train all steps jointly; added linear maps, which start as the identity, have the effect of further
        rotations.

        `begun`: trained steps that replace the first steps; `end`: the number of steps; `parts`: the divisor of the
        number of updates.
        """
        s, rows, n = self.settings, self.rows, flow.features
        steps = [*begun, *(_with_shears(step, n, s.dtype) for step in flow._by_step()[len(begun) : end])]
        refined = AscentFlow(steps, flow._standardize(), flow.base, dtype=s.dtype)
        if rows.device is not None:
            refined = refined.to(repr(rows.device))
        copies, count = 0 if s.copies is None else s.copies, rows.count
        if s.copies is None and n <= 3:
            copies = min(COPIES, MOST_COPIED // count)
        x, weights, held_out = rows.to_refine(copies, s.jitter, rng)
        batch = min(max(count // plan.BATCHES, plan.LEAST_BATCH), MOST_BATCH)
        refinement = _fit_quietly(
            refined,
            x,
            weights=weights,
            validation=held_out,
            epochs=min(max(1, round(REFINE_STEPS // parts * batch / (count * max(copies, 1)))), plan.MOST_EPOCHS),
            batch_size=batch,
            learning_rate=REFINE_RATE,
            schedule="cosine",
            average=None,
            patience=None,
            time_budget=max(clock.left(), 1e-9) if clock.is_limited else None,
            seed=s.seed,
            progress=self.progress,
            group=rows.group,
        )
        return refined, refinement


def _fit_quietly(flow: AscentFlow, x: Any, **settings: Any) -> History:
    """Fit a flow; in a group without the warning about small batches, because callers cannot set the batch size."""
    if settings["group"] is None:
        return flow.fit(x, **settings)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fit: a batch is")
        return flow.fit(x, **settings)


def _with_shears(step: list[Transform], features: int, dtype: np.dtype[Any]) -> list[Transform]:
    """A step with triangular linear maps between its marginal maps and its rotation."""
    at = next(i for i, link in enumerate(step) if isinstance(link, Rotation))
    return [*step[:at], *_shears(features, dtype), *step[at:]]


def _shears(features: int, dtype: np.dtype[Any]) -> list[Transform]:
    """Two linear maps by triangular matrices of unit diagonal, one upper and one lower, which start as the identity."""
    if features == 1:
        return []
    orders = (range(features), range(features - 1, -1, -1))
    shears: list[Transform] = [
        MaskedAutoregressive(features, (), map="additive", formula="to_latent", order=order, dtype=dtype)
        for order in orders
    ]
    for shear in shears:
        shear.parameters = 0.0 * shear.parameters
    return shears
