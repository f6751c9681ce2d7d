"""The plan of a fit's steps: its arguments, with defaults that depend on the rows and the flow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headrace._fit.optimizer import default_rate, refuse_muon, takes_muon
from headrace._flow.fit_arguments import PATIENCE, Arguments

if TYPE_CHECKING:
    from headrace._flow.internals import Trainable

BATCHES, LEAST_BATCH, MOST_BATCH = 64, 32, 512  # the number of batches an epoch for this number of rows
STEPS, LEAST_EPOCHS, MOST_EPOCHS = 20_000, 10, 300
STAGED = 2  # factor of the epochs where successive decays share them
MANY_FOR_COSINE = 8000  # rows to train on from which a run with a cosine is tried; fewer lose by it
DECAY_BY_ROWS, MOST_DECAY = 1e3, 1.0  # the former over the rows, at most the latter
LEAST_DECAY = 0.02  # least value with an effect; below it none is chosen

LEAST_HELD_OUT = 50  # rows held out that are too few to judge by
LEAST = 10  # rows for cross-validation
MANY = 50_000  # rows beyond which no Gaussian is tried


BEFORE, OWN = 6, 4  # the epochs of all stages over those before a cosine by Adam among them, and over its own
SHORTENED = 6  # the epochs of all stages over those of a cosine by Muon in their place, at most


def constant_decay(rows: int) -> float:
    """The decay without a choice."""
    return min(MOST_DECAY, DECAY_BY_ROWS / rows)


def rows_of_a_batch(rows: int, batch_size: int | None) -> int:
    """The batch size, at most all rows; `batch_size` as in `Flow.fit`."""
    return min(min(max(rows // BATCHES, LEAST_BATCH), MOST_BATCH) if batch_size is None else batch_size, rows)


@dataclass(frozen=True)
class Plan:
    """The arguments of a fit, checked, with defaults that depend on the rows and the flow."""

    epochs: int
    batches: int  # of an epoch
    learning_rate: float
    has_rate: bool  # whether it was given
    schedule: str
    weight_decay: float | None  # None: to be chosen
    constant_decay: float  # the decay without held-out rows
    clip: float | None
    average: float | None
    patience: int
    staged: bool  # whether held-out rows choose among successive decays
    tries_cosine: bool  # whether a run with a cosine is tried among them
    tries: bool  # whether short fits choose the learning rate, the weight decay and what the fit begins with
    matmul: str  # how steps compute products of networks
    gaussianize: bool | None  # whether a fresh flow starts with nearly normal marginals; None: if these gain
    optimizer: str  # of all else
    bends: bool  # whether the flow has splines
    overfits: bool  # whether it has, and the rows are few for these
    begun: int = 0  # those of the epochs that are a trial's

    def after(self, begun: int, share: float) -> Plan:
        """The plan of a fit that goes on after these epochs of a trial, for a share of its own."""
        epochs = begun + max(2, round(share * self.epochs))
        return replace(self, begun=begun, epochs=epochs, patience=epochs + 1)

    @classmethod
    def of(cls, flow: Trainable, rows: int, arguments: Arguments, *, judged: bool, batches: int | None = None) -> Plan:
        """Check the arguments. `judged`: whether rows are held out; `batches`: of an epoch, if they are not of rows."""
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
            default_rate(flow) if a.learning_rate is None else a.learning_rate,
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
