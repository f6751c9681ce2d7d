"""Fits of few rows: the number of epochs by cross-validation, and whether training helps at all."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays.row_parts import RowPart
from headrace._base import progress as _progress
from headrace._fit.clock import Clock
from headrace._fit.given_rows import Index
from headrace._fit.run import HeldOut, Run
from headrace._fit.source import ArrayRows
from headrace._flow.internals import Trainable

FOLDS = 5
WAIT = 25  # epochs without a new best


class Fold(RowPart):
    """The rows of one fold, or all others: every fifth row of the part, from another one on."""

    def __init__(self, whole: RowPart, fold: int, *, out: bool) -> None:
        self.places = np.flatnonzero((np.arange(whole.size) % FOLDS == fold) == out).astype(np.int64)
        self.part, self.size = whole, self.places.size

    def at(self, places: Index) -> Index:
        """The rows at these indices of the part."""
        return self.part.at(self.places[places])


def clearly_better(losses: NDArray[np.float64], than: NDArray[np.float64], weights: NDArray[np.float64]) -> bool:
    """Whether a mean loss is lower by more than its standard error: the one-standard-error rule (Breiman et al. 1984).

    Both are losses of the same rows.
    """
    share = weights / weights.sum()
    gain = than - losses
    mean = float((share * gain).sum())
    error = math.sqrt(float((np.square(share * (gain - mean))).sum()))
    return mean > error


def pooled(
    flow: Trainable, source: ArrayRows, made: Callable[[Trainable, ArrayRows], Trainable]
) -> NDArray[np.float64]:
    """The losses of the rows of each fold, in turn, under the flow that `made` makes of a copy and the others."""
    losses = []
    for fold in range(FOLDS):
        judge = HeldOut(source.of(Fold(source.part, fold, out=True)), flow._interior.on_device)
        other = made(copy.copy(flow), source.of(Fold(source.part, fold, out=False)))
        losses.append(-judge.log_probs(other))
    return np.concatenate(losses)


@dataclass(frozen=True)
class Chosen:
    """The result of cross-validation: losses of rows left out, fold after fold."""

    epochs: int
    """The number of epochs after which they are lowest; 0: before the first."""
    history: list[float]
    """Their mean after each of these epochs."""
    start: NDArray[np.float64]
    """Those of each row before the first epoch,"""
    best: NDArray[np.float64]
    """after the best one,"""
    weights: NDArray[np.float64]
    """and the weights of the rows."""

    def mean(self, losses: NDArray[np.float64]) -> float:
        """The weighted mean of such losses; infinity where it is not finite."""
        loss = float((losses * self.weights).sum() / self.weights.sum())
        return loss if math.isfinite(loss) else math.inf


def chosen_epochs(
    flow: Trainable,
    source: ArrayRows,
    made: Callable[[Trainable, ArrayRows], Run],
    most: int,
    clock: Clock,
    progress: bool = False,
) -> Chosen:
    """The best number of epochs on rows left out.

    Fits to all rows except a fold go side by side, an epoch at a time. `made` prepares a flow for rows and returns its
    run, which shares the clock.
    """
    runs, judges = [], []
    for fold in range(FOLDS):
        runs.append(made(copy.copy(flow), source.of(Fold(source.part, fold, out=False))))
        judges.append(HeldOut(source.of(Fold(source.part, fold, out=True)), flow._interior.on_device))
    weights = np.concatenate([judge.weights() for judge in judges])

    def losses(parameters: Callable[[Run], Any]) -> NDArray[np.float64]:
        return -np.concatenate([j.log_probs(r.flow, parameters(r)) for r, j in zip(runs, judges, strict=True)])

    start = losses(lambda run: run.flow.parameters)
    found = Chosen(0, [], start, start, weights)
    history: list[float] = []
    with _progress.bar(most, "cross-validate", "epoch", progress, leave=False) as shown:
        for epoch in range(1, most + 1):
            passed = [run.one_pass() for run in runs]
            if clock.ran_out or not all(map(math.isfinite, passed)):
                break
            now = losses(Run.current)
            history.append(found.mean(now))
            shown.update()
            if history[-1] < found.mean(found.best):
                found = Chosen(epoch, list(history), start, now, weights)
            if epoch - found.epochs >= WAIT:
                break
    return found
