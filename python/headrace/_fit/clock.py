"""The time that a fit may take."""

from __future__ import annotations

import math
import time
from typing import Any

from headrace._base import arguments as check

UNTIMED = 0.02  # the share of a budget left for untimed work


def now() -> float:
    """Seconds since an arbitrary but fixed moment."""
    return time.perf_counter()


def cpu() -> float:
    """CPU seconds of this process, all threads together."""
    return time.process_time()


class Clock:
    """The deadline of a fit, which is infinite without a time budget."""

    def __init__(self, budget: Any = None) -> None:
        """`budget`: seconds from now to the deadline (an invalid value raises an error); None for no limit."""
        self.begin, self.cpu_begin = now(), cpu()
        self.end = math.inf
        self.budget: float | None = None
        """The time budget of a whole fit in seconds; None without a limit, and for a clock that `share` returned."""
        if budget is not None:
            self.budget = check.number("time_budget", budget, above=0.0, below=math.inf)
            self.end = self.begin + (1 - UNTIMED) * self.budget
        self.ran_out = False
        """Whether the deadline kept a step or another task from starting."""

    @property
    def is_limited(self) -> bool:
        """Whether there is a budget."""
        return self.end < math.inf

    def share(self, part: float) -> Clock:
        """A clock whose deadline comes after the fraction `part` of the remaining time."""
        other = Clock()
        other.end = other.begin + part * (self.end - other.begin)
        return other

    def turn(self, index: int, jobs: int, at_a_time: int) -> float:
        """Seconds, above 0, for job `index` if `jobs` share the remaining time equally and `at_a_time` run at once."""
        rounds = -(-jobs // at_a_time) - index // at_a_time
        return max(self.left() / rounds, 1e-9)

    def left(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(self.end - now(), 0.0)

    def has(self, seconds: float) -> bool:
        """Whether work that takes this many seconds would end before the deadline."""
        if self.is_limited and now() + seconds >= self.end:
            self.ran_out = True
        return not self.ran_out

    def passed(self, begin: float, kept: float) -> float:
        """The elapsed share of the time from `begin` to `kept` seconds before the deadline; 0 without a limit."""
        return min((now() - begin) / max(self.end - kept - begin, 1e-9), 1.0) if self.is_limited else 0.0
