"""Dual ascent: a step of a fit beside the time to move its memory, and a finished flow of many steps.

The floor of a step is the time to read and write each coordinate once, and 2 n² operations a row for the rotation; some
37 more vector operations a coordinate (map, logarithm, sums) make a step with few features bound by arithmetic.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from bench.kernels.ascent_speed import plain_step, speed_of_a_fit
from bench.peers.adapters.headrace import a_step, ascent_chain
from headrace.ops._points import Points


@pytest.mark.parametrize("features", [2, 10, 50])
@pytest.mark.parametrize("rows", [100_000, 1_000_000])
def test_step_of_a_fit(timed, benchmark, rng, rows, features):
    """Time a step with the sums for the next step; record the time of the NumPy loop over that of the step."""
    if rows * features > 20_000_000 and benchmark.disabled:
        pytest.skip("a million rows of 50 features take 2 GB in the NumPy loop")
    x = rng.standard_normal((rows, features)).astype(np.float32)
    step = a_step(rng, features)
    points = Points(x)
    sums = timed(lambda: points.step(*step), 2 * rows * features**2, 2 * x.nbytes + 16 * rows)
    assert np.isfinite(sums).all()
    fresh, log_jacobian = Points(x), np.zeros(rows, np.float32)
    means = fresh.step(*step) / rows
    expected, moments = plain_step(x, log_jacobian, step)
    np.testing.assert_allclose(fresh.values(), expected, atol=1e-4)
    np.testing.assert_allclose(means[:, 0], moments[0], atol=1e-4)
    if benchmark.stats is None:
        return
    times = []
    for _ in range(3):
        start = time.perf_counter()
        plain_step(x, log_jacobian, step)
        times.append(time.perf_counter() - start)
    benchmark.extra_info["numpy_over_headrace"] = float(np.median(times)) / benchmark.stats.stats.median


@pytest.mark.parametrize("block", [None, 32])
def test_step_of_a_fit_with_many_features(timed, rng, block):
    """Time a step with a dense rotation, and a step with a rotation in blocks after a permutation."""
    rows, features = 20_000, 200
    x = rng.standard_normal((rows, features)).astype(np.float32)
    points, step = Points(x), a_step(rng, features, block)
    sums = timed(lambda: points.step(*step), 2 * rows * features * (block or features), 2 * x.nbytes + 16 * rows)
    assert np.isfinite(sums).all()


@pytest.mark.parametrize("verb", ["to_latent", "to_data"])
@pytest.mark.parametrize("features", [2, 10])
def test_flow_of_many_steps(timed, benchmark, rng, features, verb):
    """Time 1000 maps and rotations on 100,000 rows: tiles stay in cache, so that memory is moved once.

    The benchmark records the ratio of the flow's time to that of 1000 passes over memory at the measured bandwidth,
    each with a read and a write.
    """
    rows, steps = 100_000, 1000
    flow = ascent_chain(features, steps)
    x = rng.standard_normal((rows, features)).astype(np.float32)
    call = getattr(flow, verb)
    made, log_det = timed(lambda: call(x), 2 * rows * steps * features**2, 2 * x.nbytes)
    assert np.isfinite(log_det).all()
    back = (flow.to_data if verb == "to_latent" else flow.to_latent)(made)[0]
    np.testing.assert_allclose(back, x, atol=1e-2 * np.abs(made).max())
    if benchmark.stats is None:
        return
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["ns_per_row_step_and_coordinate"] = seconds * 1e9 / (rows * steps * features)
    benchmark.extra_info["passes_over_headrace"] = steps * benchmark.extra_info["share_of_bandwidth"]


@pytest.mark.parametrize(("rows", "features"), [(100_000, 2), (100_000, 10), (1_000_000, 10)])
def test_step_of_a_whole_fit(benchmark, rows, features):
    """Time steps of `DualAscentFlow.notes().fit`, rows held out included; record the time of the NumPy loop."""
    steps = 20 if benchmark.disabled else 100
    speed = benchmark.pedantic(speed_of_a_fit, (rows, features, steps), rounds=1)
    benchmark.extra_info["ms_a_step"] = 1e3 * speed.step
    benchmark.extra_info["ms_a_step_of_the_whole_fit"] = 1e3 * speed.whole
    benchmark.extra_info["numpy_over_headrace"] = speed.plain / speed.step
    assert speed.step < speed.plain
