"""The arguments of a fit, and its defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import _arguments as check
from headrace._fit.optimizer import SCHEDULES, default_rate, regularisation

if TYPE_CHECKING:
    from headrace._interior import Trainable

__all__ = ["Plan", "constant_decay", "rows_of_a_batch"]

BATCHES, LEAST_BATCH, MOST_BATCH = 64, 32, 512  # so many batches an epoch, of so many rows
STEPS, LEAST_EPOCHS, MOST_EPOCHS = 20_000, 10, 300
STAGED = 2  # times as many epochs where decays follow one another, as they share them
DECAY_BY_ROWS, MOST_DECAY = 1e3, 1.0  # the former over the rows, at most the latter
LEAST_DECAY = 0.02  # of less nothing depends, and it is not chosen

FEW = 50  # rows held out that are too few to judge by
LEAST = 10  # rows for cross-validation
MANY = 50_000  # rows beyond which no Gaussian is tried


def constant_decay(rows: int) -> float:
    """The decay where nothing chooses one."""
    return min(MOST_DECAY, DECAY_BY_ROWS / rows)


def rows_of_a_batch(rows: int, batch_size: Any) -> int:
    """At most all of them; `batch_size` as in `Flow.fit`."""
    size = min(max(rows // BATCHES, LEAST_BATCH), MOST_BATCH)
    if batch_size is not None:
        size = check.integer("batch_size", batch_size, least=1)
    return min(size, rows)


@dataclass(frozen=True)
class Plan:
    """The arguments of a fit, checked, with defaults that depend on the rows and the flow."""

    epochs: int
    batches: int  # of an epoch
    learning_rate: float
    schedule: str
    weight_decay: float | None  # None: to be chosen
    constant_decay: float  # if nothing can choose
    clip: float | None
    average: float | None
    patience: int
    staged: bool  # whether held-out rows choose among decays that follow one another
    matmul: str  # how steps compute products of networks
    gaussianize: bool | None  # whether a fresh flow starts with marginals that are about normal; None: if it gains

    @classmethod
    def of(
        cls,
        flow: Trainable,
        rows: int,
        *,
        judged: bool,
        epochs: Any,
        batch_size: Any,
        learning_rate: Any,
        schedule: Any,
        weight_decay: Any,
        clip: Any,
        average: Any,
        patience: Any,
        matmul: Any = None,
        gaussianize: Any = "auto",
    ) -> Plan:
        """Those of `Flow.fit`, checked. `judged`: whether rows are held out."""
        batches = -(-rows // rows_of_a_batch(rows, batch_size))
        rate = default_rate(flow) if learning_rate is None else learning_rate
        unchosen = constant_decay(rows)
        if isinstance(weight_decay, str):
            check.choice("weight_decay", weight_decay, ("auto",))
            decay = None
        else:
            decay = unchosen if weight_decay is None else float(regularisation(weight_decay, clip, average)[0])
        regularisation(0.0, clip, average)
        check.choice("schedule", schedule, SCHEDULES)
        if not isinstance(gaussianize, (bool, np.bool_)) and gaussianize != "auto":
            raise ValueError(f"gaussianize: expected True, False or 'auto', got {gaussianize!r}")
        passes = min(max(-(-STEPS // batches), LEAST_EPOCHS), MOST_EPOCHS)
        chosen = judged and decay is None and unchosen > LEAST_DECAY
        staged = chosen and schedule == "constant" and patience is not None
        passes *= STAGED if staged else 1
        if epochs is not None:
            passes = check.integer("epochs", epochs)
        return cls(
            passes,
            batches,
            check.number("learning_rate", rate, above=0.0, below=math.inf),
            schedule,
            decay,
            unchosen,
            clip,
            average,
            check.integer("patience", patience, least=1) if patience is not None else passes + 1,
            staged,
            flow._interior.products(matmul),
            None if isinstance(gaussianize, str) else bool(gaussianize),
        )
