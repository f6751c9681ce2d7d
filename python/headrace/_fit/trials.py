"""Short whole fits by Muon, by which a fit of many rows chooses its rate, curves, residual columns and weight decay.

Each is a cosine to its end, because steps at a constant rate show how a fit begins and not how it ends: curves and
residual columns make the first steps easier, whatever they are worth later. What a trial changes stays changed if
held-out rows gain, row by row; the fit goes on from the weights of the best trial (docs/training.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from headrace._base import progress as _progress
from headrace._fit import clock as _clock
from headrace._fit import linear_links as _linear
from headrace._fit import marginals as _marginals
from headrace._fit.residuals import Residuals
from headrace._fit.starts.curves import mean_beyond

if TYPE_CHECKING:
    from headrace._fit.clock import Clock
    from headrace._fit.plan import Plan
    from headrace._fit.run import HeldOut, Run
    from headrace._flow.transforms.gaussianize import Gaussianize

STEPS = 1280  # of a trial
MOST = 4  # trials
STRONG, WEAK = (2.0, 4.0), (1.0, 1.0)  # rates, in units of the plan's, and decays, of 1000 over the rows
LISTS = ("train_loss", "validation_loss", "learning_rate", "seconds")  # of a history
OVER = 0.9  # the share of a trial's epochs before which the best one is if more of them overfit


@dataclass(frozen=True)
class Choice:
    """What a fit begins with, its rate and its decay."""

    residuals: Residuals = field(default_factory=Residuals)
    links: tuple[Gaussianize, ...] = ()
    rate: float = math.nan
    decay: float = math.nan


@dataclass
class Trial:
    """A choice, and what a trial with it came to; nothing where none has come to its end."""

    choice: Choice
    judged: _marginals._Judged = field(default_factory=_marginals._Judged)
    weights: Any = None
    overfits: bool = False
    losses: dict[str, list[float]] = field(default_factory=dict)
    """Lists of the history, up to the best epoch."""


class Trials:
    """Trials one after another, and the best one so far."""

    def __init__(self, made: Callable[[Choice], Run], held_out: HeldOut, clock: Clock, shown: Any) -> None:
        weights = held_out.weights()
        self.made, self.held_out, self.share = made, held_out, weights / weights.sum()
        self.clock, self.shown = clock, shown
        self.best = Trial(Choice())

    def takes(self, choice: Choice, least: float = 0.0, errors: float = 0.0) -> None:
        """Try a choice, which becomes the best if it gains more than these nats and this many standard errors."""
        trial, best = self._of(choice), self.best.judged.each
        if best is None:
            self.best = trial
        elif (each := trial.judged.each) is not None:
            gain = mean_beyond(best - each, self.share, errors)
            self.best = trial if gain > least else self.best

    def _of(self, choice: Choice) -> Trial:
        best = Trial(choice)
        if not self.clock.has(0.0):
            return best
        run = self.made(choice)  # its cosine ends with the time
        history, run.paced = run.history, True
        for epoch in range(1, run.plan.epochs + 1):
            loss = run.one_pass()
            if run.clock.ran_out:
                break
            if not math.isfinite(loss):
                return Trial(choice)
            judged = _marginals._Judged.of(run, self.held_out, self.share)
            history.train_loss.append(loss)
            history.validation_loss.append(judged.loss)
            history.learning_rate.append(run.adam.learning_rate)
            history.seconds.append(_clock.now() - run.clock.begin)
            if judged.loss < best.judged.loss:
                best.judged, best.weights, history.best_epoch = judged, run.current(), epoch
        best.overfits = 0 < history.best_epoch <= OVER * run.plan.epochs
        for name in LISTS:
            best.losses[name] = getattr(history, name)[: history.best_epoch]
        self.shown.update()
        return best


def searched(
    made: Callable[[Choice], Run],
    held_out: HeldOut,
    clock: Clock,
    first: Choice,
    more: Choice | None,
    plan: Plan,
    progress: bool = False,
) -> Trial:
    """The best trial: of rate and decay, then of curves, then of residual columns.

    Args:
        made: Makes the run of a trial.
        held_out: The rows that judge.
        clock: Ends the trials.
        first: The choice to begin with, without rate and decay.
        more: The same with more residual columns; None without any.
        plan: The plan of the fit.
        progress: Whether to show a bar.
    """

    def regular(rate: float, decay: float) -> Choice:
        rate = plan.learning_rate * (1.0 if plan.has_rate else rate)
        return replace(first, rate=rate, decay=plan.constant_decay * decay)

    with _progress.bar(MOST, "try", "fit", progress, leave=False) as shown:
        trials = Trials(made, held_out, clock, shown)
        trials.takes(regular(*STRONG))
        if not trials.best.overfits:
            trials.takes(regular(*WEAK))
        if first.links and not plan.gaussianize:
            trials.takes(replace(trials.best.choice, links=()), errors=_marginals.allowed(first.links))
        if more is not None:
            links = more.links if trials.best.choice.links else ()
            other = replace(trials.best.choice, residuals=more.residuals, links=links)
            trials.takes(other, _linear.LEAST_GAIN, _marginals.CLEARLY)
    return trials.best
