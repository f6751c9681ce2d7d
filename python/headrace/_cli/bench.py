"""Microbenchmarks relative to this machine's limits: the work of ``headrace bench``."""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from headrace._base.layout import Block, Grid
from headrace._base.progress import bar
from headrace._cli.screen import INTERRUPTED, OK, duration, say
from headrace._core import cpu

LEAST_CALLS = 5
WORKLOADS = 12
WIDE = (256, 256)


class Workload(NamedTuple):
    """A call, and the least arithmetic and memory traffic that it needs."""

    name: str
    rows: int
    flops: int
    nbytes: int
    call: Callable[[], object]


def multiply_add_peak(seconds: float) -> float:
    """Peak GFLOP/s (float32) of multiply-adds: one thread's peak, measured for `seconds`, times the threads in use."""
    return cpu.fma_peak(seconds) * hr.get_num_threads()


def copy_bandwidth(megabytes: int = 256, repeats: int = 5) -> float:
    """The GB/s of the fastest of a few copies, reads plus writes, with as many threads as headrace uses."""
    threads = hr.get_num_threads()
    numbers = megabytes * (1 << 20) // 8
    source = np.array_split(np.ones(numbers, np.float32), threads)
    target = np.array_split(np.zeros(numbers, np.float32), threads)
    best = np.inf
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats):
            start = time.perf_counter()
            list(pool.map(np.copyto, target, source))
            best = min(best, time.perf_counter() - start)
    return 2 * 4 * numbers / best / 1e9


def needed_flops(flow: hr.Flow, *, training: bool = False) -> int:
    """The number of operations for one row: a multiplication and an addition for each weight.

    A training step needs three multiplications and three additions for each weight: for the layer's values, for the
    weight's gradient, and, except in the first layer of the transform next to the data, for the gradient of the layer's
    inputs.
    """
    masks = [t.to_dense()[2] for t in flow.transforms if hasattr(t, "to_dense")]
    layers = [[int(np.count_nonzero(mask)) for mask in of_transform] for of_transform in masks]
    uses = sum(map(sum, layers))
    return 2 * (3 * uses - layers[-1][0] if training else uses)


def _random(flow: hr.Flow) -> hr.Flow:
    """The flow with random weights, which make neither the identity nor a badly conditioned map."""
    size = flow.parameters.size
    flow.parameters = np.float32(0.05) * np.random.default_rng(0).standard_normal(size, dtype=np.float32)
    return flow


def _of_flow(name: str, flow: hr.Flow, verb: str, rows: int) -> Workload:
    x = np.random.default_rng(1).standard_normal((rows, flow.features), dtype=np.float32)
    flops, label = rows * needed_flops(flow, training=verb == "train"), f"{name} {verb} {rows:,}"
    if verb == "log_prob":
        return Workload(label, rows, flops, x.nbytes + 4 * rows, lambda: flow.log_prob(x))
    if verb == "sample":
        seeds = count()
        return Workload(label, rows, flops, x.nbytes, lambda: flow.sample(rows, seed=next(seeds)))
    adam = hr.Adam(flow, learning_rate=1e-6)

    def step() -> None:
        adam.step(flow.nll_and_grad(x)[1])

    # The optimiser reads a gradient, and reads and writes a weight and its two moments.
    return Workload(label, rows, flops, x.nbytes + 7 * flow.parameters.nbytes, step)


def _of_map(rows: int, columns: int) -> Workload:
    """The workload of a coupling's map, without a network; the speed of the memory limits it."""
    rng = np.random.default_rng(1)
    z = rng.standard_normal((rows, columns), dtype=np.float32)
    params = rng.standard_normal((rows, columns, 2), dtype=np.float32)
    out: tuple[NDArray[Any], NDArray[Any]] = np.empty_like(z), np.empty(rows, np.float32)
    nbytes = z.nbytes + params.nbytes + sum(array.nbytes for array in out)
    name = f"ops.coupling {columns} columns {rows:,}"
    return Workload(name, rows, 0, nbytes, lambda: hr.ops.coupling(z, params, out=out))


def workloads() -> Iterator[Workload]:
    """Yield the workloads, each created when it is needed."""
    verbs = ("log_prob", "sample")
    for name, made, calls in (
        (
            "MAF 64, 5 x [256, 256]",
            lambda: hr.MAF(64, hidden=WIDE),
            [(verb, rows) for rows in (10_000, 1) for verb in verbs],
        ),
        ("IAF 64, 5 x [256, 256]", lambda: hr.IAF(64, hidden=WIDE), [("sample", 10_000)]),
        ("RealNVP 64, 8 x [256, 256]", lambda: hr.RealNVP(64, hidden=WIDE), [(verb, 10_000) for verb in verbs]),
        ("NSF 16, 5 x [128, 128]", lambda: hr.NSF(16, hidden=(128, 128)), [(verb, 10_000) for verb in verbs]),
        ("MAF 6, 5 x [100, 100]", lambda: hr.MAF(6, hidden=(100, 100)), [("train", 512)]),
        ("NSF 6, 5 x [64, 64]", lambda: hr.NSF(6), [("train", 512)]),
    ):
        flow = _random(made())
        for verb, rows in calls:
            yield _of_flow(name, flow, verb, rows)
    yield _of_map(1_000_000, 8)


def _seconds(call: Callable[[], object], budget: float) -> float:
    """The median duration of calls within `budget` seconds, after one call that is not counted."""
    call()
    times = [time.perf_counter()]
    while len(times) <= LEAST_CALLS or times[-1] < times[0] + budget:
        call()
        times.append(time.perf_counter())
    return statistics.median(end - start for start, end in pairwise(times))


def bench(arguments: Namespace) -> int:
    """Time a dozen workloads, and print the share of this machine's arithmetic or bandwidth that each reaches."""
    budget, megabytes = (0.05, 64) if arguments.quick else (1.0, 256)
    made: list[dict[str, Any]] = []
    interrupted = False
    try:
        with bar(WORKLOADS + 1, "bench", "workload", not arguments.quiet, leave=False) as shown:
            peak, copying = multiply_add_peak(4 * budget), copy_bandwidth(megabytes)
            shown.update()
            for work in workloads():
                seconds = _seconds(work.call, budget)
                gflops, gb = work.flops / seconds / 1e9, work.nbytes / seconds / 1e9
                share, bound = max((gflops / peak, "arithmetic"), (gb / copying, "memory"))
                measured = {"name": work.name, "seconds": seconds, "rows_per_second": work.rows / seconds}
                made.append({**measured, "gflops": gflops, "gb_per_second": gb, "share": share, "bound": bound})
                shown.update()
    except KeyboardInterrupt:
        if not made:
            raise
        interrupted = True
    facts = hr.info()
    report = {**facts, "peak_gflops": peak, "copy_gb_per_second": copying, "workloads": made}
    rows = []
    for timed in made:
        speeds = f"{timed['rows_per_second']:.3g}", f"{timed['gflops']:.3g}", f"{timed['gb_per_second']:.2g}"
        rows.append((timed["name"], duration(timed["seconds"]), *speeds, f"{timed['share']:.0%} ({timed['bound']})"))
    blocks: list[Block] = [
        f"headrace {facts['version']}, instruction set {facts['isa']}, threads: {facts['threads']}, float32",
        f"roofline: {peak:.0f} GFLOP/s multiply-add in registers, {copying:.1f} GB/s copying",
        "",
        Grid(("workload", "time", "rows/s", "GFLOP/s", "GB/s", "of roofline"), rows, right=(1, 2, 3, 4), wraps=(0, 5)),
    ]
    say(arguments, {**report, "interrupted": interrupted}, blocks)
    return INTERRUPTED if interrupted else OK
