"""The bar of a running fit: epochs, or the seconds of a time budget."""

from __future__ import annotations

from headrace._base import progress as _progress
from headrace._fit.clock import Clock


class FitBar:
    """Epochs of all that a fit may take; with a time budget seconds, because the number of epochs is not known."""

    def __init__(self, epochs: int, clock: Clock, progress: bool, what: str = "fit") -> None:
        self._clock = clock
        if clock.budget is None:
            self._bar = _progress.bar(epochs, what, "epoch", progress)
        else:
            self._bar = _progress.seconds_bar(clock.budget, what, progress)

    def begin(self, epochs: int) -> None:
        """Show the epochs of the fit that this one goes on from."""
        if self._clock.budget is None:
            self._bar.update(epochs)

    def step(self, now: float) -> None:
        """Show the moment of a step."""
        if self._clock.budget is not None:
            self._bar.update(min(now - self._clock.begin, self._clock.budget) - self._bar.n)

    def epoch(self, epoch: int, losses: dict[str, str]) -> None:
        """Show a finished epoch, from 1, with its losses."""
        if self._clock.budget is not None:
            losses = {"epoch": str(epoch), **losses}
        self._bar.set_postfix(losses, refresh=False)
        if self._clock.budget is None:
            self._bar.update()

    def close(self) -> None:
        """Leave the bar in its last state, which is full where the time ended the fit."""
        if self._clock.budget is not None and self._clock.ran_out:
            self._bar.update(self._clock.budget - self._bar.n)
        self._bar.close()
