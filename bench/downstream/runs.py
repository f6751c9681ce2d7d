"""What a run of `downstream.py` is: its outcome, its time, and the runs of one problem."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Outcome:
    """Of a run."""

    seconds: float
    summary: str
    """What it found, for those who read."""
    wrong: str = ""
    """What of it is, if anything."""


Runs = Iterator[tuple[str, Callable[[], Outcome]]]


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what it gave."""
    begin = time.perf_counter()
    found = run()
    return time.perf_counter() - begin, found
