"""The cost of a call that computes next to nothing, and of the import."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import headrace as hr
from bench.workloads import coupling_weights, masked_weights

FEATURES = 64


def random_flow(family: str, features: int, hidden: tuple[int, ...], transforms: int) -> hr.Flow:
    """Make a flow with random weights."""
    flow = getattr(hr, family)(features=features, hidden=hidden, transforms=transforms)
    rng = np.random.default_rng(5)
    flow.parameters = 0.05 * rng.standard_normal(flow.parameters.size).astype(np.float32)
    return flow


@pytest.mark.parametrize("verb", ["log_prob", "to_latent", "to_data", "sample", "sample_and_log_prob"])
@pytest.mark.parametrize("family", ["MAF", "IAF", "RealNVP"])
def test_nearly_empty_flow(timed, family, verb):
    """Time one row of a two-dimensional flow with one small transform; most of the time passes before its kernel."""
    flow = random_flow(family, 2, (8,), 1)
    row = np.ones((1, 2), np.float32)
    calls = {
        "log_prob": lambda: flow.log_prob(row),
        "to_latent": lambda: flow.to_latent(row),
        "to_data": lambda: flow.to_data(row),
        "sample": lambda: flow.sample(1, seed=0),
        "sample_and_log_prob": lambda: flow.sample_and_log_prob(1, seed=0),
    }
    result = timed(calls[verb])
    for array in result if isinstance(result, tuple) else (result,):
        assert np.isfinite(array).all()


@pytest.mark.parametrize("verb", ["log_prob", "sample"])
@pytest.mark.parametrize(("family", "transforms"), [("MAF", 5), ("RealNVP", 8)])
def test_one_row(timed, family, transforms, verb):
    """Time one row of a flow of 64 features; bytes are the weights, read once."""
    hidden = (256, 256)
    flow = random_flow(family, FEATURES, hidden, transforms)
    weights = transforms * (masked_weights if family == "MAF" else coupling_weights)(FEATURES, hidden)
    row = np.full((1, FEATURES), 0.5, np.float32)
    call = (lambda: flow.log_prob(row)) if verb == "log_prob" else (lambda: flow.sample(1, seed=0))
    result = timed(call, 2 * weights, 4 * weights)
    assert np.isfinite(result).all()
    if verb == "log_prob":
        many = flow.log_prob(np.repeat(row, 64, axis=0))
        np.testing.assert_allclose(result, many[:1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("layout", ["plain", "float64", "reversed"])
def test_input_layout(timed, rng, layout):
    """Time one row that has another precision or strides, which must not matter much."""
    flow = random_flow("MAF", 10, (16,), 1)
    row = rng.standard_normal((1, 10), dtype=np.float32)
    given = {"plain": row, "float64": row.astype(np.float64), "reversed": row[:, ::-1].copy()[:, ::-1]}[layout]
    result = timed(lambda: flow.log_prob(given))
    np.testing.assert_allclose(result, flow.log_prob(row), rtol=1e-5)


@pytest.mark.parametrize("verb", ["forward", "inverse"])
def test_coupling_operation(timed, verb):
    """Time the operation on one row into given arrays, which is the time of its checks and the call."""
    given, params = np.ones((1, 4), np.float32), np.zeros((1, 4, 2), np.float32)
    out = np.empty((1, 4), np.float32), np.empty(1, np.float32)
    timed(lambda: hr.ops.coupling(given, params, direction=verb, out=out))
    np.testing.assert_allclose(out[0], given)
    np.testing.assert_allclose(out[1], 0)


@pytest.mark.parametrize("module", ["numpy", "headrace"])
def test_import(benchmark, module):
    """Time an import in a new process; headrace's own share is its time less NumPy's."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"

    def run() -> float:
        finished = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        return float(finished.stdout)

    seconds = benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    benchmark.extra_info["import_seconds"] = seconds
    assert seconds < 5
