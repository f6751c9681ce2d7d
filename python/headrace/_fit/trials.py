"""Short fits by Muon that choose learning rate, weight decay, curves and residual columns of a fit of many rows.

Each trial has a complete cosine schedule, because the first steps of a fit do not show its end: they gain by marginal
curves and residual columns even where the whole fit gains nothing by them. The choice of a trial stays if the gain of
held-out rows is significant; the fit continues from the weights of the best trial (docs/training.md).

Columns with a small 1 - R² are always replaced by residuals, further columns only if a trial is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from headrace._base import progress as _progress
from headrace._base.types import Floats
from headrace._fit import marginals as _marginals
from headrace._fit.gaussian import MOST_FEATURES
from headrace._fit.given_rows import Moments
from headrace._fit.history import whole
from headrace._fit.plan import Plan
from headrace._fit.residuals import ALWAYS, ROUNDS, TRIED, Residuals, measured
from headrace._fit.run import HeldOut, Run
from headrace._fit.source import ArrayRows, RowSource
from headrace._fit.starts.curves import mean_beyond
from headrace._flow.flow import Flow
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.gaussianize import Gaussianize
from headrace._flow.transforms.linear import Linear
from headrace._flow.transforms.transform import Transform

LEAST_GAIN = 0.05  # least gain of a trial with residuals, in nats

Links = tuple[Transform, ...]


def decided(below: Residuals, more: Residuals, runs: Sequence[Run], held_out: HeldOut, progress: bool) -> Residuals:
    """The residuals `more`, with further columns, if held-out rows clearly gain by these in a trial; else `below`."""
    keeps = _marginals.gain(runs[0], runs[1], held_out, True, progress)
    return below if keeps or not _gain_of(runs[0], runs[1], held_out) > LEAST_GAIN else more


def candidates(source: ArrayRows, scale: Moments, flow: Flow) -> tuple[Residuals, Residuals]:
    """The residuals that are always used, and the residuals with further columns, whose use a trial decides."""
    order = flow._interior.order if flow.features <= MOST_FEATURES else None  # with more features, none is replaced
    always, more = (measured(source, scale, limit, flow.dtype, order) for limit in (ALWAYS, TRIED))
    return always, more


def shared(source: RowSource, residuals: Residuals, features: int) -> Residuals:
    """The residuals that the first process passes, broadcast to all processes."""
    return _of_array(source.broadcast(_as_array(residuals, np.zeros((ROUNDS + 1, features + 2, features)))))


def _gain_of(before: Run, after: Run, held_out: HeldOut) -> float:
    """The mean gain of held-out rows, in nats, by the present weights of `after` over those of `before`."""
    weights = held_out.weights()
    gains = held_out.log_probs(after.flow, after.current()) - held_out.log_probs(before.flow, before.current())
    return float((gains * weights).sum() / weights.sum())


def _as_array(residuals: Residuals, numbers: Floats) -> Floats:
    """Write links, round by round from the data's side, and shares of residuals to `numbers`; return this array."""
    pairs = list(zip(residuals.links[::2], residuals.links[1::2], strict=True))[::-1]
    for round_of, (scale, linear) in zip(numbers, pairs, strict=False):
        assert isinstance(scale, Standardize)
        assert isinstance(linear, Linear)
        round_of[:-2], round_of[-2], round_of[-1] = linear.to_matrix()[0], scale.mean, scale.std
    for i, shares in enumerate((residuals.shares, residuals.rounding)):
        for c, share in shares.items():
            numbers[-1, i, c] = share
    return numbers


def _of_array(numbers: Floats) -> Residuals:
    links: Links = ()
    for round_of in numbers[:-1]:
        if round_of[-1].any():
            links = (Standardize(round_of[-2], round_of[-1]), Linear._shear(round_of[:-2]), *links)
    replaced, rounding = ({int(c): float(row[c]) for c in np.flatnonzero(row)} for row in numbers[-1, :2])
    return Residuals(links, replaced, rounding)


STEPS = 1280  # steps of a trial with splines; a trial without splines has twice as many
MOST = 4  # the most trials
SPLINES = ((2.0, 4.0, 0.8), (1.0, 1.0, 1.0))
AFFINE = ((2.0, 1.0, 1.5), (2.0, 0.2, 1.5))
"""Settings to try, relative to the plan: learning rate, weight decay (over 1000 / rows), epochs of the fit."""
LATE = 0.9  # a trial overfits if its best epoch is within this share of its epochs
FEW, HALF = 0.2, 0.5  # factors of the epochs after a trial that overfits: with splines, without splines


@dataclass(frozen=True)
class Choice:
    """Settings of a fit that trials choose: its initial links, learning rate, weight decay and number of epochs."""

    residuals: Residuals = field(default_factory=Residuals)
    links: tuple[Gaussianize, ...] = ()
    rate: float = math.nan
    decay: float = math.nan
    share: float = 1.0
    """The epochs of the fit over the epochs of the plan."""


class Trials:
    """A series of trials, and the best one so far."""

    run: Run | None = None
    """The run of the best trial; None before the first trial has ended."""

    def __init__(self, made: Callable[[Choice], Run], held_out: HeldOut, shown: Any, first: Choice) -> None:
        weights = held_out.weights()
        self.made, self.held_out, self.share = made, held_out, weights / weights.sum()
        self.shown, self.best = shown, first
        self.each: Floats | None = None

    def takes(self, choice: Choice, least: float = 0.0, errors: float = 0.0) -> None:
        """Try a choice; it becomes the best one if it gains more than `least` nats and `errors` standard errors."""
        run = self.made(choice)
        if not run.clock.has(0.0):
            return
        run.warns = False
        run.go(False)
        history, each = whole(run.history), -self.held_out.log_probs(run.flow)
        self.shown.update()
        if history.stopped == "non-finite" or not np.isfinite(each).all():
            return
        if self.each is None or mean_beyond(self.each - each, self.share, errors) > least:
            self.best, self.run, self.each = choice, run, each


def overfits(run: Run | None) -> bool:
    """Whether the held-out loss of a trial was lowest before the last tenth of its epochs."""
    return run is not None and run.history.stopped == "epochs" and run.history.best_epoch <= LATE * run.plan.epochs


def searched(
    made: Callable[[Choice], Run],
    held_out: HeldOut,
    first: Choice,
    more: Choice | None,
    plan: Plan,
    progress: bool = False,
) -> tuple[Choice, Run | None]:
    """Run trials of rates and decays, then of curves, then of residual columns; return the best choice and its run.

    Args:
        made: Returns the run for the trial of a choice.
        held_out: The held-out rows that judge the trials.
        first: The first choice; its learning rate and weight decay are replaced.
        more: A choice with more residual columns; None without any.
        plan: The plan of the fit.
        progress: Whether to show a bar.
    """

    def at(rate: float, decay: float, share: float) -> Choice:
        rate = plan.learning_rate * (1.0 if plan.has_rate else rate)
        return replace(first, rate=rate, decay=plan.constant_decay * decay, share=share)

    with _progress.bar(MOST, "try", "fit", progress, leave=False) as shown:
        rungs = [at(*rung) for rung in (SPLINES if plan.bends else AFFINE)]
        trials = Trials(made, held_out, shown, rungs[0])
        for i, rung in enumerate(rungs):
            if i and (overfits(trials.run) or trials.best is not rungs[i - 1]):
                break
            trials.takes(rung)
        if first.links and not plan.gaussianize:
            errors = _marginals.CLEARLY if _marginals.has_long_tails(first.links) else 0.0
            trials.takes(replace(trials.best, links=()), errors=errors)
        if more is not None:
            links = more.links if trials.best.links else ()
            other = replace(trials.best, residuals=more.residuals, links=links)
            trials.takes(other, LEAST_GAIN, _marginals.CLEARLY)
    return trials.best, trials.run
