"""Devices of models, and their clocks: the CPU, a CUDA device, or the CPU in place of a device.

The device "dry" is for trial runs on a machine without a device: it has NumPy's arrays, and the host's clock in place
of a device's events.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

DEVICES = ("cpu", "cuda", "dry")


def arrays(device: str) -> ModuleType:
    """The module that makes headrace's arrays on the device."""
    if device == "cuda":
        import cupy

        return cupy
    import numpy

    return numpy


class HostEvent:
    """An event in place of a device's: the host's time when it is recorded."""

    def record(self) -> None:
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        """Return at once, because the host has no pending work."""


class Stopwatch:
    """Seconds of calls by events that are queued before and after a call's work, on the stream of that work."""

    def __init__(self, event: Callable[[], Any], milliseconds: Callable[[Any, Any], float]) -> None:
        self.start, self.stop, self.milliseconds = event(), event(), milliseconds
        self.seconds: list[float] = []
        """The seconds of each call until now; the reader of the list clears it."""

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A function that makes the call and returns when the call's work is done."""

        def timed(*arguments: Any) -> Any:
            self.start.record()
            result = call(*arguments)
            self.stop.record()
            self.stop.synchronize()
            self.seconds.append(1e-3 * self.milliseconds(self.start, self.stop))
            return result

        return timed


def dry_stopwatch() -> Stopwatch:
    """A stopwatch by the host's clock."""
    return Stopwatch(HostEvent, lambda start, stop: 1e3 * (stop.seconds - start.seconds))


def cupy_stopwatch() -> Stopwatch:
    """A stopwatch by events on CuPy's current stream."""
    import cupy

    return Stopwatch(cupy.cuda.Event, cupy.cuda.get_elapsed_time)


def torch_stopwatch() -> Stopwatch:
    """A stopwatch by events on PyTorch's current stream."""
    import torch

    return Stopwatch(lambda: torch.cuda.Event(enable_timing=True), lambda start, stop: start.elapsed_time(stop))
