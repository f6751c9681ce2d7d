"""Short whole fits by Muon, by which a fit of many rows chooses its rate, curves, residual columns and weight decay.

Each is a cosine to its end, because steps at a constant rate show how a fit begins and not how it ends: curves and
residual columns make the first steps easier, whatever they are worth later. Changes by a trial stay if
held-out rows gain, row by row; the fit goes on from the weights of the best trial (docs/training.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._base import progress as _progress
from headrace._fit import linear_links as _linear
from headrace._fit import marginals as _marginals
from headrace._fit.history import whole
from headrace._fit.residuals import Residuals
from headrace._fit.starts.curves import mean_beyond

if TYPE_CHECKING:
    from headrace._base.types import Floats
    from headrace._fit.plan import Plan
    from headrace._fit.run import HeldOut, Run
    from headrace._flow.transforms.gaussianize import Gaussianize

STEPS = 1280  # of a trial; twice as many without splines, whose steps cost more
MOST = 4  # trials
SPLINES = ((2.0, 4.0, 0.8), (1.0, 1.0, 1.0))
AFFINE = ((2.0, 1.0, 1.5), (2.0, 0.2, 0.0))
"""Rates in units of the plan's, decays in units of 1000 over the rows, and epochs of the fit in units of the plan's.

The last one of shifts and scales is a probe: where it gains, many steps at a constant rate gain more than a cosine.
"""
LATE = 0.9  # the share of a trial's epochs after which its best one has to be
FEW, HALF = 0.2, 0.5  # otherwise, epochs of the fit in units of the plan's; of shifts and scales, in units of theirs


@dataclass(frozen=True)
class Choice:
    """The beginning of a fit, its rate, its decay and its length."""

    residuals: Residuals = field(default_factory=Residuals)
    links: tuple[Gaussianize, ...] = ()
    rate: float = math.nan
    decay: float = math.nan
    share: float = 1.0
    """Of the epochs of the plan; 0 for the stages of a fit without trials."""


class Trials:
    """Trials one after another, and the best one so far."""

    run: Run | None = None
    """The best trial; None before one has come to its end."""

    def __init__(self, made: Callable[[Choice], Run], held_out: HeldOut, shown: Any, first: Choice) -> None:
        weights = held_out.weights()
        self.made, self.held_out, self.share = made, held_out, weights / weights.sum()
        self.shown, self.best = shown, first
        self.each: Floats | None = None

    def takes(self, choice: Choice, least: float = 0.0, errors: float = 0.0) -> None:
        """Try a choice, which becomes the best if it gains more than these nats and this many standard errors."""
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
    """Whether held-out rows were best before the last tenth of a trial."""
    return run is not None and run.history.stopped == "epochs" and run.history.best_epoch <= LATE * run.plan.epochs


def searched(
    made: Callable[[Choice], Run],
    held_out: HeldOut,
    first: Choice,
    more: Choice | None,
    plan: Plan,
    progress: bool = False,
) -> tuple[Choice, Run | None]:
    """The best choice and its trial: of rate and decay, then of curves, then of residual columns.

    Args:
        made: Makes the run of a trial.
        held_out: The rows that judge.
        first: The choice to begin with, without rate and decay.
        more: The same with more residual columns; None without any.
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
        if not trials.best.share:
            return trials.best, None
        if first.links and not plan.gaussianize:
            errors = _marginals.CLEARLY if _marginals.has_long_tails(first.links) else 0.0
            trials.takes(replace(trials.best, links=()), errors=errors)
        if more is not None:
            links = more.links if trials.best.links else ()
            other = replace(trials.best, residuals=more.residuals, links=links)
            trials.takes(other, _linear.LEAST_GAIN, _marginals.CLEARLY)
    return trials.best, trials.run
