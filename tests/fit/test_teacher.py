"""Fits of fewer than 500 rows to samples of a mixture whose components have different covariances."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

import cases
import headrace as hr
from headrace._fit import few_rows
from headrace._fit import few_rows as teacher
from headrace._fit.starts import mixture
from headrace._flow.fit_arguments import Arguments

whole = pytest.mark.long  # marks tests that run whole fits
QUIET = {"progress": False}
CENTERS = np.array([[0.0, 0.0, 0.0], [5.0, 0.0, 2.0], [0.0, 5.0, -2.0]])
ROOTS = np.array(
    [
        [[1.5, 1.4, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.2]],
        [[0.2, 0.0, 0.0], [0.0, 1.5, -1.4], [0.0, 0.0, 0.2]],
        [[0.2, 0.0, 0.0], [0.0, 0.2, 0.0], [1.2, 0.0, 1.5]],
    ]
)


def ellipsoids(size, *key):
    """Three thin clusters, each along a different direction."""
    rng = cases.rng("ellipsoids", *key)
    which = rng.integers(0, 3, size)
    return CENTERS[which] + np.einsum("ni,nij->nj", rng.standard_normal((size, 3)), ROOTS[which])


def truth(x):
    each = [stats.multivariate_normal(c, r.T @ r).logpdf(x) for c, r in zip(CENTERS, ROOTS, strict=True)]
    return special.logsumexp(each, axis=0) - np.log(3.0)


def standardised(x):
    return (x - x.mean(axis=0)) / x.std(axis=0)


def small(features, context=0, **settings):
    return hr.MAF(features, context, transforms=3, hidden=(32,), **settings)


def of_full(z, components):
    return mixture.fitted(z, np.ones(len(z)), components, 0, 1.0, full=True)


def moments_of(found):
    """Return the means and the covariances of the components of a mixture."""
    roots = found.root @ found.roots
    return found.loc @ np.linalg.inv(found.root), np.linalg.inv(roots @ roots.transpose(0, 2, 1))


@pytest.fixture
def shorter(monkeypatch):
    """Let fits have fewer steps, for tests that do not depend on the resulting density."""
    monkeypatch.setattr(teacher, "STEPS", 600)
    monkeypatch.setattr(teacher, "SAMPLES", 10_000)


# --- the mixture ------------------------------------------------------------------------------------------------------


def test_a_density_is_that_of_its_components():
    z = standardised(ellipsoids(200))
    found = of_full(z, 3)
    each = [stats.multivariate_normal(m, c).logpdf(z) for m, c in zip(*moments_of(found), strict=True)]
    assert_allclose(found.log_prob(z), special.logsumexp(each, axis=0, b=found.shares[:, None]), rtol=1e-9, atol=1e-9)
    assert_allclose(found.shares.sum(), 1.0)


def test_the_mixture_is_near_the_truth():
    x, new = ellipsoids(300), ellipsoids(4000, "new")
    mean, std = x.mean(axis=0), x.std(axis=0)
    found = of_full((x - mean) / std, 3)
    lost = truth(new) - (found.log_prob((new - mean) / std) - np.log(std).sum())
    assert 0.0 < lost.mean() < 0.15


def test_samples_have_the_moments_of_the_mixture():
    z = standardised(ellipsoids(200))
    found = of_full(z, 3)
    rows = found.sample(200_000, np.random.default_rng(0))
    loc, own = moments_of(found)
    mean = found.shares @ loc
    away = loc - mean
    covariance = np.einsum("k,kij->ij", found.shares, own + away[:, :, None] * away[:, None])
    assert_allclose(rows.mean(axis=0), mean, atol=0.02)
    assert_allclose(np.cov(rows.T), covariance, atol=0.03)


def test_weights_count_as_repeated_rows():
    z, weights = standardised(ellipsoids(120)), cases.rng("of a full mixture").integers(1, 4, 120)
    members = np.eye(3)[cases.rng("members").integers(0, 3, 120)]
    begun = mixture._from_members(z, weights, members, 4.0, full=True)
    found = mixture._maximised(z, weights, begun, 4.0)[1]
    rows, of_rows = np.repeat(z, weights, axis=0), np.repeat(members, weights, axis=0)
    begun = mixture._from_members(rows, np.ones(len(rows)), of_rows, 4.0, full=True)
    repeated = mixture._maximised(rows, np.ones(len(rows)), begun, 4.0)[1]
    assert_allclose(found.log_prob(z), repeated.log_prob(z), atol=1e-8)


def test_clusters_of_equal_rows_have_a_covariance():
    z, members = np.repeat([[0.0, 1.0], [2.0, -1.0]], 10, axis=0), np.repeat(np.eye(2), 10, axis=0)
    (root,) = mixture._from_members(z, np.ones(20), members, None, full=True).roots
    assert_allclose(np.linalg.inv(root @ root.T), mixture.LEAST_VARIANCE * np.eye(2), rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("components", mixture.COMPONENTS_OF_FULL)
def test_no_component_collapses_onto_a_row(components):
    z = standardised(np.concatenate([ellipsoids(40), np.full((1, 3), 30.0), np.full((5, 3), -9.0)]))
    found = of_full(z, components)
    assert np.isfinite(found.log_prob(z)).all()
    assert found.log_prob(z).max() < 25.0


# --- fits -------------------------------------------------------------------------------------------------------------


@whole
def test_a_flow_learns_from_samples(dtype, request):
    if dtype == "float64":  # only the float32 case tries all mixtures, which are computed in float64 anyway
        request.getfixturevalue("one_mixture")
    x, new = ellipsoids(200), ellipsoids(4000, "new")
    flow = small(3, dtype=dtype)
    history = flow.fit(x, **QUIET)
    assert (history.from_samples, history.judged_by, history.gaussian) == (True, "cross-validation", False)
    assert history.mixture >= 3
    assert history.best_epoch > 0
    lost = truth(new).mean() - flow.log_prob(new).mean(dtype="float64")
    assert 0.0 < lost < 0.4
    assert abs(history.best_loss + truth(new).mean()) < 0.8
    again = hr.from_bytes(hr.to_bytes(flow))
    assert_array_equal(again.log_prob(new[:50]), flow.log_prob(new[:50]))
    assert_allclose(flow.to_data(flow.to_latent(new[:200])[0])[0], new[:200], rtol=1e-3, atol=2e-3)


@whole
@pytest.mark.usefixtures("shorter")
def test_the_same_seed_gives_the_same_bits():
    flows = [small(3), small(3)]
    for flow, threads in zip(flows, (1, 2), strict=True):
        with hr.threads(threads):
            assert flow.fit(ellipsoids(150), seed=3, **QUIET).from_samples
    assert_array_equal(*(flow.log_prob(ellipsoids(20, "bits")) for flow in flows))


@whole
@pytest.mark.usefixtures("shorter", "one_mixture")
def test_bounds_are_kept():
    x, new = special.expit(ellipsoids(200) / 4.0), special.expit(ellipsoids(2000, "new") / 4.0)
    flow = small(3, bounds=[(0.0, 1.0)] * 3)
    history = flow.fit(x, **QUIET)
    assert history.from_samples
    lost = truth(4.0 * special.logit(new)) - np.log(new * (1.0 - new) / 4.0).sum(axis=1)
    assert abs(lost.mean() - flow.log_prob(new).mean(dtype="float64")) < 0.5
    assert abs(history.best_loss + lost.mean()) < 0.8


@whole
@pytest.mark.usefixtures("shorter", "one_mixture")
def test_losses_of_rows_left_out_are_in_the_units_of_the_data():
    found = [small(3), small(3)]
    losses = [
        flow.fit(scale * ellipsoids(150), **QUIET).best_loss for flow, scale in zip(found, (1.0, 16.0), strict=True)
    ]
    assert_allclose(losses[1] - losses[0], 3.0 * np.log(16.0), atol=1e-6)  # a scale of 16 changes no rounding


@whole
def test_losses_of_rows_left_out_include_the_slopes_of_curves():
    """Marginal curves make lognormal columns normal; losses of the data include the curves' log slopes, -log x."""
    x = np.exp(cases.rng("lognormal", "curves").standard_normal((400, 2)))
    out = np.arange(400) % 5 == 0
    seen = few_rows.Seen.of(x, np.ones(400), 0, 0.0, True, (), np.float64)
    losses = seen.losses(1, 0, 1.0, full=True)
    true = -stats.lognorm(1.0).logpdf(x[out]).sum(axis=1)
    assert np.median(np.abs(losses - true)) < 0.3  # 320 rows determine curves, with mean log slopes of 1.2
    assert np.median(np.abs(seen.slopes)) > 0.6


@whole
def test_other_rows_are_not_learned_from_samples():
    normal = cases.rng("normal rows").standard_normal((150, 3))
    assert not small(3).fit(normal, **QUIET).from_samples
    context = cases.rng("context").standard_normal((150, 1))
    assert not small(3, 1).fit(ellipsoids(150), context, **QUIET).from_samples
    assert not small(3, base=hr.StudentT(3)).fit(ellipsoids(150), **QUIET).from_samples


@whole
@pytest.mark.usefixtures("one_mixture")
def test_ctrl_c_before_better_weights_leaves_the_flow_unchanged(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    flow = small(3)
    before = flow.parameters
    monkeypatch.setattr("headrace._fit.fit.samples_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        flow.fit(ellipsoids(150), **QUIET)
    assert_array_equal(flow.parameters, before)
    assert len(flow.transforms) == len(small(3).transforms)


@whole
def test_a_flow_that_cannot_learn_the_mixture_is_fitted_to_the_rows(monkeypatch):
    monkeypatch.setattr(teacher, "STEPS", 1)
    history = hr.MAF(3, transforms=1, hidden=(4,)).fit(ellipsoids(150), learning_rate=1e-6, **QUIET)
    assert not history.from_samples


@whole
@pytest.mark.usefixtures("shorter", "one_mixture")
def test_gaussianize_decides_about_curves_before_samples():
    x = np.exp(0.3 * ellipsoids(200))
    assert not small(3).fit(x, gaussianize=False, **QUIET).gaussianized
    assert small(3).fit(x, gaussianize=True, **QUIET).gaussianized


@whole
def test_given_arguments_of_training_are_kept():
    found = teacher.arguments_of_student(Arguments(schedule="constant", weight_decay=0.5, batch_size=100), 10_000)
    assert (found.schedule, found.weight_decay, found.patience, found.batch_size) == ("constant", 0.5, None, 100)
    assert found.epochs == round(teacher.STEPS * teacher.BATCH / 10_000)
    assert teacher.arguments_of_student(Arguments(), 10_000).schedule == "cosine"
