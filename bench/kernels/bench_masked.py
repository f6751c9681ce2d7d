"""Masked autoregressive transforms: both directions of every shape, for several numbers of rows."""

from __future__ import annotations

import numpy as np
import pytest

import headrace as hr
from bench.workloads import MASKED_SHAPES, masked_weights, needed_flops
from headrace._cli.bench import needed_flops as headrace_flops

CHECKED = 16  # rows that are compared with plain NumPy


def shape_id(shape: tuple[int, tuple[int, ...]]) -> str:
    """The name of a shape, for example ``64-256x256``."""
    features, hidden = shape
    return f"{features}-{'x'.join(map(str, hidden))}"


def random_transform(
    features: int, hidden: tuple[int, ...], seed: int = 3, **options
) -> hr.transforms.MaskedAutoregressive:
    """Make a transform with random weights that is neither the identity nor badly conditioned."""
    transform = hr.transforms.MaskedAutoregressive(features, hidden, **options)
    rng = np.random.default_rng(seed)
    transform.parameters = (0.05 * rng.standard_normal(transform.parameters.size)).astype(transform.dtype)
    return transform


def parameters_of(
    transform: hr.transforms.MaskedAutoregressive, seen: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Shift and log-scale from the dense weights, in double precision; `count` parameters a coordinate."""
    weights, biases, _ = transform.to_dense()
    units = seen.astype(np.float64)
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        units = units @ weight.T.astype(np.float64) + bias
        if i < len(weights) - 1:
            units = np.maximum(units, 0)
    raw = units.reshape(len(seen), -1, count)
    shift = raw[..., 0]
    log_scale = np.zeros_like(shift) if count == 1 else raw[..., 1] / (1 + np.abs(raw[..., 1]) / np.log(1e3))
    return shift, log_scale


def check(
    transform: hr.transforms.MaskedAutoregressive, x: np.ndarray, z: np.ndarray, log_det: np.ndarray, count: int
) -> None:
    """Compare a few rows of x = shift(x) + scale(x) z and the forward log_det with plain NumPy."""
    assert np.isfinite(x).all()
    assert np.isfinite(z).all()
    tolerance = 1e-3 if transform.dtype == np.float32 else 1e-9
    shift, log_scale = parameters_of(transform, x[:CHECKED], count)
    expected = shift + np.exp(log_scale) * z[:CHECKED]
    np.testing.assert_allclose(x[:CHECKED], expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(log_det[:CHECKED], log_scale.sum(1), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", [1, 100, 10_000])
@pytest.mark.parametrize("direction", ["parallel", "sequential"])
@pytest.mark.parametrize("shape", MASKED_SHAPES, ids=shape_id)
def test_masked(timed, rng, shape, direction, rows):
    """Time a transform that reads the data side: its inverse is parallel, its forward sequential."""
    features, hidden = shape
    if features > 500:
        rows = min(rows, 1000)
    transform = random_transform(features, hidden)
    given = rng.standard_normal((rows, features), dtype=np.float32)
    call = transform.inverse if direction == "parallel" else transform.forward
    made, log_det = timed(lambda: call(given), 2 * rows * masked_weights(features, hidden), 2 * given.nbytes)
    if direction == "parallel":
        check(transform, given, made, -log_det, 2)
    else:
        check(transform, made, given, log_det, 2)


@pytest.mark.parametrize("map_", ["affine", "additive"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("direction", ["parallel", "sequential"])
def test_masked_map_and_dtype(timed, rng, direction, dtype, map_):
    """Time every map in both precisions at one size."""
    rows, features, hidden = 2000, 64, (256, 256)
    count = {"affine": 2, "additive": 1}[map_]
    transform = random_transform(features, hidden, map=map_, dtype=dtype)
    given = rng.standard_normal((rows, features)).astype(dtype)
    call = transform.inverse if direction == "parallel" else transform.forward
    flops = 2 * rows * masked_weights(features, hidden, count)
    made, log_det = timed(lambda: call(given), flops, 2 * given.nbytes, dtype)
    if direction == "parallel":
        check(transform, given, made, -log_det, count)
    else:
        check(transform, made, given, log_det, count)


@pytest.mark.parametrize("activation", ["relu", "tanh", "elu", "silu", "gelu", "gelu_tanh", "softplus"])
def test_masked_activation(timed, rng, activation):
    """Time the parallel direction with every activation; the other direction must undo it."""
    rows, features, hidden = 2000, 64, (256, 256)
    transform = random_transform(features, hidden, activation=activation)
    x = rng.standard_normal((rows, features), dtype=np.float32)
    z, log_det = timed(lambda: transform.inverse(x), 2 * rows * masked_weights(features, hidden), 2 * x.nbytes)
    back, log_det_back = transform.forward(z)
    np.testing.assert_allclose(back, x, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(log_det, -log_det_back, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["maf", "iaf"])
@pytest.mark.parametrize("verb", ["to_latent", "to_data"])
def test_masked_chain(timed, rng, family, verb):
    """Time a chain of five transforms in one call; the inverse chain must undo it."""
    rows, features, hidden, transforms = 2000, 64, (256, 256), 5
    flow = {"maf": hr.MAF, "iaf": hr.IAF}[family](features=features, transforms=transforms, hidden=hidden)
    flow.parameters = 0.05 * rng.standard_normal(flow.parameters.size).astype(np.float32)
    given = rng.standard_normal((rows, features), dtype=np.float32)
    call, way_back = (flow.to_latent, flow.to_data) if verb == "to_latent" else (flow.to_data, flow.to_latent)
    flops = 2 * rows * transforms * masked_weights(features, hidden)
    made, log_det = timed(lambda: call(given), flops, 2 * given.nbytes)
    back, log_det_back = way_back(made)
    np.testing.assert_allclose(back, given, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(log_det, -log_det_back, rtol=1e-3, atol=1e-2)


def test_count_of_weights_agrees_with_the_masks():
    """Check the formula for the number of weights, on which all shares of the peak rest, against the masks of a
    transform."""
    for features, hidden in MASKED_SHAPES:
        masks = hr.transforms.MaskedAutoregressive(features, hidden).to_dense()[2]
        existing = sum(int(np.count_nonzero(mask)) for mask in masks)
        assert existing == pytest.approx(masked_weights(features, hidden), rel=0.02)


@pytest.mark.parametrize("family", ["maf", "realnvp", "nsf"])
@pytest.mark.parametrize("verb", ["log_prob", "train"])
def test_the_command_line_counts_the_same_arithmetic(family, verb):
    """Check the operation counts of `headrace bench` against the formulas of the benchmarks."""
    flow = {"maf": hr.MAF, "realnvp": hr.RealNVP, "nsf": hr.NSF}[family](64, transforms=5, hidden=(256, 256))
    formula = needed_flops(family, 64, (256, 256), 5, 1, verb)
    assert headrace_flops(flow, training=verb == "train") == pytest.approx(formula, rel=0.02)
