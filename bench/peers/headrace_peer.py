"""headrace itself, through its public interface."""

from __future__ import annotations

import itertools

from bench.peers.adapter import Model
from bench.workloads import Workload

DISTRIBUTIONS = ("headrace", "numpy")


def setup(threads: int) -> None:
    """Import the library and set its threads."""
    import headrace

    headrace.set_num_threads(threads)


def build(workload: Workload) -> Model:
    """The named flow with random weights; every call of `sample` draws from a new seed."""
    import numpy as np

    import headrace as hr

    family = {"maf": hr.MAF, "iaf": hr.IAF, "realnvp": hr.RealNVP}[workload.family]
    flow = family(features=workload.features, transforms=workload.transforms, hidden=workload.hidden, dtype="float32")
    count = flow.parameters.size
    flow.parameters = np.float32(0.05) * np.random.default_rng(0).standard_normal(count, dtype=np.float32)
    seeds = itertools.count()
    return Model(
        log_prob=flow.log_prob,
        sample=lambda rows: flow.sample(rows, seed=next(seeds)),
        to_native=np.ascontiguousarray,
        to_numpy=np.asarray,
        passes=1,
    )


def fma_peak(seconds: float) -> float | None:
    """Measured GFLOP/s of multiply-add instructions on one thread (float32), None where the build has no such call."""
    try:
        from headrace._core import cpu

        return float(cpu.fma_peak(seconds))
    except (ImportError, AttributeError):
        return None


def facts() -> dict:
    """What the library says of itself."""
    import headrace

    return dict(headrace.info())
