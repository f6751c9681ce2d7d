"""The choice of the weight decay: from strong to weak, in stages of one fit.

A stage begins with the best weights so far and a fresh optimiser, and ends when held-out rows have gained nothing for
some epochs. As long as a stage gained, the next has less decay. So a fit is never worse on held-out rows than its
first stage, with a decay for tables that are hard to learn without overfitting; and later stages need little time,
because they do not begin anew.
"""

from __future__ import annotations

import math

from headrace._fit.history import History
from headrace._fit.plan import Plan

__all__ = ["Decays"]

FACTOR, STAGES = 5.0, 4  # each stage's decay is smaller by this factor


class Decays:
    """The decays of a fit, in turn; only one where it is given or nothing can choose."""

    def __init__(self, plan: Plan, judged: bool) -> None:
        staged = judged and plan.staged
        first = plan.constant_decay if plan.weight_decay is None else plan.weight_decay
        self.candidates = [first / FACTOR**i for i in range(STAGES if staged else 1)]
        self.wait = max(1, plan.patience // 2) if staged else plan.patience
        self.judged = judged
        self.stage = 0
        self.best_epoch = 0  # the best epoch of the stage, or of the one before it
        self.before = math.inf  # the lowest loss before the stage
        self.lowest = math.inf

    @property
    def now(self) -> float:
        """The decay of the present stage."""
        return self.candidates[self.stage]

    def tried(self, epoch: int, loss: float, history: History) -> None:
        """Note a validation loss of the present stage."""
        if loss < self.lowest:
            self.lowest, self.best_epoch = loss, epoch
            history.weight_decay = self.now
        if epoch == 0:
            self.before = loss
        else:
            history.weight_decays[self.now] = min(loss, history.weight_decays.get(self.now, math.inf))

    def waited(self, epoch: int) -> bool:
        """Whether the stage is over."""
        return self.judged and epoch - self.best_epoch >= self.wait

    def next_stage(self, epoch: int) -> bool:
        """Start a stage with less decay, if the stage gained and there is less."""
        gained, self.before, self.best_epoch = self.lowest < self.before, self.lowest, epoch
        if not gained or self.stage + 1 == len(self.candidates):
            return False
        self.stage += 1
        return True
