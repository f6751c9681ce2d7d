"""Derivatives and the optimiser: value and gradient beside the value alone, the score, one step of Adam."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import headrace as hr
from bench.kernels.bench_masked import CHECKED, shape_id
from bench.workloads import BINS, BOUND, MASKED_SHAPES, SPLINES, needed_flops

TRANSFORMS = 5
ADAM_BYTES = 28  # bytes of a float32 parameter: its gradient is read; it and two moments are read and written
STEP = 1e-5  # the step of finite differences along a direction of length 1, in double precision


def random_flow(
    family: str, features: int, hidden: tuple[int, ...], dtype: str = "float32", like: hr.Flow | None = None
) -> hr.Flow:
    """Make a flow with random weights, or with those of another one."""
    options: dict[str, Any] = {"transforms": TRANSFORMS, "hidden": hidden, "dtype": dtype}
    if family in SPLINES:
        flow = hr.NSF(features, coupling=family == "nsf_coupling", bins=BINS, bound=BOUND, **options)
    else:
        flow = {"maf": hr.MAF, "realnvp": hr.RealNVP}[family](features, **options)
    if like is None:
        flow.parameters = 0.02 * np.random.default_rng(3).standard_normal(flow.parameters.size).astype(dtype)
    else:
        flow.parameters = like.parameters.astype(dtype)
    return flow


def random_direction(size: int) -> np.ndarray:
    """Make a vector of length 1."""
    direction = np.random.default_rng(5).standard_normal(size)
    return direction / np.linalg.norm(direction)


def beside(
    benchmark: Any, call: Callable[[], Any], base: Callable[[], Any], floor: float, seconds: float = 0.3
) -> None:
    """Record the ratio of a call's time to `base`'s, measured in turn, and `floor`, the ratio of needed products."""
    if benchmark.stats is None:  # --benchmark-disable
        return
    times: tuple[list[float], list[float]] = ([], [])
    stop = time.perf_counter() + seconds
    while len(times[0]) < 3 or time.perf_counter() < stop:
        for made, one in zip(times, (call, base), strict=True):
            start = time.perf_counter()
            one()
            made.append(time.perf_counter() - start)
    over, under = map(statistics.median, times)
    benchmark.extra_info.update(ratio=over / under, floor=floor)


def check_gradient(flow: hr.Flow, family: str, hidden: tuple[int, ...], x: np.ndarray) -> None:
    """Compare the gradient of a few rows with that in double precision, and the latter with finite differences of the
    density."""
    rows = x[:CHECKED]
    exact = random_flow(family, x.shape[1], hidden, "float64", like=flow)
    _, wanted = exact.nll_and_grad(rows)
    _, gradient = flow.nll_and_grad(rows)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
    parameters = exact.parameters
    direction = random_direction(parameters.size)
    ahead, behind = (-exact.log_prob(rows, parameters=parameters + h * direction).mean() for h in (STEP, -STEP))
    np.testing.assert_allclose(direction @ wanted, (ahead - behind) / (2 * STEP), rtol=1e-3)


@pytest.mark.parametrize("rows", [100, 1000])
@pytest.mark.parametrize("shape", MASKED_SHAPES, ids=shape_id)
def test_nll_and_grad(timed, benchmark, rng, shape, rows):
    """Time value and gradient; `ratio` is over `log_prob` alone, whose products are a third of those of a gradient."""
    features, hidden = shape
    flow = random_flow("maf", features, hidden)
    x = rng.standard_normal((rows, features), dtype=np.float32)
    forward, flops = (needed_flops("maf", features, hidden, TRANSFORMS, rows, verb) for verb in ("log_prob", "train"))
    loss, gradient = timed(lambda: flow.nll_and_grad(x), flops, x.nbytes + 2 * flow.parameters.nbytes)
    beside(benchmark, lambda: flow.nll_and_grad(x), lambda: flow.log_prob(x), flops / forward)
    assert gradient.shape == flow.parameters.shape
    assert loss == pytest.approx(-flow.log_prob(x).mean(dtype=np.float64), rel=1e-4)
    check_gradient(flow, "maf", hidden, x)


@pytest.mark.parametrize("family", ["realnvp", "nsf", "nsf_coupling"])
def test_nll_and_grad_of_other_families(timed, benchmark, rng, family):
    """Time value and gradient at one size; the arithmetic of splines is not counted."""
    features, hidden, rows = 16, (128, 128), 1000
    flow = random_flow(family, features, hidden)
    x = rng.standard_normal((rows, features), dtype=np.float32)
    forward, flops = (needed_flops(family, features, hidden, TRANSFORMS, rows, verb) for verb in ("log_prob", "train"))
    loss, _ = timed(lambda: flow.nll_and_grad(x), flops, x.nbytes + 2 * flow.parameters.nbytes)
    beside(benchmark, lambda: flow.nll_and_grad(x), lambda: flow.log_prob(x), flops / forward)
    assert loss == pytest.approx(-flow.log_prob(x).mean(dtype=np.float64), rel=1e-4)
    check_gradient(flow, family, hidden, x)


@pytest.mark.parametrize("shape", MASKED_SHAPES, ids=shape_id)
def test_score(timed, benchmark, rng, shape):
    """Time the density and its gradient in the data: two thirds of the products of training."""
    features, hidden = shape
    rows = 1000
    flow = random_flow("maf", features, hidden)
    x = rng.standard_normal((rows, features), dtype=np.float32)
    flops = 2 * needed_flops("maf", features, hidden, TRANSFORMS, rows)
    log_prob, score = timed(lambda: flow.log_prob_and_score(x), flops, 2 * x.nbytes)
    beside(benchmark, lambda: flow.log_prob_and_score(x), lambda: flow.log_prob(x), 2.0)
    np.testing.assert_allclose(log_prob, flow.log_prob(x), rtol=1e-4, atol=1e-3)
    exact = random_flow("maf", features, hidden, "float64", like=flow)
    seen = x[:CHECKED].astype(np.float64)
    _, wanted = exact.log_prob_and_score(seen)
    np.testing.assert_allclose(score[:CHECKED], wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
    direction = random_direction(features)
    ahead, behind = (exact.log_prob(seen + h * direction) for h in (STEP, -STEP))
    np.testing.assert_allclose(wanted @ direction, (ahead - behind) / (2 * STEP), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", MASKED_SHAPES, ids=shape_id)
def test_adam_step(timed, rng, shape):
    """Time the update alone, which is bound by memory; the first step is known: the learning rate along the gradient's
    signs."""
    features, hidden = shape
    flow = random_flow("maf", features, hidden)
    before = flow.parameters
    _, gradient = flow.nll_and_grad(rng.standard_normal((100, features), dtype=np.float32))
    norm = hr.Adam(flow, learning_rate=1e-3, epsilon=1e-8).step(gradient)
    exact = gradient.astype(np.float64)
    expected = before - 1e-3 * exact / (np.abs(exact) + 1e-8)
    np.testing.assert_allclose(flow.parameters, expected, rtol=1e-4, atol=1e-6)
    assert norm == pytest.approx(np.linalg.norm(exact), rel=1e-3)
    adam = hr.Adam(flow, learning_rate=1e-6)
    timed(lambda: adam.step(gradient), nbytes=ADAM_BYTES * before.size)
    assert np.isfinite(flow.parameters).all()


MUON_SHAPES = {
    "nsf": [(1, (64, 64)), (2, (64, 64)), (3, (64, 64)), (9, (64, 64)), (10, (128, 128)), (32, (64, 64))],
    "maf": [(10, (64, 64))],
    "realnvp": [(9, (64, 64))],
}
"""Blocks of a staircase have 64, 32, 8, 14 and 2 rows; those of a coupling are whole matrices."""


@pytest.mark.parametrize(
    ("family", "shape"),
    [pytest.param(f, shape, id=f"{f}-{shape_id(shape)}") for f, shapes in MUON_SHAPES.items() for shape in shapes],
)
def test_muon_step(timed, benchmark, rng, family, shape):
    """Time a training step with Muon, gradient included; `ratio` is over a step with Adam."""
    features, hidden = shape
    flow = random_flow(family, features, hidden)
    x = rng.standard_normal((235, features), dtype=np.float32)  # a default batch of MAGIC
    muon, adam = (kind(flow, learning_rate=1e-7) for kind in (hr.Muon, hr.Adam))
    flops = needed_flops(family, features, hidden, TRANSFORMS, len(x), "train")
    timed(lambda: muon.step(flow.nll_and_grad(x)[1]), flops)
    beside(
        benchmark,
        lambda: muon.step(flow.nll_and_grad(x)[1]),
        lambda: adam.step(flow.nll_and_grad(x)[1]),
        1.0,
    )
    assert np.isfinite(flow.parameters).all()
