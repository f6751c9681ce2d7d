"""Links between networks: trained linear maps, reversed orders, and products with a fixed matrix."""

from __future__ import annotations

import numpy as np
import pytest

import headrace as hr
from bench.workloads import LINK_SHAPES, coupling_weights, linear_weights

ROWS = 10_000
LINKS = ("reverse", "random", "linear")

every_shape = pytest.mark.parametrize("shape", LINK_SHAPES, ids=lambda s: f"{s[0]}-{s[2]}x{'x'.join(map(str, s[1]))}")


def linked(shape: tuple[int, tuple[int, ...], int], link: str, rng: np.random.Generator) -> hr.Flow:
    """A flow of couplings with random weights, whose linear links are near the identity."""
    features, hidden, transforms = shape
    flow = hr.RealNVP(features, transforms=transforms, hidden=hidden, link=link)
    flow.parameters = 0.05 * rng.standard_normal(flow.parameters.size).astype(np.float32)
    return flow


@every_shape
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("verb", ["log_prob", "sample", "train"])
def test_linked(timed, rng, verb, link, shape):
    """Time a flow in both directions, and value and gradient; the other direction must undo it."""
    features, hidden, transforms = shape
    flow, x = linked(shape, link, rng), rng.standard_normal((ROWS, features), dtype=np.float32)
    links = (transforms - 1) * linear_weights(features) if link == "linear" else 0
    flops = 2 * ROWS * (transforms * coupling_weights(features, hidden) + links) * (3 if verb == "train" else 1)
    calls = {
        "log_prob": lambda: flow.log_prob(x),
        "sample": lambda: flow.sample(ROWS, seed=0),
        "train": lambda: flow.nll_and_grad(x)[1],
    }
    assert np.isfinite(timed(calls[verb], flops, x.nbytes)).all()
    back, log_det_back = flow.to_data(*flow.to_latent(x)[:1])
    np.testing.assert_allclose(back, x, rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(log_det_back, -flow.to_latent(x)[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("features", [8, 64, 256])
@pytest.mark.parametrize("kind", ["linear", "rotation"])
@pytest.mark.parametrize("verb", ["forward", "inverse"])
def test_link_alone(timed, rng, verb, kind, features):
    """Time one link against the product of all rows with its matrix."""
    z = rng.standard_normal((ROWS, features), dtype=np.float32)
    rotation = hr.transforms.Rotation.random(features, seed=0)
    matrix, link = rotation.matrix, rotation
    if kind == "linear":
        link = hr.transforms.Linear.from_matrix(matrix)
    made, log_det = timed(lambda: getattr(link, verb)(z), 2 * ROWS * features**2, 2 * z.nbytes)
    np.testing.assert_allclose(made, z @ (matrix.T if verb == "forward" else matrix), rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(log_det, 0.0, atol=1e-3)
