"""Maps that make a marginal normal: kernel densities against a plain loop, and the splines of such maps."""

from statistics import NormalDist

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import reference
from devices import Library
from headrace._fit.starts.scores import Score, Shares, _summary, before, masses, normal_scores
from headrace.ascent.splines import spline_parameters

EDGES = (-1.0, 0.125, 20)  # a grid: its start, its step, its number of points


def skewed(rows):
    """Return values, some below EDGES, some above, and some equal; and weights, of which some are tiny."""
    g = cases.rng("marginals", rows)
    x = g.gamma(2.0, size=rows) - 2.0
    x[::7] = x[0]
    return x, np.where(g.random(rows) < 0.2, 1e-12, g.exponential(size=rows))


def normal_score(x, shares, bandwidth):
    """Return the normal score of one column."""
    return normal_scores([[x]], [shares.of_rows], shares, bandwidth)[0]


def _masses(x, counts, total, first, step, cells):
    """Return the masses of ascending values on a grid."""
    return masses(before(x, counts, first, step, cells), total)


def in_order(x, weights):
    """Return arguments of `before`: ascending values, their integer counts, and the sum of the counts."""
    order, shares = np.argsort(x), Shares.of(weights, x.size)
    return x[order], None if weights is None else shares.of_rows[order], shares.total


@pytest.mark.parametrize("weighted", [False, True])
def test_masses_are_those_of_a_loop_over_rows(weighted):
    """Masses equal those of a loop, with positions rounded to 2^-20 of a cell, and weights to 2^-42 of their sum."""
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
    assert 0.5 < mass.sum() < 1.0 - below  # some values are above the grid


@pytest.mark.parametrize("weights", [None, np.array([1.0, 2.0, 1.0])])
def test_a_row_at_a_point_of_the_grid_falls_to_it_alone(weights):
    """A row at a point of the grid adds to the mass of this point alone; no row is below the grid."""
    below, mass = _masses(*in_order(np.array([0.25, 1.0, 2.5]), weights), 0.0, 1.0, 5)
    assert below == 0.0
    double = 1.0 if weights is None else 2.0
    assert_allclose(mass, np.array([0.75, 0.25 + double, 0.5, 0.5, 0.0]) / (2.0 + double), rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_order_of_rows_does_not_matter(weighted):
    """Scores do not depend on the order of rows, not even of equal values with different counts, except for the
    rounding of a mean and a variance.
    """
    g = cases.rng("orders")
    x, weights = np.round(g.standard_normal(3000), 1), g.exponential(size=3000)
    scores = []
    for order in (np.arange(3000), *(g.permutation(3000) for _ in range(10))):
        shares = Shares.of(weights[order] if weighted else None, 3000)
        curve = normal_score(x[order], shares, 1.0)
        scores.append(np.stack([curve.x, curve.y, curve.slope]))
    for score in scores[1:]:
        if weighted:
            assert_allclose(score, scores[0], rtol=1e-9, atol=1e-9)
        else:
            cases.assert_same_bits(score, scores[0])


def test_an_outlier_of_hardly_any_weight_does_not_stretch_a_curve():
    """A curve ends at the row before an outlier of hardly any weight; this row has a thirtieth of all weight."""
    x = cases.rng("outlier").standard_normal(10_000)
    for outlier in (1e-3, 1e-12):
        weights = np.append(np.ones(10_000), [300.0, outlier])
        curve = normal_score(np.append(x, [5.0, 1e6]), Shares.of(weights, 10_002), 1.0)
        assert curve.x[-1] < 5.5
        assert curve.x.size > 500


@pytest.mark.parametrize("weighted", [False, True])
def test_a_device_sends_counts_and_no_rows(machine, weighted):
    """The number of copied counts does not grow with the rows. The curve has the bits of the CPU's if the device
    sums moments as NumPy does.
    """
    library, got = Library("cupy", machine), {}
    for rows in (3000, 30_000):
        x, weights = skewed(rows)
        weights = weights if weighted else None
        want = normal_score(x, Shares.of(weights, rows), 1.0)
        there = library.make(x), Shares.of(None if weights is None else library.make(weights), rows)
        machine.log.clear()
        curve = normal_score(*there, 1.0)
        got[rows] = machine.logged("sync")
        for name in ("x", "y", "slope"):
            cases.assert_same_bits(getattr(curve, name), getattr(want, name))
    assert got[3000] == got[30_000] == [("sync", "get", 5), ("sync", "get", 2 * 1024)]


def test_no_sum_overflows():
    """Sums of a million rows, whose counts add up to 2^42, each just below the upper point of its cell, are right."""
    weights = cases.rng("overflow").uniform(0.5, 1.0, 1_000_000)
    shares = Shares.of(weights, weights.size)
    assert 2**41 <= shares.total <= 2**42 + weights.size
    below, mass = _masses(np.full(weights.size, 0.999999), shares.of_rows, shares.total, 0.0, 1.0, 4)
    assert below == 0.0
    assert_allclose(mass, [1e-6, 1.0 - 1e-6, 0.0, 0.0], atol=1e-6)


def test_a_heavy_row_does_not_change_the_others():
    """A heavy row has as much weight as a million others together, and all shares are right."""
    weights = np.append(np.ones(1_000_000), 1e6)
    shares = Shares.of(weights, weights.size)
    assert_allclose(shares.of_rows / shares.total, weights / weights.sum(), rtol=1e-6)
    assert shares.rows == pytest.approx(weights.sum() ** 2 / np.square(weights).sum(), rel=1e-6)


@pytest.mark.parametrize("largest", [5e-324, 1e300])
def test_the_unit_of_weights_does_not_matter(largest):
    assert Shares.of(np.array([largest, 0.0, largest]), 3).of_rows.tolist() == [2**41, 0, 2**41]


def test_a_summary_counts_rows_by_their_weights():
    g = cases.rng("summary")
    x, weights = np.sort(g.standard_normal(400)), g.integers(0, 5, 400)
    weights = np.where(x > 0.5, 4, weights)
    counted, shares = np.repeat(x, weights), [0.1, 0.25, 0.5, 0.9]
    *quantiles, variance = _summary(x, weights, counted.size, shares)
    assert_allclose(quantiles, np.quantile(counted, shares, method="averaged_inverted_cdf"), rtol=1e-12)
    assert_allclose(variance, counted.var(), rtol=1e-12)
    assert_allclose(_summary(counted, None, counted.size, shares), [*quantiles, variance], rtol=1e-12)
    mirrored = _summary(-counted[::-1], None, counted.size, [0.9, 0.75, 0.5, 0.1])
    assert_allclose(mirrored, [*np.negative(quantiles), variance], rtol=1e-12)


def test_rows_that_weights_leave():
    assert Shares.of(None, 7).rows == 7.0
    assert Shares.of(np.array([2.0, 2.0, 0.0]), 3).rows == pytest.approx(2.0)


def test_a_normal_marginal_is_left_alone_at_any_bandwidth():
    """The slope of a normal marginal would be 1 / sqrt(1 + h²) without the correction for the bandwidth h."""
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
    middle = np.linspace(1.0, 3.0, 20)  # bandwidths and tails depend slightly on the number of rows
    np.testing.assert_allclose(np.interp(middle, got.x, got.y), np.interp(middle, want.x, want.y), atol=0.05)


def test_a_spline_has_the_knots_of_its_curve():
    x = np.linspace(-3.0, 3.0, 500)
    curve = Score(x, np.sinh(x) / 4.0, np.cosh(x) / 4.0)
    raw = spline_parameters(curve, 10, 5.0, 1e-3)
    knots, values, slopes = reference.spline_knots(raw)
    want = curve.knots(9)
    np.testing.assert_allclose(knots[1:-1], want.x, atol=1e-9)
    np.testing.assert_allclose(values[1:-1], want.y, atol=1e-9)
    np.testing.assert_allclose(slopes[1:-1], want.slope, rtol=1e-9)
    assert not spline_parameters(None, 10, 5.0, 1e-3).any()


@pytest.mark.parametrize("rows", [100, 10_000])
def test_the_kernel_is_as_wide_as_the_rows_are_few(rows):
    """For equal numbers of rows at -1 and 1, the kernel density is the mean of two normals of width 1.06 rows^-0.2."""
    width, normal = 1.06 * rows**-0.2, NormalDist()
    curve = normal_score(np.repeat([-1.0, 1.0], rows // 2), Shares.of(None, rows), 1.0)
    for x in (-0.75, -0.5, 0.25):
        share = 0.5 * normal.cdf((x + 1.0) / width) + 0.5 * normal.cdf((x - 1.0) / width)
        want = np.sqrt(1.0 + width * width) * normal.inv_cdf(share)
        assert_allclose(np.interp(x, curve.x, curve.y), want, atol=2e-3)
