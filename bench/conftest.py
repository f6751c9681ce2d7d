"""What the benchmarks of headrace's own kernels share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@pytest.fixture
def rng() -> np.random.Generator:
    """Give the same numbers to every test."""
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def bandwidth() -> float:
    """GB/s of adding to an array in place, read and write counted, with as many threads as headrace uses."""
    threads = hr.get_num_threads()
    parts = np.array_split(np.ones(1 << 26, np.float32), threads)  # 256 MiB: larger than any cache
    best = np.inf
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            start = time.perf_counter()
            list(pool.map(_add_one, parts))
            best = min(best, time.perf_counter() - start)
    return 2 * 4 * (1 << 26) / best / 1e9


def _add_one(part: np.ndarray) -> None:
    np.add(part, np.float32(1), out=part)


@pytest.fixture(scope="session")
def peak() -> float | None:
    """Multiply-add GFLOP/s (float32) of one thread times the threads; None where the build cannot measure it."""
    from bench.peers.headrace_peer import fma_peak

    one = fma_peak(0.2)
    return None if one is None else one * hr.get_num_threads()


@pytest.fixture
def timed(benchmark: Any, peak: float | None, bandwidth: float) -> Callable[..., Any]:
    """Benchmark a call; note its rates beside the machine's; return its result.

    `flops` and `nbytes` are what the call needs at least. In double precision the peak is half.
    """

    def run(call: Callable[[], Any], flops: int = 0, nbytes: int = 0, dtype: str = "float32") -> Any:
        result = benchmark(call)
        info = benchmark.extra_info
        info.update(flops=flops, bytes=nbytes, threads=hr.get_num_threads(), isa=hr.info()["isa"])
        if benchmark.stats is None:  # --benchmark-disable
            return result
        seconds = benchmark.stats.stats.median
        if flops:
            info["gflops"] = flops / seconds / 1e9
            if peak is not None:
                info["share_of_peak"] = info["gflops"] / (peak if dtype == "float32" else peak / 2)
        if nbytes:
            info["gb_per_s"] = nbytes / seconds / 1e9
            info["share_of_bandwidth"] = info["gb_per_s"] / bandwidth
        return result

    return run
