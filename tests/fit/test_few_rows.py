"""Fits of fewer than 500 rows: the states in which training begins, and fits that training does not improve."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
from headrace._fit import few_rows
from headrace._fit.starts import curves, mixture

pytestmark = pytest.mark.long  # the tests run whole fits
QUIET = {"progress": False}


def clusters(size, *key):
    """Rows of three clusters, far apart, in three columns; the covariances are multiples of one matrix."""
    rng = cases.rng("clusters", *key)
    root = np.array([[1.0, 0.8, 0.0], [0.0, 0.6, 0.3], [0.0, 0.0, 0.4]])
    which = rng.integers(0, 3, size)
    centers, spread = np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 3.0], [0.0, 6.0, -3.0]]), np.array([0.4, 0.8, 1.2])
    return centers[which] + spread[which, None] * (rng.standard_normal((size, 3)) @ root)


def skewed(size, *key):
    """Rows of a Gaussian copula: exponentials of correlated normal columns."""
    z = cases.rng("skewed few", *key).standard_normal((size, 3)) @ [[1.0, 0.7, 0.0], [0.0, 0.7, 0.5], [0.0, 0.0, 0.8]]
    return np.exp(z)


def standardised(x):
    return (x - x.mean(axis=0)) / x.std(axis=0)


def small(features, context=0, **settings):
    return hr.MAF(features, context, transforms=2, hidden=(16,), **settings)


# --- mixtures ---------------------------------------------------------------------------------------------------------


def test_a_mixture_is_its_base_behind_its_links():
    z = standardised(clusters(300))
    found = mixture.fitted(z, np.ones(300), 3, 0)
    flow = hr.Flow(list(found.links()), found.base(), dtype="float64")
    assert_allclose(flow.log_prob(z), found.log_prob(z), rtol=1e-9, atol=1e-9)


def test_a_mixture_finds_clusters():
    x, new = clusters(300), clusters(4000, "new")
    mean, std = x.mean(axis=0), x.std(axis=0)
    z, unseen = (x - mean) / std, (new - mean) / std
    three = mixture.fitted(z, np.ones(300), 3, 0)
    gaussian = -0.5 * (3.0 + 3.0 * np.log(2 * np.pi) + np.linalg.slogdet(np.cov(z.T))[1])
    assert three.log_prob(unseen).mean() > gaussian + 1.0
    assert_allclose(np.sort(three.shares), np.full(3, 1 / 3), atol=0.08)


def test_weights_of_a_mixture_count_as_repeated_rows():
    z, weights = standardised(clusters(150)), cases.rng("of a mixture").integers(1, 4, 150)
    found = mixture.fitted(z, weights.astype(float), 1, 0)
    repeated = mixture.fitted(np.repeat(z, weights, axis=0), np.ones(weights.sum()), 1, 0)
    assert_allclose(found.loc @ np.linalg.inv(found.root), repeated.loc @ np.linalg.inv(repeated.root), atol=1e-6)


@pytest.mark.parametrize("components", mixture.COMPONENTS)
def test_no_component_collapses_onto_a_row(components):
    z = standardised(np.concatenate([clusters(40), np.full((1, 3), 30.0), np.full((5, 3), -9.0)]))
    found = mixture.fitted(z, np.ones(len(z)), components, 0)
    assert np.isfinite(found.log_prob(z)).all()
    assert found.log_prob(z).max() < 25.0
    assert found.roots.max() < 5.0


# --- curves -----------------------------------------------------------------------------------------------------------


def test_unseen_rows_gain_by_curves_of_skewed_columns():
    x, new = skewed(200), skewed(4000, "new")
    mean, std = x.mean(axis=0), x.std(axis=0)
    (curve,) = curves.of_few_rows((x - mean) / std, np.ones(200))
    z, log_det = curve.inverse((new - mean) / std)
    normal = -0.5 * np.square((new - mean) / std).sum(axis=1)
    assert (log_det - 0.5 * np.square(z).sum(axis=1) - normal).mean() > 0.8
    assert_allclose(curve.forward(z)[0], (new - mean) / std, rtol=1e-6, atol=1e-6)


def test_columns_that_do_not_gain_have_no_curves():
    z = standardised(cases.rng("normal few").standard_normal((200, 2)))
    assert curves.of_few_rows(z, np.ones(200)) == ()
    assert curves.of_few_rows(standardised(skewed(30)), np.ones(30)) == ()  # 30 rows are too few for curves
    assert curves.of_few_rows(standardised(skewed(200)), np.ones(200), circles=[0, 1, 2]) == ()
    assert curves.of_few_rows(standardised(skewed(200).round(0)), np.ones(200)) == ()  # rounded values repeat


# --- fits -------------------------------------------------------------------------------------------------------------


def test_few_rows_of_clusters_become_a_mixture(dtype):
    x, new = clusters(200), clusters(4000, "new")
    flow, gaussian = small(3, dtype=dtype), stats_of(x)
    history = flow.fit(x, **QUIET)
    assert history.judged_by == "cross-validation"
    assert history.mixture >= 3
    assert not history.gaussian
    assert isinstance(flow.base, hr.NormalMixture)
    assert flow.log_prob(new).mean(dtype="float64") > gaussian(new).mean() + 0.8
    again = hr.from_bytes(hr.to_bytes(flow))
    assert_array_equal(again.log_prob(new[:50]), flow.log_prob(new[:50]))
    z, log_det = flow.to_latent(new[:200])
    back, other = flow.to_data(z)
    assert_allclose(back, new[:200], rtol=1e-3, atol=1e-3)
    assert_allclose(other, -log_det, atol=1e-3)
    assert_allclose(np.mean(flow.sample(20_000, seed=0), axis=0), x.mean(axis=0), atol=0.5)


@pytest.mark.usefixtures("one_mixture")
def test_few_rows_of_a_copula_have_curves():
    x, new = skewed(300), skewed(4000, "new")
    flow = small(3)
    history = flow.fit(x, **QUIET)
    assert history.gaussianized
    assert any(isinstance(t, hr.transforms.Gaussianize) for t in flow.transforms)
    assert flow.log_prob(new).mean(dtype="float64") > stats_of(x)(new).mean() + 1.0


def test_few_normal_rows_end_as_the_gaussian():
    x = cases.rng("few normal").standard_normal((150, 4)) @ np.triu(np.ones((4, 4)))
    flow = small(4)
    history = flow.fit(x, **QUIET)
    assert (history.gaussian, history.gaussianized, history.mixture, history.best_epoch) == (True, False, 0, 0)


@pytest.mark.usefixtures("one_mixture")
def test_gaussianize_decides_about_curves():
    assert not small(3).fit(skewed(200), gaussianize=False, **QUIET).gaussianized
    assert small(3).fit(skewed(200), gaussianize=True, **QUIET).gaussianized
    with pytest.raises(ValueError, match="gaussianize: expected False or 'auto' for rows of which no column gains"):
        small(2).fit(cases.rng("asked").standard_normal((200, 2)), gaussianize=True, **QUIET)


def test_mixtures_need_a_normal_base_and_no_context():
    x = clusters(150)
    assert small(3, base=hr.StudentT(3)).fit(x, **QUIET).mixture == 0
    context = cases.rng("context of few").standard_normal((150, 1))
    assert small(3, 1).fit(x, context, **QUIET).mixture == 0


@pytest.mark.usefixtures("one_mixture")
def test_the_same_seed_gives_the_same_bits():
    flows = [small(3), small(3)]
    for flow in flows:
        flow.fit(clusters(120), seed=3, **QUIET)
    assert_array_equal(*(flow.log_prob(clusters(20, "bits")) for flow in flows))


@pytest.mark.usefixtures("one_mixture")
def test_residual_columns_are_among_the_beginnings():
    z = cases.rng("residuals of few").standard_normal((300, 3))
    z[:, 2] = z[:, 0] + 0.02 * z[:, 2]
    flow = small(3)
    assert list(flow.fit(z, **QUIET).residuals) == [2]
    kinds = few_rows.Beginning().limit
    assert kinds == 1e-3


@pytest.mark.usefixtures("one_mixture")
def test_a_later_fit_keeps_the_base():
    flow = small(3)
    assert flow.fit(clusters(200), **QUIET).mixture
    base, size = flow.base, flow.parameters.size
    flow.fit(clusters(200), epochs=2, **QUIET)
    assert_array_equal(flow.base.loc, base.loc)
    assert flow.parameters.size == size


def stats_of(x):
    from scipy import stats

    return stats.multivariate_normal(x.mean(axis=0), np.cov(x.T)).logpdf
