"""Fixtures of the benchmarks of headrace's kernels."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace._cli.bench import copy_bandwidth, multiply_add_peak

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]


def pytest_configure(config: pytest.Config) -> None:
    """Make XLA compile quickly where nothing is measured."""
    import compiling

    if config.option.benchmark_disable:
        compiling.quickly()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave one case for each value of a benchmark's parameters where nothing is measured, as `--thin` does."""
    import selection

    if not selection.NIGHTLY:
        selection.deselect(config, items, [item for item in items if item.get_closest_marker("nightly")])
    if config.option.benchmark_disable:
        of_benchmarks = [item for item in items if item.path.name.startswith("bench_")]
        selection.deselect(config, items, selection.superfluous(of_benchmarks))


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """Freeze the objects of earlier files, so that garbage collections leave out JAX and PyTorch."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same seed for every test."""
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def bandwidth() -> float:
    """The bandwidth of a copy in GB/s, reads and writes counted, with as many threads as headrace uses."""
    return copy_bandwidth()


@pytest.fixture(scope="session")
def peak() -> float:
    """The multiply-add GFLOP/s (float32) of one thread, times the number of threads."""
    return multiply_add_peak(0.2)


@pytest.fixture
def timed(benchmark: Any, peak: float, bandwidth: float) -> Callable[..., Any]:
    """Benchmark a call; record its rates beside those of the machine; return its result.

    `flops` and `nbytes` are the least operations and bytes that the call needs. In double precision the peak is half of
    that in float32.
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
            info["share_of_peak"] = info["gflops"] / (peak if dtype == "float32" else peak / 2)
        if nbytes:
            info["gb_per_s"] = nbytes / seconds / 1e9
            info["share_of_bandwidth"] = info["gb_per_s"] / bandwidth
        return result

    return run
