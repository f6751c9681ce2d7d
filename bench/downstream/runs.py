"""A run of `bench.downstream`: its outcome, its time, and the runs of one problem."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Outcome:
    """The result of a run, in seconds and words."""

    seconds: float
    summary: str
    """The findings of the run, for a reader."""
    wrong: str = ""
    """A description of a wrong finding, or an empty string."""


Runs = Iterator[tuple[str, Callable[[], Outcome]]]


def moments(x: np.ndarray, weights: np.ndarray) -> tuple[Any, Any]:
    """The weighted means and standard deviations of the columns of rows, or of values."""
    mean = np.average(x, axis=0, weights=weights)
    return mean, np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds of a call, and its result."""
    begin = time.perf_counter()
    found = run()
    return time.perf_counter() - begin, found
