"""Couplings: the map on given parameters (bound by memory), and with a dense conditioner (bound by products)."""

from __future__ import annotations

import numpy as np
import pytest

import headrace as hr
from bench.workloads import COUPLING_SHAPES, coupling_weights


def soft_clamped(raw: np.ndarray) -> np.ndarray:
    """The log-scale of a raw scale, in double precision."""
    raw = raw.astype(np.float64)
    return raw / (1 + np.abs(raw) / np.log(1e3))


# The rows of the last size are in main memory, and the rows of the first size in the cache of one core.
@pytest.mark.parametrize(("rows", "active"), [(1000, 32), (100_000, 1), (100_000, 32), (1_000_000, 8)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("verb", ["forward", "inverse"])
def test_coupling_map(timed, rng, verb, dtype, rows, active):
    """Time the affine map on parameters of another network, without allocations: each value is read or written once."""
    given = rng.standard_normal((rows, active)).astype(dtype)
    params = rng.standard_normal((rows, active, 2)).astype(dtype)
    out = np.empty_like(given), np.empty(rows, dtype)
    nbytes = given.nbytes + params.nbytes + sum(array.nbytes for array in out)
    timed(lambda: hr.ops.coupling(given, params, direction=verb, out=out), nbytes=nbytes)
    log_scale, shift = soft_clamped(params[..., 1]), params[..., 0]
    if verb == "forward":
        expected, log_det = shift + np.exp(log_scale) * given, log_scale.sum(1)
    else:
        expected, log_det = (given - shift) * np.exp(-log_scale), -log_scale.sum(1)
    np.testing.assert_allclose(out[0], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(out[1], log_det, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 100, 10_000])
@pytest.mark.parametrize("verb", ["forward", "inverse"])
@pytest.mark.parametrize("shape", COUPLING_SHAPES, ids=lambda shape: f"{shape[0]}-{'x'.join(map(str, shape[1]))}")
def test_coupling(timed, rng, shape, verb, rows):
    """Time a coupling with its conditioner; the other direction must undo it, and the passive half must not change."""
    features, hidden = shape
    passive = list(range(features // 2))
    coupling = hr.transforms.Coupling(features, passive, hidden)
    count = coupling.parameters.size
    coupling.parameters = 0.05 * rng.standard_normal(count).astype(np.float32)
    given = rng.standard_normal((rows, features), dtype=np.float32)
    call, way_back = coupling.forward, coupling.inverse
    if verb == "inverse":
        call, way_back = way_back, call
    made, log_det = timed(lambda: call(given), 2 * rows * coupling_weights(features, hidden), 2 * given.nbytes)
    assert np.isfinite(made).all()
    np.testing.assert_array_equal(made[:, passive], given[:, passive])
    back, log_det_back = way_back(made)
    np.testing.assert_allclose(back, given, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(log_det, -log_det_back, rtol=1e-3, atol=1e-3)
