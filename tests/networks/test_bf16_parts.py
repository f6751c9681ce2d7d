"""The errors of products in bf16 of several parts, compared with sums in float64 of the unrounded values."""

import numpy as np
import pytest

import cases
import headrace as hr
from bf16_cases import PARTS

INPUTS, UNITS = 97, 40


def linear(weights):
    """A coupling that adds products of the first coordinates to the last ones: ReLU(s) - ReLU(-s) is s."""
    units, inputs = weights.shape
    weights = weights.astype("float64")
    both = [np.vstack([weights, -weights]), np.hstack([np.eye(units), -np.eye(units)])]
    transform = hr.transforms.Coupling.from_dense(
        both, [np.zeros(2 * units), np.zeros(units)], passive=range(inputs), features=inputs + units, map="additive"
    )
    return transform.astype("float32")


def errors(matmul, scale=1.0, rows=400):
    """Return the errors of the sums of a layer, relative to sums of the magnitudes of their terms."""
    weights = (scale * cases.rows(UNITS, INPUTS, "float32", "weights")).astype("float32")
    x = cases.rows(rows, INPUTS, "float32", "x")
    given = np.hstack([x, np.zeros((rows, UNITS), "float32")])
    got = linear(weights).to("cpu", matmul).forward(given)[0][:, INPUTS:].astype("float64")
    wide, weights = x.astype("float64"), weights.astype("float64")
    return np.abs(got - wide @ weights.T) / (np.abs(wide) @ np.abs(weights.T))


def test_two_parts_keep_sixteen_bits():
    """Values lose at most 2^-18 of their size, and products leave out a term of 2^-18 of their size."""
    found = errors("bf16x3")
    assert found.max() <= 2.0**-16
    assert np.sqrt(np.mean(np.square(found))) <= 2.0**-19
    assert errors("bf16").max() > 2.0**-12
    assert np.sqrt(np.mean(np.square(found))) > 4 * np.sqrt(np.mean(np.square(errors("bf16x6"))))


@pytest.mark.parametrize("matmul", ["bf16x6", "bf16x6_tiles"])
@pytest.mark.parametrize("scale", [1.0, 2.0**-12, 2.0**20])
def test_three_parts_are_as_exact_as_float32(scale, matmul):
    """A product leaves out about 2^-26 of itself, so that only the rounding of sums matters."""
    found, exact = errors(matmul, scale), errors("exact", scale)
    assert found.max() <= 1.5 * exact.max() + 2.0**-26
    assert np.sqrt(np.mean(np.square(found))) <= 1.5 * np.sqrt(np.mean(np.square(exact)))
    assert found.max() <= INPUTS * 2.0**-24


@pytest.mark.parametrize(
    ("matmul", "most"), [("bf16", 2.0**-8), ("bf16x3", 2.0**-15), ("bf16x6", 2.0**-21), ("bf16x6_tiles", 2.0**-21)]
)
def test_a_flow_is_near_that_in_float64(matmul, most):
    """Densities and samples, in both directions, are near those of the flow in float64."""
    flow = cases.randomise(hr.MAF(8, transforms=3, hidden=(48, 48)), 0.1)
    wide, rounded = flow.astype("float64"), flow.to("cpu", matmul)
    z = cases.rows(500, 8, "float32")
    for verb in ("to_data", "to_latent"):
        for got, want in zip(getattr(rounded, verb)(z), getattr(wide, verb)(z.astype("float64")), strict=True):
            error = np.abs(got - want) / (1 + np.abs(want))
            assert np.sqrt(np.mean(np.square(error))) <= most
    error = rounded.log_prob(z) - wide.log_prob(z.astype("float64"))
    assert np.sqrt(np.mean(np.square(error))) <= 16 * most


@pytest.mark.parametrize("matmul", PARTS)
def test_numbers_beside_the_limits(matmul):
    """Parts are 0 below 2^-63, and parts of weights below 2^-47; a row of huge values is exact until it overflows."""
    transform = linear(np.array([[1.0, -(2.0**-40) * (1 + 2.0**-10)]])).to("cpu", matmul)
    x = np.array([[2.0**-62, 0, 0], [2.0**-64, 0, 0], [0, 1, 0], [1e38, 0, 0], [3.4e38, 0, 0], [1, 1, 0]], "float32")
    for rows in (x, np.tile(x, (3, 1))):
        got = transform.forward(rows)[0][:6, 2]
        assert got[0] == np.float32(2.0**-62)
        assert got[1] == 0
        assert got[2] == np.float32(-(2.0**-40))  # the weight has a second part of 2^-50, below 2^-47
        assert abs(got[3] / 1e38 - 1) <= 2.0 ** (-8 * PARTS[matmul])
        assert np.isnan(got[4])  # 3.4e38 is rounded to infinity
        assert abs(got[5] - 1) <= 2.0**-24
