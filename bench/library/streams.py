"""Steps of one stream: the C library and the header beside the module, and beside the module's core alone.

The core's time is that of its binding's call with prepared arrays: network and map, without the base density, and
without the Python code around the call.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import numpy as np

import headrace as hr
from bench.library.calls import Call, Timed, medians
from bench.sequences.__main__ import A, made

STEPS = (1, 64)


class Module:
    """The timed calls of a stream, made from Python."""

    def __init__(self, flow: hr.SequenceFlow) -> None:
        self._stream = flow.stream()

    def __call__(self, verb: str, x: np.ndarray, out: np.ndarray, count: int) -> float:
        stream, steps = self._stream, len(x)
        start = time.thread_time()
        for _ in range(count):
            result: Any = stream.push(x[None]) if verb == "push" else stream.pull(steps, seed=1)
        seconds = (time.thread_time() - start) / count
        (out if verb == "push" else x)[...] = result[0].reshape(-1, 1)
        return seconds


class Core:
    """The calls of the core's binding."""

    def __init__(self, flow: hr.SequenceFlow) -> None:
        self._transform = flow.transforms[0]._link(flow.dtype, "exact")[1]
        self._state, self._weights = self._transform.streams(1), flow.parameters

    def __call__(self, verb: str, x: np.ndarray, out: np.ndarray, count: int) -> float:
        given = (self._weights, x[None], np.empty_like(x[None]), np.empty((1, len(x)), x.dtype))
        call, state = self._transform.parallel if verb == "push" else self._transform.sequential, self._state
        start = time.thread_time()
        for _ in range(count):
            call(*given, state=state)
        return (time.thread_time() - start) / count


def check(sides: dict[str, Call], verb: str) -> None:
    """Check that the library's results have the bits of the module's, and that the header's results are close."""
    found: dict[str, np.ndarray] = {}
    for side in ("module", "library", "header"):
        x = np.sin(np.arange(20, dtype=np.float32))[:, None]
        found[side] = np.concatenate([_step(sides[side], verb, x[i : i + 1]) for i in range(len(x))])
    assert (found["library"] == found["module"]).all(), f"{verb}: other bits"
    np.testing.assert_allclose(found["header"], found["module"], rtol=1e-4, atol=1e-4)


def _step(side: Call, verb: str, x: np.ndarray) -> np.ndarray:
    out = np.zeros_like(x)
    side(verb, x, out, 1)
    return out if verb == "push" else x


def print_table(library: ctypes.CDLL, folder: Path, rounds: int, block: float) -> None:
    """Print medians of interleaved blocks, a line for each verb and number of steps of a call."""
    flow = hr.SequenceFlow([made(A)])
    path = folder / "stream.safetensors"
    flow.save(path)
    print("| one stream | steps | module us | its core us | library us | library / core | header us |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for verb in ("push", "pull"):
        for steps in STEPS:
            sides: dict[str, Call] = {"module": Module(flow), "library": Timed(library, "stream_library", path)}
            sides |= {"header": Timed(library, "stream_header", path)}
            check(sides, verb)
            sides["core"] = Core(flow)
            x = np.sin(np.arange(steps, dtype=np.float32))[:, None]
            found = medians(sides, verb, x, dict.fromkeys(sides, np.zeros_like(x)), rounds, block)
            us = {side: f"{1e6 * value:.3g}" for side, value in found.items()}
            ratio = f"{found['library'] / found['core']:.2f}"
            print(f"| {verb} | {steps} | {us['module']} | {us['core']} | {us['library']} | {ratio} | {us['header']} |")
