"""headrace itself, through its public interface."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from bench.peers.adapter import Model
from bench.workloads import BINS, BOUND, COUPLINGS, LEARNING_RATE, SPLINES, VECTORS, Workload

DISTRIBUTIONS = ("headrace", "numpy")


def setup(threads: int) -> None:
    """Import the library and set its threads."""
    import headrace

    headrace.set_num_threads(threads)


def build(workload: Workload) -> Model:
    """The named flow with random weights; every call of `sample` draws from a new seed."""
    import numpy as np

    import headrace as hr

    options: dict[str, Any] = {"transforms": workload.transforms, "hidden": workload.hidden, "dtype": "float32"}
    if workload.family in VECTORS:
        return _vector_flow(workload)
    if workload.family in SPLINES:
        options.update(coupling=workload.family in COUPLINGS, bins=BINS, bound=BOUND)
        flow = hr.NSF(workload.features, **options)
    else:
        family = {"maf": hr.MAF, "iaf": hr.IAF, "realnvp": hr.RealNVP}[workload.family]
        flow = family(workload.features, **options)
    count = flow.parameters.size
    flow.parameters = np.float32(0.05) * np.random.default_rng(0).standard_normal(count, dtype=np.float32)
    seeds = itertools.count()
    trained = {"train": _optimiser_step(flow)} if workload.verb == "train" else {}
    return Model(
        log_prob=flow.log_prob,
        sample=lambda rows: flow.sample(rows, seed=next(seeds)),
        to_native=np.ascontiguousarray,
        to_numpy=np.asarray,
        passes=1,
        **trained,
    )


def _vector_flow(workload: Workload) -> Model:
    """Planar or radial transforms, far from the identity, so that an inverse has something to solve."""
    import numpy as np

    import headrace as hr

    kind = {"planar": hr.PlanarFlow, "radial": hr.RadialFlow}[workload.family]
    flow = kind(workload.features, workload.transforms, dtype="float32")
    noise = np.random.default_rng(0).standard_normal(flow.parameters.size, dtype=np.float32)
    flow.parameters = flow.parameters + np.float32(0.3) * noise
    adam = hr.Adam(flow, learning_rate=LEARNING_RATE)

    def fit_to_normal(z: Any) -> float:
        x, log_det = flow.to_data(z)
        share = np.float32(1 / len(z))
        (gradient,) = flow.to_data_vjp(z, share * x, np.full(len(z), -share), wrt=("parameters",))
        adam.step(gradient)
        return float(0.5 * (x * x).sum(dtype=np.float64) - log_det.sum(dtype=np.float64)) / len(z)

    return Model(
        log_prob=flow.log_prob,
        sample=lambda rows: flow.sample(rows, seed=0),
        to_native=np.ascontiguousarray,
        to_numpy=np.asarray,
        forward=flow.to_data,
        inverse=flow.to_latent,
        fit_to_normal=fit_to_normal,
    )


def _optimiser_step(flow: Any) -> Callable[[Any], float]:
    """One step of Adam; returns the loss before it."""
    import headrace as hr

    adam = hr.Adam(flow, learning_rate=LEARNING_RATE)

    def step(x: Any) -> float:
        loss, gradient = flow.nll_and_grad(x)
        adam.step(gradient)
        return loss

    return step


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
