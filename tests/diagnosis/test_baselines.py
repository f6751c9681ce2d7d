"""The densities that fits are compared with: a Gaussian and a kernel density."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
from headrace.choosing.simple import leave_one_out
from headrace.diagnosis import baselines as _baselines
from headrace.diagnosis.baselines import choose_bandwidth, gaussian_log_prob, kernel_log_prob


def correlated(rows, name, features=3):
    x = cases.rows(rows, features, "float64", name)
    return 5.0 + x @ cases.rows(features, features, "float64", "mixing")


def test_the_gaussian_is_the_one_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    points, rows = correlated(200, "points") * [10.0, 1.0, 0.1], correlated(20, "rows") * [10.0, 1.0, 0.1]
    want = stats.multivariate_normal(points.mean(0), np.cov(points, rowvar=False, bias=True)).logpdf(rows)
    assert_allclose(gaussian_log_prob(points, rows), want, rtol=1e-9)


def test_weights_are_rows_given_more_than_once():
    points, rows, weights = correlated(100, "points"), correlated(20, "rows"), cases.rng("weights").integers(0, 3, 100)
    want = gaussian_log_prob(np.repeat(points, weights, axis=0), rows)
    assert_allclose(gaussian_log_prob(points, rows, weights=weights), want, rtol=1e-9)
    context = correlated(100, "context", 2), correlated(20, "context of rows", 2)
    repeated = np.repeat(context[0], weights, axis=0), context[1]
    want = gaussian_log_prob(np.repeat(points, weights, axis=0), rows, context=repeated)
    assert_allclose(gaussian_log_prob(points, rows, weights=weights, context=context), want, rtol=1e-9)


def test_the_gaussian_given_a_context_is_the_joint_one_over_that_of_the_context():
    """Regression on the context is what conditioning a joint Gaussian gives."""
    points, rows = correlated(200, "points"), correlated(20, "rows")
    want = gaussian_log_prob(points, rows) - gaussian_log_prob(points[:, 2:], rows[:, 2:])
    got = gaussian_log_prob(points[:, :2], rows[:, :2], context=(points[:, 2:], rows[:, 2:]))
    assert_allclose(got, want, rtol=1e-9)


def test_a_constant_context_says_nothing():
    points, rows = correlated(50, "points"), correlated(20, "rows")
    got = gaussian_log_prob(points, rows, context=(np.full((50, 1), 7.0), np.full((20, 1), 7.0)))
    assert_allclose(got, gaussian_log_prob(points, rows), rtol=1e-9)


@pytest.mark.parametrize("points", [np.ones((9, 2)), np.arange(18.0).reshape(9, 2), np.ones((1, 1))])
def test_points_in_a_plane_have_no_gaussian(points):
    with pytest.raises(np.linalg.LinAlgError):
        gaussian_log_prob(points, points)


def test_the_kernel_density_is_the_one_of_scipy():
    """To 1e-5: distances are float32, of up to 30 kernel widths here."""
    stats = pytest.importorskip("scipy.stats")
    for features in (1, 3):
        points, rows = correlated(100, "points", features), correlated(37, "rows", features)
        want = stats.gaussian_kde(points.T, bw_method=0.2).logpdf(rows.T)
        assert_allclose(kernel_log_prob(points, rows, 0.2), want, rtol=1e-5, atol=1e-5)


def test_a_row_far_from_all_points_has_no_density():
    assert kernel_log_prob(correlated(50, "points"), np.full((1, 3), 1e4), 0.1).tolist() == [-np.inf]


def test_the_bandwidth_is_the_best_on_rows_held_out():
    """For a Gaussian of 4000 points the best one is near Scott's, which is the number of points to the power -1/6."""
    points = correlated(4000, "points", 2)
    chosen = choose_bandwidth(points, seed=1)
    assert 0.5 < chosen / 4000 ** (-1 / 6) < 2.0
    order = np.random.default_rng(1).permutation(4000)
    rows, rest = points[order[:1000]], points[order[1000:]]
    means = [kernel_log_prob(rest, rows, bandwidth).mean() for bandwidth in _baselines.BANDWIDTHS]
    assert chosen == _baselines.BANDWIDTHS[int(np.argmax(means))]
    assert choose_bandwidth(points[:5]) in _baselines.BANDWIDTHS


def test_few_points_of_many_features_get_wide_kernels_as_in_hr_auto():
    points = cases.rows(200, 10, "float64", "wide kernels")
    white = np.linalg.solve(np.linalg.cholesky(np.cov(points, rowvar=False)), (points - points.mean(axis=0)).T).T
    chosen = choose_bandwidth(points), leave_one_out(white, np.full(200, 1 / 200))
    assert min(chosen) > 0.6
    assert max(chosen) / min(chosen) < 1.25  # one step of the bandwidths that both choose from
