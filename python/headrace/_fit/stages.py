"""The stages of a fit: successive weight decays, from strong to weak, and then a run with a cosine.

The first stages share a constant rate. Each begins with the best weights so far and a fresh optimiser, and ends when
held-out rows have gained nothing for some epochs. As long as a stage gained, the next has less decay. So a fit is never
worse on held-out rows than its first stage, with a decay for tables that are hard to learn without overfitting; and
later stages need little time, because they do not begin anew.

The run with a cosine does begin anew, with more decay than the first stage, and takes as many epochs as all of them
did. Held-out rows choose between its best weights and theirs: it gains tenths of a nat on some tables with many rows
and loses as much on others (docs/notes/training.md). No patience ends it, because its gain comes when the rate has
fallen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace._fit.history import History

if TYPE_CHECKING:
    from headrace._fit.plan import Plan

FACTOR, STAGES = 5.0, 4  # each stage's decay is smaller by this factor
COSINE = 4.0  # the decay with a cosine, in units of the first stage's


@dataclass(frozen=True)
class Stage:
    """A part of a fit with one weight decay and one schedule."""

    decay: float
    schedule: str
    begins_anew: bool = False
    """Whether it begins with the weights before the first step, and not with the best ones so far."""


class Stages:
    """The stages of a fit in turn; only one where the decay is given or nothing can choose."""

    def __init__(self, plan: Plan, judged: bool) -> None:
        staged = judged and plan.staged
        first = plan.constant_decay if plan.weight_decay is None else plan.weight_decay
        self.decays = [first / FACTOR**i for i in range(STAGES if staged else 1)]
        self.schedule, self.tries_cosine = plan.schedule, staged and plan.tries_cosine
        self.wait = max(1, plan.patience // 2) if staged else plan.patience
        self.judged = judged
        self.index = 0  # of the present stage; the cosine comes after all decays
        self.begin, self.end = 0, plan.epochs  # the epochs finished before and after the stages that share a schedule
        self.best_epoch = 0  # the best epoch of the stage, or of the one before it
        self.before = math.inf  # the lowest loss before the stage
        self.lowest = math.inf

    @property
    def now(self) -> Stage:
        """The present stage."""
        if self.index < len(self.decays):
            return Stage(self.decays[self.index], self.schedule)
        return Stage(COSINE * self.decays[0], "cosine", begins_anew=True)

    @property
    def most(self) -> int:
        """The epochs of all stages, at most."""
        return self.end * (2 if self.tries_cosine and not self.begin else 1)

    @property
    def are_several(self) -> bool:
        """Whether there is more than one stage."""
        return len(self.decays) > 1

    def tried(self, epoch: int, loss: float, history: History) -> None:
        """Note a validation loss of the present stage."""
        now = self.now
        if loss < self.lowest:
            self.lowest, self.best_epoch = loss, epoch
            history.weight_decay, history.schedule = now.decay, now.schedule
        if epoch == 0:
            self.before = loss
        else:
            history.weight_decays[now.decay] = min(loss, history.weight_decays.get(now.decay, math.inf))

    def waited(self, epoch: int) -> bool:
        """Whether held-out rows have gained nothing for as many epochs as the stage waits."""
        return self.judged and not self.now.begins_anew and epoch - self.best_epoch >= self.wait

    def next_stage(self, epoch: int, *, has_time: bool = True) -> bool:
        """Begin the next stage after this epoch, if there is one: with less decay if this one gained, or the cosine.

        `has_time`: whether as many epochs as were taken so far would fit into a time budget.
        """
        gained, self.before, self.best_epoch = self.lowest < self.before, self.lowest, epoch
        if gained and epoch < self.end and self.index + 1 < len(self.decays):
            self.index += 1
            return True
        if not self.tries_cosine or self.now.begins_anew or not has_time:
            return False
        self.index, self.begin, self.end = len(self.decays), epoch, 2 * epoch
        return True

    def done(self, step: int, batches: int) -> float:
        """The finished share of the steps that have the present schedule; `step` counts those of the whole fit."""
        return (step - self.begin * batches) / ((self.end - self.begin) * batches)
