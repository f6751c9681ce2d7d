"""The time of random values by themselves, and their share of a flow's sample."""

from __future__ import annotations

import numpy as np
import pytest

import headrace as hr
from bench.workloads import masked_weights

VARIANCE = {"StandardNormal": 1.0, "Logistic": np.pi**2 / 3}


@pytest.mark.parametrize("rows", [1, 100, 100_000])
@pytest.mark.parametrize("base", VARIANCE)
def test_base_sample(timed, base, rows):
    """Time a flow that only draws its base; bytes are those of the values that it writes."""
    features = 16
    flow = hr.Flow(transforms=[hr.transforms.Permutation(list(range(features)))], base=getattr(hr, base)(features))
    sample = timed(lambda: flow.sample(rows, seed=1), nbytes=rows * features * 4)
    assert sample.shape == (rows, features)
    assert np.isfinite(sample).all()
    if rows > 1000:
        assert np.abs(sample.mean(0)).max() < 0.05
        assert np.allclose(sample.var(0), VARIANCE[base], rtol=0.05)


@pytest.mark.parametrize("rows", [100, 100_000])
def test_numpy_normal(timed, rng, rows):
    """Time NumPy's generator on one thread, for comparison with `test_base_sample`."""
    sample = timed(lambda: rng.standard_normal((rows, 16), dtype=np.float32), nbytes=rows * 16 * 4)
    assert np.isfinite(sample).all()


@pytest.mark.parametrize("verb", ["sample", "sample_and_log_prob", "to_data"])
def test_flow_sample(timed, rng, verb):
    """Time sampling beside the same transforms on given noise (`to_data`)."""
    rows, features, hidden, transforms = 2000, 64, (256, 256), 5
    flow = hr.MAF(features=features, transforms=transforms, hidden=hidden)
    flow.parameters = 0.05 * rng.standard_normal(flow.parameters.size).astype(np.float32)
    z = rng.standard_normal((rows, features), dtype=np.float32)
    calls = {
        "sample": lambda: flow.sample(rows, seed=1),
        "sample_and_log_prob": lambda: flow.sample_and_log_prob(rows, seed=1),
        "to_data": lambda: flow.to_data(z),
    }
    result = timed(calls[verb], 2 * rows * transforms * masked_weights(features, hidden))
    x = result if verb == "sample" else result[0]
    assert np.isfinite(x).all()
    latent = flow.to_latent(x)[0]
    assert np.abs(latent.mean()) < 0.05
    assert latent.var() == pytest.approx(1, rel=0.05)
    if verb == "sample":
        np.testing.assert_array_equal(flow.sample(10, seed=1), x[:10])
    if verb == "sample_and_log_prob":
        np.testing.assert_allclose(result[1], flow.log_prob(x), rtol=1e-3, atol=1e-2)
