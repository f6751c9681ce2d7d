"""Planar and radial maps: runs of maps in a flow (bound by arithmetic), and maps with parameters of each row (by
memory)."""

from __future__ import annotations

import numpy as np
import pytest

import headrace as hr
from bench.workloads import VECTOR_FLOPS, VECTOR_OPERATIONS

FLOWS = {"planar": hr.PlanarFlow, "radial": hr.RadialFlow}


def operations(family: str, rows: int, features: int, transforms: int) -> int:
    """The operations of one direction; a vector operation counts as two, like a multiply-add of the same duration.

    A planar inverse needs tanh at least once a row, like the forward direction, and has the same count.
    """
    return rows * transforms * (VECTOR_FLOPS[family] * features + 2 * VECTOR_OPERATIONS[family])


# The rows of the last size are in main memory, and the rows of the first size in the cache of one core.
@pytest.mark.parametrize(("rows", "features"), [(1, 16), (1000, 16), (100_000, 2), (100_000, 16)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("verb", ["forward", "inverse"])
@pytest.mark.parametrize("family", FLOWS)
def test_vector_chain(timed, rng, family, verb, dtype, rows, features):
    """Time 32 transforms with log-determinants; the other direction must undo them."""
    transforms = 32
    flow = FLOWS[family](features, transforms, dtype=dtype)
    flow.parameters = flow.parameters + (0.3 * rng.standard_normal(flow.parameters.size)).astype(dtype)
    given = rng.standard_normal((rows, features)).astype(dtype)
    call, way_back = flow.to_data, flow.to_latent
    if verb == "inverse":
        call, way_back = way_back, call
    out = np.empty_like(given), np.empty(rows, dtype)
    nbytes = 2 * given.nbytes + out[1].nbytes
    made, log_det = timed(lambda: call(given, out=out), operations(family, rows, features, transforms), nbytes, dtype)
    assert np.isfinite(made).all()
    back, log_det_back = way_back(made)
    tolerance = 1e-2 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(back, given, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(log_det, -log_det_back, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", [1000, 100_000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("verb", ["forward", "inverse"])
@pytest.mark.parametrize("family", FLOWS)
def test_vector_map(timed, rng, family, verb, dtype, rows):
    """Time a map whose parameters another network made for each row, without allocations: each array moves once."""
    features = 16
    n_params = {"planar": 2 * features + 1, "radial": features + 2}[family]
    given = rng.standard_normal((rows, features)).astype(dtype)
    params = (0.5 * rng.standard_normal((rows, n_params))).astype(dtype)
    out = np.empty_like(given), np.empty(rows, dtype)
    other = "inverse" if verb == "forward" else "forward"
    nbytes = given.nbytes + params.nbytes + sum(array.nbytes for array in out)
    call = lambda: hr.ops.vector_map(given, params, family, direction=verb, out=out)  # noqa: E731
    made, log_det = timed(call, nbytes=nbytes, dtype=dtype)
    back, log_det_back = hr.ops.vector_map(made, params, family, direction=other)
    tolerance = 1e-3 if dtype == "float32" else 1e-10
    np.testing.assert_allclose(back, given, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(log_det, -log_det_back, rtol=tolerance, atol=tolerance)
