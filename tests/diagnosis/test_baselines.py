"""The densities with which fits are compared: a Gaussian and a kernel density."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
from headrace._fit.gaussian import gaussian_log_prob
from headrace._fit.starts.kernels import BANDWIDTHS, KernelDensity, leave_one_out
from headrace.choosing import candidates as simple
from headrace.choosing.sample import Sample


def correlated(rows, name, features=3):
    x = cases.rows(rows, features, "float64", name)
    return 5.0 + x @ cases.rows(features, features, "float64", "mixing")


def test_the_gaussian_of_many_points_is_the_one_of_scipy():
    """The densities of headrace and SciPy agree to 5e-3 nats, because for 4000 points the share of the identity that is
    mixed in is at most 1e-3."""
    stats = pytest.importorskip("scipy.stats")
    points, rows = correlated(4000, "points") * [10.0, 1.0, 0.1], correlated(20, "rows") * [10.0, 1.0, 0.1]
    want = stats.multivariate_normal(points.mean(0), np.cov(points, rowvar=False, bias=True)).logpdf(rows)
    assert_allclose(gaussian_log_prob(points, rows), want, atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize("rows", [60, 2000])
def test_the_gaussian_is_the_one_of_hr_auto(rows):
    points, new = correlated(rows, "points", 8), correlated(20, "rows", 8)
    weights = cases.rng("weights").uniform(0.5, 1.5, rows)
    want = simple.gaussian(Sample(points, None, weights), None, "float64").log_prob(new)
    assert_allclose(gaussian_log_prob(points, new, weights=weights), want, rtol=1e-9)


def test_the_gaussian_of_few_points_is_nearer_than_their_covariance():
    """The Gaussian of greatest likelihood fits 90 parameters to 30 independent points of 12 features."""
    stats = pytest.importorskip("scipy.stats")
    points, rows = cases.rows(30, 12, "float64", "few points"), cases.rows(500, 12, "float64", "new rows")
    likeliest = stats.multivariate_normal(points.mean(0), np.cov(points, rowvar=False, bias=True)).logpdf(rows)
    assert gaussian_log_prob(points, rows).mean() > likeliest.mean() + 1.0


def test_integer_weights_are_repeated_rows():
    """Copies of a row are in the row's fold of cross-validation, and rows of weight 0 do not count."""
    points, rows, weights = correlated(100, "points"), correlated(20, "rows"), cases.rng("weights").integers(0, 3, 100)
    context = correlated(100, "context", 2), correlated(20, "context of rows", 2)
    copied = np.concatenate([weights > 0, weights > 1]).astype(float)
    want = gaussian_log_prob(np.tile(points, (2, 1)), rows, weights=copied)
    assert_allclose(gaussian_log_prob(points, rows, weights=weights), want, rtol=1e-9)
    want = gaussian_log_prob(
        np.tile(points, (2, 1)), rows, weights=copied, context=(np.tile(context[0], (2, 1)), context[1])
    )
    assert_allclose(gaussian_log_prob(points, rows, weights=weights, context=context), want, rtol=1e-9)


def test_the_gaussian_given_a_context_is_the_joint_one_over_that_of_the_context():
    """The conditional of a joint Gaussian is a regression on the context; shares of the identity cost 1e-2 nats."""
    points, rows = correlated(4000, "points"), correlated(20, "rows")
    want = gaussian_log_prob(points, rows) - gaussian_log_prob(points[:, 2:], rows[:, 2:])
    got = gaussian_log_prob(points[:, :2], rows[:, :2], context=(points[:, 2:], rows[:, 2:]))
    assert_allclose(got, want, atol=1e-2)


def test_a_constant_context_has_no_effect():
    points, rows = correlated(50, "points"), correlated(20, "rows")
    got = gaussian_log_prob(points, rows, context=(np.full((50, 1), 7.0), np.full((20, 1), 7.0)))
    assert_allclose(got, gaussian_log_prob(points, rows), rtol=1e-9)


@pytest.mark.parametrize("points", [np.ones((9, 2)), np.arange(18.0).reshape(9, 2), np.ones((1, 1))])
def test_points_in_a_plane_have_no_gaussian(points):
    with pytest.raises(np.linalg.LinAlgError):
        gaussian_log_prob(points, points)


def test_the_kernel_density_is_the_one_of_scipy():
    """The kernel densities of headrace and SciPy agree to 1e-5, because distances, of up to 30 kernel widths, are
    float32.

    The factor of the bandwidth is needed because SciPy's covariance divides by n - 1.
    """
    stats = pytest.importorskip("scipy.stats")
    weights = cases.rng("weights").uniform(0.0, 1.0, 100)
    for features in (1, 3):
        points, rows = correlated(100, "points", features), correlated(37, "rows", features)
        want = stats.gaussian_kde(points.T, bw_method=0.2 * np.sqrt(99 / 100)).logpdf(rows.T)
        assert_allclose(KernelDensity.of(points, bandwidth=0.2).log_prob(rows), want, rtol=1e-5, atol=1e-5)
        biased = 1.0 - np.square(weights / weights.sum()).sum()
        want = stats.gaussian_kde(points.T, bw_method=0.2 * np.sqrt(biased), weights=weights).logpdf(rows.T)
        assert_allclose(KernelDensity.of(points, weights, 0.2).log_prob(rows), want, rtol=1e-5, atol=1e-5)


def test_a_row_far_from_all_points_has_the_density_of_the_nearest_kernels():
    """At a far row all kernels are 0 in float64, but their logarithms are finite."""
    points = np.array([[-1.0], [1.0]])
    got = KernelDensity.of(points, bandwidth=0.1).log_prob(np.array([[101.0], [np.inf]]))
    want = -0.5 * (100.0 / 0.1) ** 2 - np.log(2 * 0.1 * np.sqrt(2 * np.pi))
    assert_allclose(got[0], want, rtol=1e-9)
    assert got[1] == -np.inf


def test_points_of_weight_0_have_no_kernels():
    points, rows = correlated(50, "points"), correlated(20, "rows")
    weights = np.repeat([1.0, 0.0], 25)
    half, whole = KernelDensity.of(points[:25]), KernelDensity.of(points, weights)
    assert_allclose(whole.log_prob(rows), half.log_prob(rows), rtol=1e-5)
    assert half.bandwidth == whole.bandwidth


def test_the_bandwidth_is_that_of_leaving_one_out():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    points, weights = rng.standard_normal((60, 2)), rng.uniform(0.5, 1.5, 60)
    weights /= weights.sum()

    def left_out(bandwidth):
        total = 0.0
        for i in range(60):
            others = np.delete(np.arange(60), i)
            kernel = stats.multivariate_normal(np.zeros(2), bandwidth**2 * np.eye(2))
            density = (weights[others] / weights[others].sum()) @ kernel.pdf(points[i] - points[others])
            total += weights[i] * np.log(density)
        return total

    assert leave_one_out(points, weights) == max(BANDWIDTHS, key=left_out)


def test_the_bandwidth_of_a_gaussian_is_near_scott_s():
    """Scott's bandwidth is the number of points to the power -1/6 in two dimensions."""
    assert 0.5 < KernelDensity.of(correlated(4000, "points", 2)).bandwidth / 4000 ** (-1 / 6) < 2.0


def test_few_points_of_many_features_get_wide_kernels():
    assert KernelDensity.of(cases.rows(200, 10, "float64", "wide kernels")).bandwidth > 0.6
