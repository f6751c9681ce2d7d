"""The plan of a fit: the checked arguments, with defaults that depend on the rows and the flow, and the stages.

A fit has stages: each stage but one has a constant learning rate and less weight decay than the stage before; one stage
has a cosine schedule. Each stage begins with the best weights so far and a fresh optimiser. A stage with a constant
rate ends when the held-out loss has not fallen for some epochs. The next decay is tried only if the present one lowered
the held-out loss. A fit is never worse on held-out rows than its first stage, whose decay suits tables that are easily
overfitted; later stages need little time.

Held-out rows choose between the best weights of a run with a cosine and those of other stages: a cosine gains tenths of
a nat on most tables with many rows, but loses on some (docs/notes/training.md). Patience does not end a cosine, because
the loss falls most when the rate is already small. A cosine begins early, after a small share of the epochs: where the
cosine is clearly better than the weights before it, the fit ends, because the other stages would have gained less;
otherwise the other stages continue.

The weight decay of a cosine is larger than that of the first stage. Fits of many rows by Muon have no stages, but only
a cosine (`headrace._fit.trials`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from headrace import files
from headrace._fit.history import History
from headrace._fit.optimizer import default_rate, refuse_muon, takes_muon
from headrace._flow.fit_arguments import PATIENCE, Arguments
from headrace._flow.flow import Flow

BATCHES, LEAST_BATCH, MOST_BATCH = 64, 32, 512  # batches of an epoch, and limits of the rows in a batch
STEPS, LEAST_EPOCHS, MOST_EPOCHS = 20_000, 10, 300
STAGED = 2  # factor of the number of epochs in fits with successive decays
MANY_FOR_COSINE = 8000  # least number of training rows for a cosine, which makes fits of fewer rows worse
DECAY_BY_ROWS, MOST_DECAY = 1e3, 1.0  # the decay is DECAY_BY_ROWS / rows, at most MOST_DECAY
LEAST_DECAY = 0.02  # least decay with an effect; for a smaller one, no decay is chosen

LEAST_HELD_OUT = 50  # least number of held-out rows to judge by
LEAST = 10  # least number of rows for cross-validation
MANY = 50_000  # the most training rows with which a Gaussian is tried


BEFORE, OWN = 6, 4  # epochs of all stages over epochs before a cosine by Adam, and over epochs of this cosine
SHORTENED = 6  # epochs of all stages over epochs of a cosine by Muon, which replaces the stages


def constant_decay(rows: int) -> float:
    """The weight decay of a fit in which held-out rows do not choose the decay."""
    return min(MOST_DECAY, DECAY_BY_ROWS / rows)


def rows_of_a_batch(rows: int, batch_size: int | None) -> int:
    """The number of rows in a batch, at most `rows`; `batch_size` is the argument of `Flow.fit`."""
    return min(min(max(rows // BATCHES, LEAST_BATCH), MOST_BATCH) if batch_size is None else batch_size, rows)


@dataclass(frozen=True)
class Plan:
    """The checked arguments of a fit, with defaults that depend on the rows and the flow."""

    epochs: int
    batches: int  # batches of an epoch
    learning_rate: float
    has_rate: bool  # whether the caller gave the learning rate
    schedule: str
    weight_decay: float | None  # None if held-out rows choose the decay
    constant_decay: float  # the decay if held-out rows choose none
    clip: float | None
    average: float | None
    patience: int
    staged: bool  # whether held-out rows choose among successive decays
    tries_cosine: bool  # whether a run with a cosine is tried among the stages
    tries: bool  # whether short fits choose the learning rate, the weight decay and the beginning of the fit
    matmul: str  # how steps compute products of networks
    gaussianize: bool | None  # whether a fresh flow starts with marginal curves; None: only if these help
    optimizer: str  # the name of the optimiser
    bends: bool  # whether the flow has splines
    overfits: bool  # whether the flow has splines, and rows are too few for them
    begun: int = 0  # the epochs that a trial has finished

    def after(self, begun: int, share: float) -> Plan:
        """The plan of a fit that adds `share` times the epochs of this plan to `begun` epochs of a trial."""
        epochs = begun + max(2, round(share * self.epochs))
        return replace(self, begun=begun, epochs=epochs, patience=epochs + 1)

    @classmethod
    def of(cls, flow: Flow, rows: int, arguments: Arguments, *, judged: bool, batches: int | None = None) -> Plan:
        """Check the arguments. `judged`: whether rows are held out; `batches`: the batches of an epoch of sequences."""
        a = arguments.checked()
        if a.optimizer == "muon":
            refuse_muon("optimizer", flow)
        overfits = judged and batches is None and rows < MANY_FOR_COSINE and flow._interior.bends
        overfits = overfits and flow._interior.widest > 0
        if batches is None:
            batches = -(-rows // rows_of_a_batch(rows, a.batch_size))
        unchosen = constant_decay(rows)
        decay = None if isinstance(a.weight_decay, str) else unchosen if a.weight_decay is None else a.weight_decay
        passes = min(max(-(-STEPS // batches), LEAST_EPOCHS), MOST_EPOCHS)
        chosen = judged and decay is None and unchosen > LEAST_DECAY
        staged = chosen and a.schedule in ("auto", "constant") and a.patience is not None
        left_to_rows = a.schedule == "auto" and a.epochs is None and a.patience == PATIENCE
        passes *= STAGED if staged else 1
        passes = passes if a.epochs is None else a.epochs
        has_cosine, bends = staged and left_to_rows and rows >= MANY_FOR_COSINE, flow._interior.bends
        tries = has_cosine and a.optimizer != "adam" and takes_muon(flow) and (bends or flow._interior.widest > 0)
        optimizer = "adam" if a.optimizer == "auto" else a.optimizer
        schedule = "constant" if a.schedule == "auto" else a.schedule
        if tries:
            passes, schedule, optimizer = max(2, passes // SHORTENED), "cosine", "muon"
        return cls(
            passes,
            batches,
            default_rate(flow, optimizer) if a.learning_rate is None else a.learning_rate,
            a.learning_rate is not None,
            schedule,
            decay,
            unchosen,
            a.clip,
            a.average,
            passes + 1 if a.patience is None or tries else a.patience,
            staged and not tries,
            has_cosine and bends and not tries,
            tries,
            flow._interior.products(a.matmul),
            None if isinstance(a.gaussianize, str) else bool(a.gaussianize),
            optimizer,
            bends,
            overfits,
        )


def of_settings(flow: Flow, checked: Plan, seed: int, plan: dict[str, Any]) -> dict[str, str]:
    """The settings, by name, that must equal those of the interrupted fit when a fit resumes from a file."""
    module: Any = flow
    structure, numbers = files.checksums(module)
    texts = {name: _text(value) for name, value in plan.items() if name != "matmul"}
    texts |= {f"{name} as chosen": _text(value) for name, value in asdict(checked).items() if texts.get(name) == "None"}
    texts |= {"seed": str(seed), "batches of an epoch": str(checked.batches)}
    texts |= {"device": "a CUDA device" if flow._interior.on_device else "the CPU", "matmul": module.matmul}
    if checked.matmul != module.matmul:
        texts["matmul of steps"] = checked.matmul
    return texts | {"structure of the flow": structure, "parameters at the start": numbers}


def _text(value: Any) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)


FACTOR, STAGES = 5.0, 4  # the decay of a stage is smaller than the previous one by this factor
COSINE = 4.0  # the decay of the cosine, in units of the decay of the first stage


@dataclass(frozen=True)
class Stage:
    """A part of a fit with one weight decay and one schedule."""

    decay: float
    schedule: str


class Stages:
    """The stages of a fit in order; a single stage if the decay is given or no rows are held out."""

    def __init__(self, plan: Plan, judged: bool) -> None:
        staged = judged and plan.staged
        first = plan.constant_decay if plan.weight_decay is None else plan.weight_decay
        self.decays = [first / FACTOR**i for i in range(STAGES if staged else 1)]
        self.schedule, self.tries_cosine = plan.schedule, staged and plan.tries_cosine
        self.wait = max(1, plan.patience // 2) if staged else plan.patience
        self.judged, self.epochs = judged, plan.epochs
        self.index = 0  # the index of the present decay
        self.is_cosine = self.was_cosine = False  # whether the present, or an earlier, stage is the cosine
        self.begin, self.end = plan.begun, self.pause if self.tries_cosine else plan.epochs
        self.best_epoch = 0  # the best epoch of the stage, or the epoch before it
        self.before = math.inf  # the lowest loss before the stage
        self.lowest = math.inf
        self.halfway = self.paused = math.inf  # lowest loss after half, and all, of the epochs before the cosine

    @property
    def now(self) -> Stage:
        """The present stage."""
        if self.is_cosine:
            return Stage(COSINE * self.decays[0], "cosine")
        return Stage(self.decays[self.index], self.schedule)

    @property
    def pause(self) -> int:
        """The epoch after which the cosine begins, if the other stages have not ended before this epoch."""
        return max(2, self.epochs // BEFORE)

    @property
    def length(self) -> int:
        """The largest number of epochs of the cosine."""
        return max(2, self.epochs // OWN)

    @property
    def most(self) -> int:
        """The largest number of epochs of all stages."""
        return self.epochs + (self.length if self.tries_cosine else 0)

    def tried(self, epoch: int, loss: float, history: History) -> None:
        """Note the validation loss of an epoch in the present stage."""
        now = self.now
        if loss < self.lowest:
            self.lowest, self.best_epoch = loss, epoch
            history.weight_decay, history.schedule = now.decay, now.schedule
        if epoch <= self.pause // 2:
            self.halfway = self.lowest
        if epoch == 0:
            self.before = loss
        else:
            history.weight_decays[now.decay] = min(loss, history.weight_decays.get(now.decay, math.inf))

    def waited(self, epoch: int) -> bool:
        """Whether the held-out loss has not fallen for as many epochs as the stage's patience."""
        return self.judged and not self.is_cosine and epoch - self.best_epoch >= self.wait

    def epochs_of_cosine(self, epoch: int) -> int:
        """The number of epochs of a cosine that begins after `epoch`; at most `epoch` if `epoch` is not `pause`."""
        return self.length if epoch == self.pause else min(self.length, epoch)

    def next_stage(self, epoch: int, *, has_time: bool = True) -> bool:
        """Begin the next stage after this epoch; return False if there is no further stage.

        `has_time`: whether `epochs_of_cosine` would fit into a time budget.
        """
        if self.is_cosine:
            return self._goes_on(epoch)
        if self.lowest < self.before and epoch < self.end and self.index + 1 < len(self.decays):
            self.index += 1
            self.before, self.best_epoch = self.lowest, epoch
            return True
        if self.tries_cosine and not self.was_cosine and has_time:
            self.paused, self.is_cosine, self.was_cosine = self.lowest, True, True
            self.begin, self.end = epoch, epoch + self.epochs_of_cosine(epoch)
            return True
        if epoch >= self.end and self.end < self.epochs:  # because there is no time for a cosine
            self.end, self.best_epoch = self.epochs, epoch
            return True
        return False

    def _goes_on(self, epoch: int) -> bool:
        """Go on with successive decays unless the cosine was clearly better than the weights before it.

        The expected gain of further stages is the gain in the second half of the epochs before the cosine.
        """
        if self.begin != self.pause or self.lowest < self.paused - max(self.halfway - self.paused, 0.0):
            return False
        self.is_cosine, self.best_epoch = False, epoch
        self.begin, self.end = epoch, self.epochs + self.length
        return True

    def of_the_last_schedule(self, losses: list[float]) -> list[float]:
        """The losses of the cosine's epochs if the fit ended with a cosine, else those of all other epochs."""
        if self.now.schedule == "cosine":
            return losses[self.begin :]
        return losses[: self.pause] + losses[self.pause + self.length :] if self.was_cosine else losses

    def done(self, step: int, batches: int) -> float:
        """The finished share of the steps between `begin` and `end`; `step` counts the steps of the whole fit."""
        return (step - self.begin * batches) / ((self.end - self.begin) * batches)
