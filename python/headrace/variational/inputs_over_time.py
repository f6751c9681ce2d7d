"""What samples of sequences are drawn for: noise, contexts, covariates, and the signals that belong to these."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays.caller import Caller
from headrace._base.types import Array
from headrace.sequences.arrays import Covariates, Sequences
from headrace.sequences.flow import SequenceFlow
from headrace.variational.contexts import Contexts, contexts_of
from headrace.variational.descent import Rng, seed_of


@dataclass(frozen=True)
class Batch:
    """What the samples of a step are drawn for, or by."""

    seed: int  # of the noise
    context: Array | None  # (rows, context)
    covariates: Array | None  # (rows, frames, covariates)
    signals: Array | None  # (rows, steps, features), of these covariates
    origin: NDArray[np.int64] | None = None  # (rows,), equal where two rows have the same context and covariates

    def some(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Batch:
        """These rows, by a mask or by index."""
        own = (self.context, self.covariates, self.signals, self.origin)
        return Batch(self.seed, *(a if a is None else a[keep] for a in own))

    @property
    def same(self) -> NDArray[np.bool_] | None:
        """Whether a row has the inputs of the row after it, (rows - 1,); None where all are drawn by themselves."""
        return None if self.origin is None else self.origin[1:] == self.origin[:-1]


class Inputs:
    """Contexts, covariates and signals to draw from.

    Args:
        flow: The teacher.
        length: Steps of each sample.
        context, covariates, signals: See `distill`.
    """

    def __init__(self, flow: SequenceFlow, length: int, context: Any, covariates: Any, signals: Any) -> None:
        self._contexts: Contexts = contexts_of(flow, context)  # type: ignore[arg-type]  # reads flow.context alone
        self._flow, self.length = flow, length
        self.signals: list[Array] = []
        caller = Caller()
        if signals is not None:
            given = Sequences(caller, "signals", signals, flow.features)
            if not given.rows:
                raise ValueError("signals: expected at least one sequence, got none")
            if (short := np.flatnonzero(given.lengths < length)).size:
                place = f"{given.lengths[short[0]]} in sequence {short[0]}"
                raise ValueError(f"signals: expected sequences of at least {length} steps (length), got {place}")
            given.check()
            self.signals = given.arrays
        rows = len(self.signals) if signals is not None else _leading(covariates)
        given_frames = Covariates(flow, caller, covariates, (rows,))
        given_frames.check_steps(length)
        self._frames, self._of_crop = given_frames.arrays, -(-length // flow.hop)

    @property
    def is_paired(self) -> bool:
        """Whether samples and signals have the same covariates."""
        return bool(self._frames) and bool(self.signals)

    def draw(self, rows: int, rng: Rng) -> Batch:
        """Inputs of this many samples."""
        seed, context = seed_of(rng), self._contexts(rows, rng)
        if context is not None and len(context) != rows:
            context = np.repeat(context, rows, axis=0)
        if not self._frames:
            return Batch(seed, context, None, None)
        covariates, signals = [], []
        for i in rng.integers(len(self.signals) or len(self._frames), size=rows).tolist():
            own = self._frames[i % len(self._frames)]
            most = len(own) - self._of_crop
            if self.signals:
                most = min(most, (len(self.signals[i]) - self.length) // self._flow.hop)
            first = int(rng.integers(most + 1))
            covariates.append(own[first : first + self._of_crop])
            if self.signals:
                begin = first * self._flow.hop
                signals.append(self.signals[i][begin : begin + self.length])
        return Batch(seed, context, np.stack(covariates), np.stack(signals) if signals else None)

    def draw_twice(self, rows: int, rng: Rng) -> Batch:
        """Inputs of this many samples, of which two each have the same, side by side."""
        origin = np.arange(-(-rows // 2))
        return replace(self.draw(len(origin), rng), origin=origin).some(np.repeat(origin, 2)[:rows])

    def crops(self, rows: int, rng: Rng) -> Array:
        """Crops of the signals, (rows, steps, features), in proportion to length."""
        most = np.array([len(own) - self.length + 1 for own in self.signals])
        found = []
        for i in rng.choice(len(most), size=rows, p=most / most.sum()).tolist():
            begin = int(rng.integers(most[i]))
            found.append(self.signals[i][begin : begin + self.length])
        return np.stack(found)


def _leading(covariates: Any) -> int:
    """Sequences of an array (rows, frames, columns), or of a list; 1 of (frames, columns)."""
    if isinstance(covariates, (list, tuple)):
        return len(covariates)
    return int(covariates.shape[0]) if getattr(covariates, "ndim", 2) == 3 else 1
