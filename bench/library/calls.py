"""Calls of the compiled loop, and blocks of calls of several sides in turn."""

from __future__ import annotations

import ctypes
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from bench.peers.client import alternating

Call = Callable[[str, np.ndarray, np.ndarray, int], float]
"""A function of a verb, its input, its output and a number of calls, which returns the seconds of one call."""


class Timed:
    """The calls of one side of the comparison, by its functions ``open_<side>``, ``time_<side>`` and
    ``close_<side>``."""

    def __init__(self, library: ctypes.CDLL, side: str, path: Path) -> None:
        opened, self._close = getattr(library, f"open_{side}"), getattr(library, f"close_{side}")
        self._time = getattr(library, f"time_{side}")
        opened.restype, self._time.restype = ctypes.c_void_p, ctypes.c_double
        self._handle = ctypes.c_void_p(opened(str(path).encode()))
        assert self._handle.value, f"{side}: {path} was refused"

    def __del__(self) -> None:
        self._close(self._handle)

    def __call__(self, verb: str, x: np.ndarray, out: np.ndarray, count: int) -> float:
        draws = verb in ("sample", "pull")
        given = (ctypes.c_bool(draws), ctypes.c_long(len(x)), ctypes.c_long(count))
        arrays = (array.ctypes.data_as(ctypes.c_void_p) for array in (x, out))
        seconds = float(self._time(self._handle, *given, *arrays))
        assert seconds >= 0
        return seconds


def medians(
    sides: Mapping[str, Call], verb: str, x: np.ndarray, outs: Mapping[str, np.ndarray], rounds: int, block: float
) -> dict[str, float]:
    """The median seconds of a call of each side, from interleaved blocks of this many seconds."""
    counts = {side: max(1, round(block / max(run(verb, x, outs[side], 1), 1e-7))) for side, run in sides.items()}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(rounds):
        for side in alternating(sides, turn):
            seconds[side].append(sides[side](verb, x.copy(), outs[side], counts[side]))
    return {side: statistics.median(times) for side, times in seconds.items()}
