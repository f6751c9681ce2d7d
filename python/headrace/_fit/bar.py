"""The bar of a running fit: epochs, steps, or the seconds of a time budget."""

from __future__ import annotations

from typing import Any

from headrace._base import progress as _progress
from headrace._fit import clock as _clock
from headrace._fit.clock import Clock

EVERY = 1.0  # seconds between two losses of steps


class FitBar:
    """A progress bar of the whole fit, in epochs or in steps; with a time budget in seconds, because the number of
    epochs is not known.
    """

    def __init__(self, epochs: int, clock: Clock, progress: bool, what: str, batches: int, **others: Any) -> None:
        """`batches`: the steps of an epoch, of a bar that counts steps; 0: it counts epochs. `others`: of tqdm."""
        self._clock, self._batches = clock, batches
        self._texts: dict[str, str] = {}
        self._total, self._steps, self._next = 0.0, 0, 0.0
        if clock.budget is None:
            unit = "step" if batches else "epoch"
            self._bar = _progress.bar(epochs * (batches or 1), what, unit, progress, **others)
        else:
            self._bar = _progress.seconds_bar(clock.budget, what, progress)

    def begin(self, epochs: int, steps: int) -> None:
        """Show the epochs, or the steps, after which this fit goes on."""
        if self._clock.budget is None:
            self._bar.update(steps if self._batches else epochs)

    def step(self, now: float) -> None:
        """Show the moment of a step."""
        if self._clock.budget is not None:
            self._bar.update(min(now - self._clock.begin, self._clock.budget) - self._bar.n)

    def trained(self, loss: float) -> None:
        """Count a step, and show the mean loss of the last steps each second."""
        self._total, self._steps = self._total + loss, self._steps + 1
        if (now := _clock.now()) >= self._next:
            self.show({"train": f"{self._total / self._steps:.3f}"})
            self._total, self._steps, self._next = 0.0, 0, now + EVERY
        if self._clock.budget is None:
            self._bar.update()

    def show(self, texts: dict[str, str]) -> None:
        """Show texts by name, beside texts of other names."""
        self._texts |= texts
        self._bar.set_postfix(self._texts, refresh=False)

    def epoch(self, epoch: int, losses: dict[str, str]) -> None:
        """Show a finished epoch, from 1, with its losses."""
        if self._clock.budget is not None or self._batches:
            losses = {"epoch": str(epoch), **losses}
        self.show(losses)
        if self._clock.budget is None and not self._batches:
            self._bar.update()

    def close(self) -> None:
        """Leave the bar in its last state, which is full where the time ended the fit."""
        if self._clock.budget is not None and self._clock.ran_out:
            self._bar.update(self._clock.budget - self._bar.n)
        self._bar.close()
