"""Maps that make a marginal normal: kernel densities against a plain loop, and the splines that follow them."""

from statistics import NormalDist

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import reference
from devices import Library
from headrace._marginals import Curve, Shares, _masses, _summary, normal_score, spline_parameters

EDGES = (-1.0, 0.125, 20)  # of a grid: where it begins, its step, its points


def skewed(rows):
    """Numbers of which some are below EDGES, some above, and some the same; and weights, some of them tiny."""
    g = cases.rng("marginals", rows)
    x = g.gamma(2.0, size=rows) - 2.0
    x[::7] = x[0]
    return x, np.where(g.random(rows) < 0.2, 1e-12, g.exponential(size=rows))


def in_order(x, weights):
    """As `_masses` takes them: ascending numbers, integers that count them, their sum."""
    order, shares = np.argsort(x), Shares.of(weights, x.size)
    return x[order], None if weights is None else shares.of_rows[order], shares.total


@pytest.mark.parametrize("weighted", [False, True])
def test_masses_are_those_of_a_loop_over_rows(weighted):
    """Places are rounded to 2^-20 of a cell, weights to 2^-24 of the largest."""
    x, weights = skewed(500)
    first, step, cells = EDGES
    below, mass = _masses(*in_order(x, weights if weighted else None), first, step, cells)
    want = np.zeros(cells)
    for value, weight in zip(x, weights if weighted else np.ones(500), strict=True):
        place = (value - first) / step
        cell = int(np.floor(place))
        if 0 <= cell < cells - 1:
            want[cell] += weight * (1.0 - (place - cell))
            want[cell + 1] += weight * (place - cell)
    total = weights.sum() if weighted else 500.0
    assert_allclose(mass, want / total, atol=1e-6)
    assert_allclose(below, (weights[x < first].sum() if weighted else (x < first).sum()) / total, atol=1e-6)
    assert 0.0 < below < 0.5
    assert 0.5 < mass.sum() < 1.0 - below  # some are above


@pytest.mark.parametrize("weights", [None, np.array([1.0, 2.0, 1.0])])
def test_a_row_at_a_point_of_the_grid_falls_to_it_alone(weights):
    """And none is below the grid."""
    below, mass = _masses(*in_order(np.array([0.25, 1.0, 2.5]), weights), 0.0, 1.0, 5)
    assert below == 0.0
    double = 1.0 if weights is None else 2.0
    assert_allclose(mass, np.array([0.75, 0.25 + double, 0.5, 0.5, 0.0]) / (2.0 + double), rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_order_of_rows_does_not_matter(weighted):
    """To the last bit: so a fit does not depend on how a device sums."""
    x, weights = skewed(3000)
    other = cases.rng("another order").permutation(3000)
    scores = []
    for order in (np.arange(3000), other):
        shares = Shares.of(weights[order] if weighted else None, 3000)
        curve = normal_score(x[order], shares, 1.0)
        scores.append(np.stack([curve.x, curve.y, curve.slope]))
    cases.assert_same_bits(*scores)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_device_sends_counts_and_no_rows(machine, weighted, monkeypatch):
    """The same curve, and what the host gets does not grow with the rows."""
    library, got = Library("cupy", machine), {}
    for rows in (3000, 30_000):
        x, weights = skewed(rows)
        weights = weights if weighted else None
        want = normal_score(x, Shares.of(weights, rows), 1.0)
        there = library.make(x), Shares.of(None if weights is None else library.make(weights), rows)
        with monkeypatch.context() as patch:
            sizes = []
            get = machine.cupy.ndarray.get
            patch.setattr(
                machine.cupy.ndarray, "get", lambda array, get=get, to=sizes: (to.append(array.size), get(array))[1]
            )
            curve = normal_score(*there, 1.0)
        for name in ("x", "y", "slope"):
            cases.assert_same_bits(getattr(curve, name), getattr(want, name))
        got[rows] = sizes
    assert got[3000] == got[30_000] == [5, 2 * 1024]


@pytest.mark.parametrize("rows", [1, 1000, 2**27])
def test_no_sum_of_weights_overflows(rows):
    """Each row counts at most 2^bits, and so much times 2^20, where it falls to the upper point alone."""
    shares = Shares.of(np.array([3.0, 1e-300, 1.5]), rows)
    assert int(shares.of_rows[0]) * rows << 20 < 2**63
    assert shares.of_rows[0] >= 2**14
    assert shares.of_rows[1] == 0
    assert 2 * shares.of_rows[2] == shares.of_rows[0]


@pytest.mark.parametrize("largest", [5e-324, 1e300])
def test_the_unit_of_weights_does_not_matter(largest):
    assert Shares.of(np.array([largest, 0.0, largest]), 3).of_rows.tolist() == [2**24, 0, 2**24]


def test_a_summary_counts_rows_as_often_as_weights_say():
    """Quantiles are linear between rows, those of 4000 of a normal density near each other."""
    g = cases.rng("summary")
    x, weights = np.sort(g.standard_normal(4000)), g.integers(1, 5, 4000)
    weights = np.where(x > 0.5, 4, weights)
    counted = np.repeat(x, weights)
    *quantiles, variance = _summary(x, weights, int(weights.sum()), [0.1, 0.25, 0.75, 0.9])
    assert_allclose(quantiles, np.quantile(counted, [0.1, 0.25, 0.75, 0.9]), atol=0.01)
    assert_allclose(variance, counted.var(), rtol=1e-12)


def test_rows_that_weights_leave():
    assert Shares.of(None, 7).rows == 7.0
    assert Shares.of(np.array([2.0, 2.0, 0.0]), 3).rows == pytest.approx(2.0)


def test_a_normal_marginal_is_left_alone_at_any_bandwidth():
    """What the correction is for; without it the slope would be 1 / sqrt(1 + h²)."""
    x = np.array([NormalDist(3.0, 2.0).inv_cdf((i + 0.5) / 20_000) for i in range(20_000)])
    for bandwidth in (0.5, 2.0, 4.0):
        curve = normal_score(x, Shares.of(None, 20_000), bandwidth)
        inner = np.abs(curve.y) < 2.5
        np.testing.assert_allclose(curve.y[inner], (curve.x[inner] - 3.0) / 2.0, atol=0.01)
        np.testing.assert_allclose(curve.slope[inner], 0.5, rtol=0.02)


def test_weights_of_a_marginal_count_rows():
    x = cases.rng("marginal").gamma(2.0, size=400)
    weights = cases.rng("counts").integers(1, 4, 400).astype(float)
    counted = np.repeat(x, weights.astype(int))
    got = normal_score(x, Shares.of(weights, x.size), 1.0)
    want = normal_score(counted, Shares.of(None, counted.size), 1.0)
    middle = np.linspace(1.0, 3.0, 20)  # bandwidths and tails differ a little by the number of rows
    np.testing.assert_allclose(np.interp(middle, got.x, got.y), np.interp(middle, want.x, want.y), atol=0.05)


def test_a_spline_has_the_knots_of_its_curve():
    x = np.linspace(-3.0, 3.0, 500)
    curve = Curve(x, np.sinh(x) / 4.0, np.cosh(x) / 4.0)
    raw = spline_parameters(curve, 10, 5.0, 1e-3)
    knots, values, slopes = reference.spline_knots(raw)
    want = curve.knots(9)
    np.testing.assert_allclose(knots[1:-1], want.x, atol=1e-9)
    np.testing.assert_allclose(values[1:-1], want.y, atol=1e-9)
    np.testing.assert_allclose(slopes[1:-1], want.slope, rtol=1e-9)
    assert not spline_parameters(None, 10, 5.0, 1e-3).any()
