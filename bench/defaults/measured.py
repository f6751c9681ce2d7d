"""The processor time of two calls of one process, in turn, and their ratio."""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.peers.client import alternating

Timed = Callable[[int], float]
"""A function from a number of calls to their processor seconds."""
LONG, MOST = 0.03, 2000  # the seconds of a long call, and the most calls of a block


@dataclass(frozen=True)
class Measured:
    """Medians over pairs of blocks: seconds of each of the two calls, and their ratio within a pair."""

    seconds: float
    fastest: float
    ratio: float


def timed(statement: str, names: Mapping[str, Any]) -> Timed:
    """A function that returns the processor seconds of a number of runs of a statement with these names."""
    code = [
        "def calls(count):",
        " begin = clock()",
        " for _ in range(count):",
        f"  {statement}",
        " return clock() - begin",
    ]
    scope = {**names, "clock": clock}
    exec("\n".join(code), scope)
    calls: Timed = scope["calls"]
    return calls


def clock() -> float:
    """The processor seconds of this process, and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def measured(call: Timed, fastest: Timed, pairs: int, block: float, before: Callable[[], object]) -> Measured:
    """Time blocks of both calls in turn, the second one first in every other pair, each block after a call of `before`.

    If a call is long, a third of the pairs are timed.
    """
    with _without_collector():
        counts = {one: _count(one, block) for one in (call, fastest)}
        pairs = -(-pairs // 3) if 0 in counts.values() else pairs
        found: dict[Timed, list[float]] = {call: [], fastest: []}
        for i in range(pairs):
            for one in alternating((call, fastest), i):
                before()
                count = counts[one] or 1
                found[one].append(one(count) / count)
    ratios = [a / b for a, b in zip(found[call], found[fastest], strict=True)]
    return Measured(statistics.median(found[call]), statistics.median(found[fastest]), statistics.median(ratios))


def _count(one: Timed, block: float) -> int:
    """The number of calls of a block, 0 for a long call; the calls that determine the number also warm up."""
    return 0 if one(1) > LONG else max(1, min(MOST, int(block / max(min(one(1), one(2) / 2), 1e-7)) + 1))


@contextmanager
def _without_collector() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
