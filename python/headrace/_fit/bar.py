"""The bar of a running fit: epochs, steps, or the seconds of a time budget."""

from __future__ import annotations

from typing import Any

from headrace._base import progress as _progress
from headrace._fit import clock as _clock
from headrace._fit.clock import Clock

EVERY = 1.0  # seconds between two updates of the training loss


class FitBar:
    """A progress bar of a whole fit, in epochs or steps, or in seconds if a time budget leaves the number of epochs
    unknown.
    """

    def __init__(self, epochs: int, clock: Clock, progress: bool, what: str, batches: int, **others: Any) -> None:
        """`batches`: steps in an epoch, for a bar of steps; 0 for a bar of epochs. `others`: arguments of tqdm."""
        self._clock, self._batches = clock, batches
        self._texts: dict[str, str] = {}
        self._total, self._steps, self._next = 0.0, 0, 0.0
        if clock.budget is None:
            unit = "step" if batches else "epoch"
            self._bar = _progress.bar(epochs * (batches or 1), what, unit, progress, **others)
        else:
            self._bar = _progress.seconds_bar(clock.budget, what, progress)

    def begin(self, epochs: int, steps: int) -> None:
        """Show the epochs or steps that a resumed fit has already finished."""
        if self._clock.budget is None:
            self._bar.update(steps if self._batches else epochs)

    def step(self, now: float) -> None:
        """Advance a bar of seconds to `now`, the time of a step."""
        if self._clock.budget is not None:
            self._bar.update(min(now - self._clock.begin, self._clock.budget) - self._bar.n)

    def trained(self, loss: float) -> None:
        """Count a step, and once a second show the mean loss of the steps since the last update."""
        self._total, self._steps = self._total + loss, self._steps + 1
        if (now := _clock.now()) >= self._next:
            self.show({"train": f"{self._total / self._steps:.3f}"})
            self._total, self._steps, self._next = 0.0, 0, now + EVERY
        if self._clock.budget is None:
            self._bar.update()

    def show(self, texts: dict[str, str]) -> None:
        """Show `texts` beside the bar, each after its name; a text replaces an earlier one with the same name."""
        self._texts |= texts
        self._bar.set_postfix(self._texts, refresh=False)

    def epoch(self, epoch: int, losses: dict[str, str]) -> None:
        """Show the number of a finished epoch (the first is 1) and its losses."""
        if self._clock.budget is not None or self._batches:
            losses = {"epoch": str(epoch), **losses}
        self.show(losses)
        if self._clock.budget is None and not self._batches:
            self._bar.update()

    def close(self) -> None:
        """Close the bar; if the time budget ended the fit, fill the bar first."""
        if self._clock.budget is not None and self._clock.ran_out:
            self._bar.update(self._clock.budget - self._bar.n)
        self._bar.close()
