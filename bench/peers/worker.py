"""A process that builds the models of one library and times their calls on request.

Run as ``python -m bench.peers.worker LIBRARY THREADS DEVICE``; requests and replies are JSON objects, one a line, on
the standard streams. Whatever a library prints goes to the standard error. The process ends when its standard input
ends.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import math
import os
import platform
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import numpy as np

from bench.peers import ADAPTERS
from bench.peers.adapter import Model, UnsupportedError
from bench.peers.devices import Stopwatch
from bench.workloads import KERNELS, Workload

BATCHES = 64  # different batches that the steps of an optimiser take in turn
# The least number of batches, even if these have more values than the limit for all batches.
LEAST_BATCHES, BATCH_NUMBERS = 2, 1 << 25
STEPS = ("train", "fit_to_normal")
FREE = (*STEPS, "step", "fit")  # calls whose results need not be float32
PAIRS = ("forward", "inverse")


class Service:
    """The state between requests: the adapter, the model that was built last, and the arguments of its calls.

    Steps of an optimiser use different batches in turn: on a single batch, a network soon memorises its rows and its
    density overflows.
    """

    def __init__(self, library: str, threads: int, device: str) -> None:
        module, self.options = ADAPTERS[library]
        self.adapter = importlib.import_module(f"bench.peers.adapters.{module}")
        self.library, self.threads, self.device = library, threads, device
        self.watch: Stopwatch | None = None
        self.workload: Workload | None = None
        self.model: Model | None = None
        self.arguments: dict[str, Iterator[Any]] = {}

    def hello(self, _request: dict) -> dict:
        """Import the library; report its versions, or why it is absent."""
        try:
            self.adapter.setup(self.threads, self.device)
            if hasattr(self.adapter, "stopwatch"):
                self.watch = self.adapter.stopwatch(self.device)
        except ImportError as error:
            return {"present": False, "reason": str(error)}
        versions = {name: _version(name) for name in (*self.adapter.DISTRIBUTIONS, "numpy")}
        facts = self.adapter.facts() if hasattr(self.adapter, "facts") else {}
        return {"present": True, "python": platform.python_version(), "versions": versions, "facts": facts}

    def prepare(self, request: dict) -> dict:
        """Build and warm up one workload; reply with the estimated seconds of a call.

        A sequential call may take minutes: its time is estimated from the parallel direction times the number of
        passes, and it runs once, to warm up, only if the estimate is below `warm_up` seconds.
        """
        workload = Workload.from_dict(request["workload"])
        self.model, self.arguments = None, {}
        gc.collect()
        if workload.family in KERNELS and self.library != "headrace":
            raise UnsupportedError("a kernel of headrace's own")
        self.workload, self.model = workload, self.adapter.build(workload, self.device, **self.options)
        verb = workload.verb
        if not workload.sequential or self.model.passes == 1:
            return {"estimate": self._warm_up(verb)}
        estimate = self._warm_up(workload.mirrored.verb) * self.model.passes
        if estimate <= request["warm_up"]:
            estimate = self._warm_up(verb)
        else:
            self._set_argument(verb)
        return {"estimate": estimate}

    def time(self, request: dict) -> dict:
        """Time calls of the prepared workload for about `seconds`, one at least and `calls` at most.

        ``device_median`` is the median by a device's clock, or None without such a clock.
        """
        verb = request["verb"]
        if verb not in self.arguments:
            self._warm_up(verb)
        arguments, call, watch = self.arguments[verb], self._call(verb), self.watch
        if watch is not None:
            watch.seconds.clear()
        seconds, usage, result = _timed_calls(lambda: call(next(arguments)), request["seconds"], request.get("calls"))
        self._check(verb, result)
        return {
            "median": statistics.median(seconds),
            "min": min(seconds),
            "max": max(seconds),
            "calls": len(seconds),
            "device_median": statistics.median(watch.seconds) if watch is not None else None,
            **usage,
        }

    def peak(self, request: dict) -> dict:
        """The multiply-add GFLOP/s of one thread, or None where the adapter cannot measure it."""
        measure = getattr(self.adapter, "fma_peak", lambda _seconds: None)
        if self.device != "cpu":
            return {"gflops": None}
        return {"gflops": measure(request["seconds"])}

    def _set_argument(self, verb: str) -> Any:
        """Make the arguments that calls take in turn; return the first one."""
        rows, features = self.workload.rows, self.workload.features
        arguments: list[Any] = [rows]
        if verb != "sample":
            rng = np.random.default_rng(1)
            many = max(LEAST_BATCHES, min(BATCHES, BATCH_NUMBERS // max(1, rows * features)))
            batches = many if verb in STEPS else 1
            arguments = [
                self.model.to_native(rng.standard_normal((rows, features), dtype=np.float32)) for _ in range(batches)
            ]
        self.model.compile(verb, arguments[0])
        self.arguments[verb] = itertools.cycle(arguments)
        return arguments[0]

    def _warm_up(self, verb: str) -> float:
        """The seconds of a second call with the same argument; the first call warms up and is checked."""
        argument = self._set_argument(verb)
        call = self._call(verb)
        first = self._check(verb, call(argument))
        start = time.perf_counter()
        result = call(argument)
        seconds = time.perf_counter() - start
        if verb in STEPS and self._check(verb, result) == first:
            raise AssertionError(f"{verb}: a step did not change the loss of its rows")
        return seconds

    def _call(self, verb: str) -> Callable[[Any], Any]:
        """A function that makes the model's call and returns when the result is complete."""
        call = getattr(self.model, verb)
        return call if self.watch is None else self.watch.around(call)

    def _check(self, verb: str, result: Any) -> np.ndarray:
        """Check that a result is finite and of the right shape."""
        rows, features = self.workload.rows, self.workload.features
        shapes = {"log_prob": [(rows,)], "sample": [(rows, features)], "step": [(features, 6)]}.get(verb, [()])
        if verb in PAIRS:
            shapes = [(rows, features), (rows,)]
        for part, shape in zip(result if verb in PAIRS else (result,), shapes, strict=True):
            values = np.array(self.model.to_numpy(part))
            if values.shape != shape or (values.dtype != np.float32 and verb not in FREE):  # a loss may be a float
                raise AssertionError(f"{verb}: expected float32 {shape}, got {values.dtype} {values.shape}")
            if not np.isfinite(values).all():
                raise AssertionError(f"{verb}: the result is not finite")
        return values


def _timed_calls(call: Callable[[], Any], budget: float, most: int | None) -> tuple[list[float], dict, Any]:
    """The seconds of each call until `budget` is spent, the block's use of cores, and the last result.

    The time to free a result is part of the next call. The use of a block is: ``cores``, the cores that this process
    kept busy; ``others``, the cores that everything else kept busy (None where unknown); ``page_faults`` per call.
    """
    seconds: list[float] = []
    most = math.inf if most is None else most
    clock = time.perf_counter
    result = None
    gc.collect()
    gc.disable()
    try:
        faults, busy, cpu = _page_faults(), busy_seconds(), time.process_time()
        begin = clock()
        while True:
            start = clock()
            result = call()
            stop = clock()
            seconds.append(stop - start)
            if stop - begin >= budget or len(seconds) >= most:
                break
        wall = stop - begin
        cpu, faults = time.process_time() - cpu, _page_faults() - faults
        others = None if busy is None else max(0.0, busy_seconds() - busy - cpu) / wall
    finally:
        gc.enable()
    return seconds, {"cores": cpu / wall, "others": others, "page_faults": faults / len(seconds)}, result


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def busy_seconds() -> float | None:
    """The seconds that all cores have been busy since boot, with time stolen by the hypervisor; Linux only."""
    try:
        with open("/proc/stat") as file:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def main() -> None:
    """Answer requests until the input ends."""
    library, threads, device = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # text that a library prints must not get between the replies
    service = Service(library, threads, device)
    verbs = {"hello": service.hello, "prepare": service.prepare, "time": service.time, "peak": service.peak}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = verbs[request["do"]](request)
        except UnsupportedError as error:
            reply = {"unsupported": str(error)}
        except Exception as error:  # the runner decides the meaning of a failed cell
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply, default=str) + "\n")


if __name__ == "__main__":
    main()
