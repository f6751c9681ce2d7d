"""The stages of a fit: successive weight decays, from strong to weak, and then a run with a cosine.

The first stages share a constant rate. Each begins with the best weights so far and a fresh optimiser, and ends when
held-out rows have gained nothing for some epochs. As long as a stage gained, the next has less decay. So a fit is never
worse on held-out rows than its first stage, with a decay for tables that are hard to learn without overfitting; and
later stages need little time, because they do not begin anew.

The run with a cosine does begin anew, with more decay, and takes as many epochs as the stages before it, at most.
Held-out rows choose between its best weights and theirs: it gains tenths of a nat on some tables with many rows and
loses as much on others (docs/notes/training.md). No patience ends it, because its gain comes when the rate has fallen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace._fit.history import History

if TYPE_CHECKING:
    from headrace._fit.plan import Plan

__all__ = ["Stage", "Stages"]

FACTOR, STAGES = 5.0, 4  # each stage's decay is smaller by this factor
COSINE = 3.0  # the decay with a cosine, in units of the first stage's


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
        self.all = [Stage(first / FACTOR**i, plan.schedule) for i in range(STAGES if staged else 1)]
        self.cosine_epochs = plan.cosine_epochs if staged else 0
        if self.cosine_epochs:
            self.all.append(Stage(COSINE * first, "cosine", begins_anew=True))
        self.wait = max(1, plan.patience // 2) if staged else plan.patience
        self.judged = judged
        self.index = 0
        self.begin, self.end = 0, plan.epochs  # the epochs finished before and after the stages that share a schedule
        self.most = self.end + self.cosine_epochs  # epochs of all stages
        self.best_epoch = 0  # the best epoch of the stage, or of the one before it
        self.before = math.inf  # the lowest loss before the stage
        self.lowest = math.inf

    @property
    def now(self) -> Stage:
        """The present stage."""
        return self.all[self.index]

    def tried(self, epoch: int, loss: float, history: History) -> None:
        """Note a validation loss of the present stage."""
        decay = self.now.decay
        if loss < self.lowest:
            self.lowest, self.best_epoch = loss, epoch
            history.weight_decay, history.schedule = decay, self.now.schedule
        if epoch == 0:
            self.before = loss
        else:
            history.weight_decays[decay] = min(loss, history.weight_decays.get(decay, math.inf))

    def waited(self, epoch: int) -> bool:
        """Whether held-out rows have gained nothing for as many epochs as the stage waits."""
        return self.judged and not self.now.begins_anew and epoch - self.best_epoch >= self.wait

    def next_stage(self, epoch: int, *, has_time: bool = True) -> bool:
        """Begin the next stage after this epoch, if there is one: with less decay if this one gained, or the cosine.

        `has_time`: whether as many epochs as were taken so far would fit into a time budget.
        """
        gained, self.before, self.best_epoch = self.lowest < self.before, self.lowest, epoch
        following = self.all[self.index + 1 :]
        if gained and epoch < self.end and following and not following[0].begins_anew:
            self.index += 1
            return True
        if not following or not following[-1].begins_anew or not has_time:
            return False
        self.index = len(self.all) - 1
        self.begin, self.end = epoch, epoch + min(epoch, self.cosine_epochs)
        return True

    def done(self, step: int, batches: int) -> float:
        """The finished share of the steps that have the present schedule; `step` counts those of the whole fit."""
        return (step - self.begin * batches) / ((self.end - self.begin) * batches)
