"""Calls with one and two threads in turn, beside processes that keep the cores busy.

    python -m bench.busy [--processes 0 1 4 8] [--seconds 4]

A line for each: the median and the 99th percentile of one thread and of two, in microseconds, and how many times one's
they are. Two threads should halve the median on quiet cores, and cost nothing on busy ones.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

import headrace as hr

BUSY = "import time\nwhile True: sum(range(100000))"


def cases() -> dict[str, Callable[[], object]]:
    """A call each: log_prob of few and of more rows, and one step of training."""
    rng = np.random.default_rng(0)
    flow = hr.MAF(10, hidden=(64, 64), transforms=5)
    x = rng.standard_normal((1000, 10)).astype(np.float32)
    adam = hr.Adam(flow, learning_rate=1e-6)

    def step() -> None:
        _, gradient = flow.nll_and_grad(x[:256])
        adam.step(gradient)

    return {
        "log_prob, 64 rows": lambda: flow.log_prob(x[:64]),
        "log_prob, 256 rows": lambda: flow.log_prob(x[:256]),
        "log_prob, 1000 rows": lambda: flow.log_prob(x),
        "training step, 256 rows": step,
    }


def in_turn(call: Callable[[], object], seconds: float) -> dict[int, np.ndarray]:
    """Times of single calls, for each number of threads, in stretches of 10 ms in turn."""
    times: dict[int, list[float]] = {1: [], 2: []}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for threads, taken in times.items():
            with hr.threads(threads):
                stretch = time.perf_counter() + 0.01
                while (begin := time.perf_counter()) < stretch:
                    call()
                    taken.append(time.perf_counter() - begin)
    return {threads: 1e6 * np.array(taken) for threads, taken in times.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="*", default=[0, 1, 4, 8])
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    print("busy  call                      median 1   median 2  ratio     99 % 1     99 % 2  ratio")
    for processes in arguments.processes:
        busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
        try:
            time.sleep(0.5 if processes else 0.0)
            for name, call in cases().items():
                call()
                one, two = in_turn(call, arguments.seconds).values()
                (m1, p1), (m2, p2) = (np.percentile(t, [50, 99]) for t in (one, two))
                numbers = f"{m1:10.0f} {m2:10.0f} {m2 / m1:6.2f} {p1:10.0f} {p2:10.0f} {p2 / p1:6.2f}"
                print(f"{processes:4d}  {name:24s} {numbers}", flush=True)
        finally:
            for process in busy:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
