"""The distributions behind p-values, against those of SciPy and against simulation."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
from headrace.diagnosis import distributions as of

stats = pytest.importorskip("scipy.stats")


def test_normal_tails_and_quantiles():
    """Quantiles of NormalDist are right to 1e-15; the rounding of a tail's argument changes the tail by z² times as
    much."""
    z = np.array([-40.0, -3.0, 0.0, 0.5, 8.0, 37.0])
    assert_allclose(of.normal_tail(z), stats.norm.sf(z), rtol=1e-12)
    p = np.array([1e-300, 1e-20, 0.3, 0.5, 1.0 - 1e-12])
    assert_allclose(of.normal_quantile(p), stats.norm.ppf(p), rtol=1e-12)
    assert np.isfinite(of.normal_quantile([0.0, 1.0])).all()


@pytest.mark.parametrize("degrees", [1, 2, 3, 10, 51, 784])
def test_chi_square_tails(degrees):
    square = degrees * np.array([0.0, 1e-6, 0.5, 1.0, 1.5, 4.0])
    assert_allclose(of.chi_square_tail(square, degrees), stats.chi2.sf(square, degrees), rtol=1e-11)


@pytest.mark.parametrize("degrees", [1, 7, 99, 100, 5000])
def test_spread_tails(degrees):
    """The normal approximation's error is 1 % for p > 1e-3, and 5 % at 1e-4, by its documentation."""
    tails = np.array([0.4, 0.05, 0.01, 1e-4])
    for square in (stats.chi2.isf(tails, degrees), stats.chi2.ppf(tails, degrees)):
        error = np.abs(of.spread_tails(square, degrees) / (2.0 * tails) - 1.0)
        assert (error < (1e-9 if degrees < 100 else np.array([0.01, 0.01, 0.01, 0.05]))).all()


def test_anderson_darling_s_tail_has_its_leading_term_far_out():
    """For large z, P(A² > z) is √3 P(χ² > 2z), because ∏ (1 - 2 / (j (j + 1))) from j = 2 on is 1/3; the next term is
    O(1/z)."""
    z = np.array([20.0, 40.0, 100.0])
    assert_allclose(of.anderson_darling_tail(z, 1000), np.sqrt(3.0) * stats.chi2.sf(2.0 * z, 1), rtol=0.03)


@pytest.mark.parametrize("square", [0.2, 0.6, 1.2, 2.5, 4.0])
def test_anderson_darling_s_tail_is_that_of_the_weighted_sum(square):
    """Tails are those of 60,000 simulated sums of squares over j (j + 1); terms after the 200th are replaced by their
    mean."""
    rng = cases.rng("weighted sum")
    j = np.arange(1, 201)
    total = sum(rng.standard_normal(60_000) ** 2 / (i * (i + 1)) for i in j) + 1.0 / 201.0
    share = (total > square).mean()
    expected = float(of.anderson_darling_tail(square, 1000))
    assert abs(share - expected) < 4.0 * np.sqrt(expected * (1.0 - expected) / 60_000)


@pytest.mark.parametrize(("rows", "tolerance"), [(1, 0.0), (2, 0.2), (8, 0.04), (50, 0.02)])
def test_anderson_darling_of_few_rows(rows, tolerance):
    u = cases.rng("few rows").random((rows, 40_000))
    p = of.anderson_darling_tail(of.anderson_darling(u, 1.0 - u), rows)
    for level in (0.5, 0.1, 0.05):
        sampling = 4.0 * np.sqrt(level * (1.0 - level) / 40_000)
        assert abs((p <= level).mean() - level) < tolerance * level + sampling


def test_numbers_at_the_ends_have_a_statistic():
    lower = np.array([[0.0], [0.5], [1.0]])
    assert np.isfinite(of.anderson_darling(lower, 1.0 - lower)).all()
    assert of.anderson_darling_tail(of.anderson_darling(lower, 1.0 - lower), 3) < 1e-100


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (7, 10), (5200, 10_000), (3, 9)])
def test_binomial_tails(successes, trials):
    """The logarithms reach 1e5, and lose five digits."""
    assert_allclose(of.binomial_tail(successes, trials), stats.binom.sf(successes - 1, trials, 0.5), rtol=1e-9)


@pytest.mark.parametrize("rows", [11, 50, 5000])
def test_correlation_tails(rows):
    p = np.array([0.5, 0.05, 1e-4])
    t = stats.t.isf(p / 2.0, rows - 1)
    cosine = t / np.sqrt(rows - 1 + t * t)
    # The tolerance is the error for 11 rows and p = 1e-4; other errors are at most 0.002.
    assert_allclose(of.correlation_tails(cosine, rows), p, rtol=0.05)
    assert of.correlation_tails(1.0, rows) == 0.0
