"""The time that a fit may take."""

from __future__ import annotations

import math
import time
from typing import Any

from headrace import _arguments as check

__all__ = ["Clock"]

UNTIMED = 0.02  # of a budget, left for what nobody times


def now() -> float:
    """Seconds since some moment."""
    return time.perf_counter()


class Clock:
    """A moment by which a fit has to be over; none where there is no budget."""

    def __init__(self, budget: Any = None) -> None:
        """`budget`: in seconds from now on, checked; None for any time."""
        self.begin = now()
        self.end = math.inf
        if budget is not None:
            self.end = self.begin + (1 - UNTIMED) * check.number("time_budget", budget, above=0.0, below=math.inf)
        self.ran_out = False
        """Whether something was not begun because of it."""

    @property
    def is_limited(self) -> bool:
        """Whether there is a budget."""
        return self.end < math.inf

    def share(self, part: float) -> Clock:
        """One with a part of the time that is left."""
        other = Clock()
        other.end = other.begin + part * (self.end - other.begin)
        return other

    def left(self) -> float:
        """Seconds until the end, at least 0."""
        return max(self.end - now(), 0.0)

    def has(self, seconds: float) -> bool:
        """Whether what takes so long can still be begun."""
        if self.is_limited and now() + seconds >= self.end:
            self.ran_out = True
        return not self.ran_out

    def passed(self, begin: float, kept: float) -> float:
        """The share that is over of the time from a moment on, but for what is kept for the end."""
        return min((now() - begin) / max(self.end - kept - begin, 1e-9), 1.0) if self.is_limited else 0.0
