"""Default fits of rows that lie close together: nearly collinear columns, columns near their context, skewed columns.

A fit warns if its likelihoods mean little. Fits of arrays, of streams and of groups behave alike.
"""

import math
import re
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import cases
import headrace as hr
from headrace._fit import gaussian, marginals
from headrace._fit import plan as _plan
from headrace._fit.gaussian import MOST_FEATURES
from headrace._fit.marginals import Sample, of_sample
from headrace._fit.moments import far_columns
from headrace.choosing.sample import opened

KINDS = ["array", "stream", "group"]
QUIET = {"progress": False}


def fit(kind, flow, x, context=None, weights=None, **settings):
    """Fit rows in memory, as a stream beyond its buffer, or as shards, depending on `kind`."""
    settings = {**QUIET, **settings}
    if kind == "array":
        return flow.fit(x, context, weights=weights, **settings)
    if kind == "stream":
        ends = [slice(i, i + 300) for i in range(0, len(x), 300)]
        blocks = [tuple(None if part is None else part[end] for part in (x, context, weights)) for end in ends]
        return flow.fit(hr.rows.blocks(blocks, buffer=max(600, len(x) // 5)), **settings)
    group = hr.distributed.local()
    x, context, weights = (
        None if part is None else hr.distributed.shards(part, group, rows=250) for part in (x, context, weights)
    )
    return flow.fit(x, context, weights=weights, group=group, **settings)


def small(features, context=0, **settings):
    return hr.MAF(features, context, transforms=2, hidden=(16,), **settings)


@pytest.fixture
def short(monkeypatch):
    """Let default fits have a few steps, too few for networks to learn anything."""
    monkeypatch.setattr(_plan, "STEPS", 10)
    monkeypatch.setattr(_plan, "LEAST_EPOCHS", 1)


def collinear(rows, eps, *key):
    z = cases.rng("collinear", *key).standard_normal((rows, 3))
    return np.stack([z[:, 0], z[:, 1], z[:, 0] + eps * z[:, 2]], axis=1)


def near_context(rows, eps, *key):
    z = cases.rng("near its context", *key).standard_normal((rows, 3))
    return np.stack([z[:, 0] + eps * z[:, 1], z[:, 2]], axis=1), z[:, :1]


# --- nearly collinear columns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eps", [1e-5, 1e-6, 0.0])
def test_nearly_collinear_columns_keep_their_gaussian(kind, eps, dtype, short):
    """The third column is replaced by its residual; if the residual is mere rounding, the column stays, and the
    Gaussian has the deviation `LEAST_ROOT` along one direction.
    """
    x, new = collinear(1000, eps), collinear(4000, eps, "new")
    flow = small(3, dtype=dtype)
    with pytest.warns(RuntimeWarning, match="column 2 differs from" if eps else "column 2 is a linear combination"):
        history = fit(kind, flow, x)
    assert history.gaussian or eps  # an untrained flow of residuals is nearly the Gaussian of the rows
    assert list(history.residuals) == ([2] if eps else [])
    found, least = flow.log_prob(new).mean(dtype="float64"), gaussian.LEAST_ROOT
    if not eps:
        inner = stats.multivariate_normal([0.0, 0.0]).logpdf(new[:, :2]).mean()
        # Along (x₀ - x₂) / √2, whose slope in x₂ is 1 / √2, the density is 1 / (least √(2π)).
        assert_allclose(found, inner - math.log(least * 2.0 * math.sqrt(math.pi)), atol=0.02)
        return
    true = (stats.norm.logpdf(new[:, :2]).sum(axis=1) + stats.norm.logpdf(new[:, 2], new[:, 0], eps)).mean()
    assert_allclose(found, true, atol=0.02)  # nats: 9 parameters fitted to 900 rows cost 0.005, rounding 0.005


@pytest.mark.costly
@pytest.mark.usefixtures("one_mixture")
@pytest.mark.parametrize("rows", [300, 5000])
def test_few_and_many_rows_keep_their_gaussian_too(rows):
    flow = small(3)
    with pytest.warns(RuntimeWarning, match="column 2 differs from"):
        flow.fit(collinear(rows, 1e-6, rows), **QUIET)
    assert flow.log_prob(collinear(4000, 1e-6, "new")).mean() > 9.5  # the true density has 9.55


def test_rows_with_spread_in_all_directions_have_links_of_a_shrunk_covariance():
    """Cross-validation chooses the share of the identity in the covariance, as in scikit-learn's ShrunkCovariance."""
    x = cases.rng("spread").standard_normal((500, 3)) @ [[1.0, 0.6, 0.0], [0.0, 0.8, 0.3], [0.0, 0.0, 0.5]]
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    links = gaussian.links_of(*gaussian.second_moments(z, np.ones(500)))
    root = links[0].matrix.T @ np.diag(links[1].std) @ links[0].matrix
    covariance = z.T @ z / 500
    shares = [
        share for share in gaussian.SHARES if np.allclose(root @ root, (1 - share) * covariance + share * np.eye(3))
    ]
    assert len(shares) == 1
    assert shares[0] < 0.05


def test_a_constant_column_is_no_collinear_one():
    z = cases.rng("constant").standard_normal((500, 3))
    z[:, 1], z[:, 2] = 0.0, z[:, 0]
    links = gaussian.links_of(*gaussian.second_moments(z, np.ones(500)))
    assert_allclose(np.sort(links[1].std)[:2], [gaussian.LEAST_ROOT, math.sqrt(gaussian.CONSTANT)], rtol=1e-6)


# --- context --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eps", [1e-2, 1e-4, 1e-6])
def test_with_context_a_fit_is_no_worse_than_linear_regression(kind, eps, dtype, short):
    (x, context), (new, known) = near_context(1000, eps), near_context(4000, eps, "new")
    flow = small(2, 1, dtype=dtype)
    assert fit(kind, flow, x, context).gaussian
    true = (stats.norm.logpdf(new[:, 0], known[:, 0], eps) + stats.norm.logpdf(new[:, 1])).mean()
    # 7 parameters fitted to 900 rows cost 0.004 nats; float32 has steps of 6e-8 to 2.4e-7, a tenth of the smallest eps.
    assert_allclose(flow.log_prob(new, known).mean(dtype="float64"), true, atol=0.03)
    again = hr.from_bytes(hr.to_bytes(flow))
    assert_array_equal(again.log_prob(new[:9], known[:9]), flow.log_prob(new[:9], known[:9]))


@pytest.mark.long
@pytest.mark.parametrize(
    "family", ["MAF", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("NSF", "RealNVP"))]
)
def test_default_flows_reach_linear_regression(family):
    (x, context), (new, known) = near_context(2000, 1e-3), near_context(4000, 1e-3, "new")
    flow = getattr(hr, family)(2, 1)
    flow.fit(x, context, **QUIET)
    assert flow.log_prob(new, known).mean() > 3.9  # 4.07 by the true density, 2.2 to 3 without regression


def test_few_rows_begin_with_linear_regression_and_a_later_fit_keeps_it():
    (x, context), (new, known) = near_context(300, 1e-3, "few"), near_context(4000, 1e-3, "new")
    flow = small(2, 1)
    assert flow.fit(x, context, **QUIET).judged_by == "cross-validation"
    assert flow.log_prob(new, known).mean() > 3.9
    begun = flow.parameters.size
    assert flow.fit(x, context, epochs=2, **QUIET).best_loss < -3.5
    assert flow.parameters.size == begun
    assert flow.log_prob(new, known).mean() > 3.9


@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_is_that_of_least_squares(weighted):
    """With many rows the share of the identity is 0, and the mean is that of NumPy's least squares."""
    draw = cases.rng("least squares", weighted)
    context = draw.standard_normal((3000, 2)) @ [[1.0, 0.7], [0.0, 0.4]]
    z = context @ [[0.5, -1.0, 0.0], [2.0, 0.3, 0.0]] + 0.1 * draw.standard_normal((3000, 3))
    share = draw.uniform(0.1, 2.0, 3000) if weighted else np.ones(3000)
    links = gaussian.links_of(*gaussian.second_moments(np.concatenate([z, context], axis=1), share), 2, np.float64)
    root = np.sqrt(share)[:, None]
    want = np.linalg.lstsq(root * context, root * z, rcond=None)[0]
    mean = links[-1].forward(np.zeros((2, 3)), np.eye(2))[0]
    assert_allclose(mean, want, atol=2e-3)  # ridges of 1e-4 move the mean by less than 2e-3
    left = z - context @ want
    z = cases.rng("drawn").standard_normal((50, 3))
    drawn = hr.Flow(links, dtype="float64").to_data(z, np.zeros((50, 2)))[0]
    root = np.linalg.lstsq(z, drawn, rcond=None)[0]
    covariance = (left * share[:, None]).T @ left / share.sum()
    assert_allclose(root.T @ root, covariance, atol=1e-3)


def test_one_context_for_all_rows_and_very_many_columns_of_it_add_no_parameters(short):
    x = cases.rng("nothing").standard_normal((1000, 2))
    for columns, rows in ((3, None), (MOST_FEATURES + 1, 1000)):
        flow = small(2, columns)
        size = flow.parameters.size
        flow.fit(x, cases.rng("context").standard_normal((rows, columns) if rows else columns), **QUIET)
        assert flow.parameters.size == size


# --- cells far out --------------------------------------------------------------------------------------------------


def named(name, rows):
    """A pattern for the warning about 1e8 in row 700 of the second column."""
    where = f"in 1 of {rows} rows, first in row 700: 1e+08"
    return re.escape(f"{name}: cells lie far from all others in column 1 (column 1: {where}; the others lie within ")


@pytest.mark.costly
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fills", [1, 2])
def test_a_few_fill_values_cost_new_rows_nothing(kind, fills):
    """Rows with 1e20 are left out: otherwise one cell would set the standard deviation, and cost 33 nats a row."""
    z, new = (cases.rng("fill", key).standard_normal((2000, 2)) for key in ("old", "new"))
    x = z.copy()
    x[17 : 17 + fills, 1] = 1e20
    flow, other = hr.MAF(2), hr.MAF(2)
    with pytest.warns(RuntimeWarning, match=r"^x: .*first in row 17: 1e\+20.*they are left out of the fit"):
        fit(kind, flow, x)
    fit(kind, other, z)
    assert flow.log_prob(new).mean() > other.log_prob(new).mean() - 0.02


def test_the_warning_of_cells_far_out_counts_fill_values(short):
    x = cases.rng("fills").standard_normal((2000, 3))
    x[:40, 2], x[[50, 51, 60], 0], x[70, 0] = 1e9, 1e20, -1e12
    both = re.escape(
        "column 0, column 2 (column 0: in 4 of 2000 rows, first in row 50: 1e+20, the value of 3 of them; "
    )
    with pytest.warns(RuntimeWarning, match=both):
        small(3).fit(x, **QUIET)
    with pytest.warns(RuntimeWarning, match=re.escape("first in row 0: 1e+09, the value of 40 of them; ")) as warned:
        small(3).fit(x[:, ::-1].copy(), **QUIET)
    assert "leave these rows out" in str(warned[0].message)  # the 40 rows are a fiftieth of all rows


@pytest.mark.parametrize("kind", ["array", "stream"])
def test_cells_far_out_in_rows_of_weight_zero_and_in_rows_held_out(kind, short):
    """Row 10 has weight zero and does not count; one of the three other rows with 1e12 is probably held out."""
    x, weights = cases.rng("weight zero").standard_normal((2000, 2)), np.ones(2000)
    weights[:500:2], x[[10, 1503, 1504, 1805], 1] = 0.0, 1e12
    message = "^" + re.escape(
        "x: cells lie far from all others in column 1 (column 1: in 3 of 1750 rows, first in row 1503"
    )
    flow = small(2)
    with pytest.warns(RuntimeWarning, match=message):
        fit(kind, flow, x, weights=weights)
    assert flow.log_prob(np.zeros((1, 2))).item() > -3


@pytest.mark.parametrize("kind", KINDS)
def test_one_frequent_value_of_a_column_is_named(kind, short):
    x = cases.rng("spike").standard_normal((2000, 2))
    x[::7, 1] = 0.5
    message = r"^x: one value is frequent in column 1 \(0\.5 in 2\d\d of 1,800 rows, and 1,5\d\d different ones"
    with pytest.warns(RuntimeWarning, match=message) as warned:
        fit(kind, small(2), x, seed=3)
    assert len(warned) == 1


def test_grids_and_constant_columns_have_no_frequent_value(short):
    rng = cases.rng("grid")
    x = np.stack([rng.integers(0, 9, 2000), np.full(2000, 3), rng.standard_normal(2000)], axis=1).astype("float32")
    x[:90, 2] = 0.25  # the value has less than a twentieth of the rows
    with pytest.warns(RuntimeWarning, match="column 1 is constant") as warned:
        small(3).fit(x, **QUIET)
    assert len(warned) == 1


@pytest.mark.filterwarnings("ignore:fit:RuntimeWarning")  # fits with few steps warn
@pytest.mark.parametrize("kind", KINDS)
def test_cells_of_x_far_out_are_named(kind, short):
    x, _ = near_context(2000, 0.5, "far")
    x[700, 1] = 1e8
    with pytest.warns(RuntimeWarning, match="^" + named("x", 250 if kind == "group" else 2000)) as warned:
        fit(kind, small(2), x, seed=3)
    assert len([one for one in warned if str(one.message).startswith("x: cells")]) == 1


def test_heavy_tails_frequent_values_and_modes_are_not_far_out():
    rng = cases.rng("tails")
    normal = rng.standard_normal(5000)
    spike, modes = np.where(normal > 0.8, np.exp(3 * normal), 0.0), np.where(normal > 2.3, 3e4, normal)
    x = np.stack([rng.standard_cauchy(5000), np.exp(3 * normal), spike, modes, np.full(5000, 7.0), normal > 3], axis=1)
    assert not far_columns(x, np.split(x, 5), 1e5)
    x[4100] = 1e30
    assert [one.column for one in far_columns(x, np.split(x, 5), 1e5)] == [0, 1, 2, 3, 5]


def test_the_best_of_several_flows_is_found_without_cells_far_out():
    x = cases.rng("auto").standard_normal((2000, 2))
    x[17, 1] = 1e20
    with pytest.warns(RuntimeWarning, match=r"^x: .*first in row 17: 1e\+20"):
        assert len(opened(x, None, None, 2)) == 1999


@pytest.mark.parametrize("kind", KINDS)
def test_contexts_far_out_are_named(kind, short):
    x, context = near_context(2000, 0.5, "far")
    context = np.concatenate([context, context[::-1]], axis=1)
    context[700, 1] = 1e8
    with pytest.warns(RuntimeWarning, match=named("context", 250 if kind == "group" else 2000)) as warned:
        fit(kind, small(2, 2), x, context, seed=3)
    assert len(warned) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_contexts_of_a_few_values_or_with_a_tail_are_not_named(kind, short):
    x, context = near_context(2000, 0.5, "rare")
    rare = np.zeros(2000)
    rare[[5, 1500]] = 1.0
    context = np.stack([context[:, 0], rare, np.exp(1.5 * context[:, 0])], axis=1)
    fit(kind, small(2, 3), x, context)


# --- skewed columns -------------------------------------------------------------------------------------------------


def lognormal(rows, sigma, *key):
    return np.exp(sigma * cases.rng("lognormal", *key).standard_normal((rows, 3)))


@pytest.mark.parametrize("rows", [1000, 16_384])
@pytest.mark.parametrize("sigma", [2.0, 2.5, 3.0, 4.0])
def test_very_skewed_columns_become_about_normal(sigma, rows):
    x = lognormal(rows, sigma, rows)
    x[:, 2] = -x[:, 2]
    mean, std = x.mean(axis=0), x.std(axis=0)
    links = of_sample(Sample((x - mean) / std, None))
    flow = hr.Flow([*links, hr.transforms.Standardize(mean, std)], dtype="float64")
    new = lognormal(50_000, sigma, "new") * [1.0, 1.0, -1.0]
    z = flow.to_latent(new)[0]
    for column in z.T:
        # In one of 20 columns the training rows are farther than 1.36 / sqrt(rows) from the true distribution.
        assert stats.kstest(column, "norm").statistic < 2.0 / math.sqrt(rows) + 0.01
    truth = stats.lognorm(sigma).logpdf(np.abs(new)).sum(axis=1)
    log_prob = flow.log_prob(new)
    assert (truth - log_prob).mean() < (0.35 if rows == 1000 else 0.1)  # most of the difference is in rows far out
    assert_allclose(flow.to_data(z[:1000])[0], new[:1000], rtol=1e-6)


def test_rows_beyond_a_spike_are_not_thrown_far_out():
    """A top-coded column ends in a spike: a tail with the slope of the curve in the spike would lead to -3.6e7."""
    rng = np.random.default_rng(0)
    x = np.round(rng.gamma(2.2, 11, 3000))
    x[x > 65] = 99.999
    x[:4], x[4:40] = [175, 165, 155, 141], x[4:40] + 0.001
    x = (x + 0.001 * (rng.random(3000) - 0.5))[:, None]
    mean, std = x.mean(axis=0), x.std(axis=0)
    links = of_sample(Sample((x - mean) / std, None))
    assert links
    assert hr.Flow([*links, hr.transforms.Standardize(mean, std)], dtype="float64").log_prob(x).min() > -60


@pytest.mark.parametrize("kind", KINDS)
def test_training_rows_that_are_lost_are_named(kind, short):
    x = lognormal(2000, 0.2)
    x[700, 1] = 1e4  # 1e4 is not far enough out to be left out
    with pytest.warns(
        RuntimeWarning, match=r"^fit: 1 of \d+ training rows have log densities down to -\d.*, half of all at"
    ):
        fit(kind, small(3), x, seed=3, epochs=1)


def test_columns_that_are_not_crowded_are_left_alone():
    x = np.concatenate([lognormal(5000, 3.0)[:, :1], cases.rng("normal").standard_normal((5000, 1))], axis=1)
    curve, spreading = of_sample(Sample((x - x.mean(axis=0)) / x.std(axis=0), None))
    assert_allclose(spreading.inverse(np.array([[0.0, -1.7], [0.0, 2.5]]))[0][:, 1], [-1.7, 2.5], atol=1e-12)
    assert_allclose(curve.data[1], curve.latent)
    assert len(of_sample(Sample(x[:, 1:] ** 3, None))) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_fits_of_skewed_columns_have_curves(kind, monkeypatch):
    monkeypatch.setattr(marginals, "TRIED", 1)
    x = lognormal(6000, 2.5, "fit")
    flow = small(3)
    history = fit(kind, flow, x, epochs=3)
    assert history.gaussianized
    assert [type(t).__name__ for t in flow.transforms[-3:]] == ["Gaussianize", "Gaussianize", "Standardize"]
    assert len(flow._interior.links) == 3
    # The mean log density of new rows is -7.0 by the true density, and -11 by a fit without curves.
    assert flow.log_prob(lognormal(20_000, 2.5, "new")).mean() > -7.2


@pytest.mark.long
def test_more_rows_are_no_worse():
    """More rows have a wider range, beside which the rows in the middle are closer together."""
    new = lognormal(50_000, 2.0, "new")
    for rows in (1000, 8000):
        flow = hr.NSF(3)
        assert flow.fit(lognormal(rows, 2.0, rows), **QUIET).gaussianized
        assert flow.log_prob(new).mean() > -6.6  # the true density has -6.34


# --- requested curves -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["array", "group"])
@pytest.mark.parametrize(
    ("rows", "settings", "base", "pattern"),
    [
        (400, {}, None, "40 held-out rows, fewer than 50"),
        (1200, {"validation": None}, None, "0 held-out rows, fewer than 50"),
        (1200, {}, hr.StudentT(3), "a base with edges, modes or tails of its own"),
        (1200, {"normal": True}, None, "for rows of which no column gains by a curve"),
    ],
    ids=["few rows", "nothing held out", "a base with tails", "normal rows"],
)
def test_impossible_curves_are_refused(kind, rows, settings, base, pattern):
    x = np.exp(0.8 * cases.rng("asked for").standard_normal((rows, 3)))
    settings = {"epochs": 2, **settings}
    if settings.pop("normal", False):
        x = np.log(x)
    flow = small(3, base=base)
    before = flow.parameters.copy()
    with pytest.raises(ValueError, match=f"gaussianize: expected False or 'auto' .*{pattern}.*, got True"):
        fit(kind, flow, x, gaussianize=True, **settings)
    assert_array_equal(flow.parameters, before)
    assert flow.transforms[-1].is_identity
    fit(kind, flow, x, **settings)


def test_a_second_fit_has_the_curves_of_the_first():
    x = np.exp(0.8 * cases.rng("asked for").standard_normal((1200, 3)))
    flow, without = small(3), small(3)
    flow.fit(x, gaussianize=True, epochs=2, **QUIET)
    flow.fit(x, gaussianize=True, epochs=2, **QUIET)
    without.fit(x, gaussianize=False, epochs=20, **QUIET)
    with pytest.raises(ValueError, match="with a flow that does not end in a fresh Standardize, got True"):
        without.fit(x, gaussianize=True, epochs=2, **QUIET)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gaussian_keeps_requested_curves(kind, short):
    z = cases.rng("copula").standard_normal((2000, 3)) @ np.linalg.cholesky(0.2 * np.eye(3) + 0.8).T
    flow = small(3, dtype="float64")
    history = fit(kind, flow, np.exp(z), gaussianize=True)
    assert history.gaussian
    assert history.gaussianized
    new = cases.rng("copula", "new").standard_normal((20_000, 3)) @ np.linalg.cholesky(0.2 * np.eye(3) + 0.8).T
    truth = stats.multivariate_normal(np.zeros(3), 0.2 * np.eye(3) + 0.8).logpdf(new) - new.sum(axis=1)
    assert (truth - flow.log_prob(np.exp(new))).mean() < 0.1  # correlations gain 1.1 nats


# --- warnings of a fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_that_gain_nothing_leave_the_gaussian_with_a_warning(kind):
    """Held-out rows far out lose more by the first steps than all others gain."""
    x = cases.rng("lost").standard_normal((2000, 2)) @ [[1.0, 0.99], [0.0, 0.1]]
    flow = small(2)
    validation = x[:200] * 1.0001
    settings = {"epochs": 2, "learning_rate": 1.0, "clip": None}
    given = validation if kind != "group" else {0: validation}
    with pytest.warns(RuntimeWarning, match="fit: no epoch of 2 was better .* the flow is the Gaussian of the"):
        history = fit(kind, flow, x, validation=given, **settings)
    assert history.best_epoch == 0
    assert history.gaussian
    want = stats.multivariate_normal(x.mean(axis=0), np.cov(x.T, bias=True)).logpdf(validation).mean()
    assert_allclose(-history.best_loss, want, atol=0.02)
    assert_allclose(flow.log_prob(validation).mean(), want, atol=0.02)


PREFERRED = r"fit: held-out rows prefer a Gaussian: .* is (\S+) nats under the flow and (\S+) nats under .* epochs="


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_that_end_below_a_gaussian_give_a_warning_with_both_numbers(kind, monkeypatch):
    """The warning changes no parameters; a second fit of the flow, as in a loop of single epochs, does not warn."""
    root = np.linalg.cholesky(0.1 * np.eye(4) + 0.9)
    x, out = (cases.rng("preferred", i).standard_normal((2000, 4)) @ root.T for i in range(2))
    flow, same = small(4), small(4)
    given = out if kind != "group" else {0: out}
    with pytest.warns(RuntimeWarning, match=PREFERRED) as said:
        history = fit(kind, flow, x, validation=given, epochs=1)
    (text,) = (str(one.message) for one in said)
    reached, best = map(float, re.match(PREFERRED, text).groups())
    assert_allclose(reached, flow.log_prob(out).mean(dtype="float64"), atol=1e-3)
    assert_allclose(
        best, stats.multivariate_normal(x.mean(axis=0), np.cov(x.T, bias=True)).logpdf(out).mean(), atol=5e-3
    )
    assert reached < best - 0.1
    assert history.best_epoch == 1
    assert not history.gaussian
    monkeypatch.setattr("headrace._fit.fit.MANY", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(kind, same, x, validation=given, epochs=1)  # with MANY = 0 no fit is compared with a Gaussian
        assert_array_equal(same.parameters, flow.parameters)
        monkeypatch.undo()
        fit(kind, flow, x, validation=given, epochs=1)


def test_the_gaussian_of_the_warning_has_contexts_weights_and_bounds():
    generator = cases.rng("preferred", "given")
    context, noise = generator.standard_normal((2, 4000, 1))
    z, weights = np.hstack([context + 0.1 * noise, 0.1 * generator.standard_normal((4000, 1))]), generator.random(4000)
    z += 0.3 * weights[:, None]  # without weights the Gaussian's mean would differ
    x = z.copy()
    x[:, 1] = np.exp(z[:, 1])
    train, out = slice(0, 2000), slice(2000, None)
    flow = small(2, 1, bounds=[None, (0, None)])
    with pytest.warns(RuntimeWarning, match=PREFERRED) as said:
        flow.fit(
            x[train],
            context[train],
            weights=weights[train],
            validation=(x[out], context[out], weights[out]),
            epochs=1,
            **QUIET,
        )
    reached, best = map(float, re.match(PREFERRED, str(said[0].message)).groups())
    assert_allclose(reached, np.average(flow.log_prob(x[out], context[out]), weights=weights[out]), atol=1e-3)
    line = np.hstack([context, np.ones_like(context)])
    root = np.sqrt(weights)[:, None]
    slopes = np.linalg.lstsq(root[train] * line[train], root[train] * z[train], rcond=None)[0]
    left = z - line @ slopes
    covariance = np.cov(left[train].T, aweights=weights[train], bias=True)
    want = stats.multivariate_normal([0.0, 0.0], covariance).logpdf(left[out]) - z[out, 1]
    assert_allclose(best, np.average(want, weights=weights[out]), atol=0.01)


@pytest.mark.parametrize(
    ("bend", "base", "settings"),
    [
        (2.0, None, {}),  # the flow is better than a Gaussian
        (0.0, None, {"validation": None}),
        (0.0, None, {"epochs": 0}),
        (0.0, None, {"effort": "high"}),  # high effort chooses the epochs of each member
        (0.0, "student_t", {}),  # a flow over Student's t cannot be a Gaussian
    ],
)
def test_fits_better_than_the_gaussian_or_without_one_do_not_warn(bend, base, settings):
    x = cases.rng("not preferred").standard_normal((2000, 3)) @ np.linalg.cholesky(0.1 * np.eye(3) + 0.9).T
    x[:, 2] += bend * x[:, 0] ** 2
    flow = small(3) if base is None else small(3, base=base)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = flow.fit(x, **{"epochs": 20 if bend else 1, **QUIET, **settings})
    assert not history.gaussian
    assert history.best_epoch or not history.epochs


@pytest.mark.parametrize("kind", KINDS)
def test_with_too_many_rows_for_a_gaussian_the_warning_calls_the_flow_untrained(kind, monkeypatch):
    monkeypatch.setattr("headrace._fit.fit.MANY", 100)
    x = cases.rng("lost").standard_normal((2000, 2))
    flow = small(2)
    with pytest.warns(RuntimeWarning, match="fit: no epoch of 2 was better .* the flow is untrained"):
        history = fit(kind, flow, x, epochs=2, learning_rate=1.0, clip=None)
    assert not history.gaussian
    fit(kind, flow, x, epochs=2, learning_rate=1.0, clip=None)  # a second fit does not warn


def test_a_default_fit_that_keeps_its_best_beginning_does_not_warn(short, monkeypatch):
    """The untrained flow is better than the Gaussian, so that advice on more epochs would be wrong."""
    monkeypatch.setattr("headrace._fit.start._is_kept", lambda *_: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = small(2).fit(cases.rng("lost").standard_normal((2000, 2)), learning_rate=1.0, clip=None, **QUIET)
    assert history.best_epoch == 0
    assert not history.gaussian


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_leave_few_rows_give_a_warning(kind):
    x = cases.rng("weighted").standard_normal((1000, 2))
    weights = np.full(1000, 1e-6)
    weights[3:13] = 2.0
    for scale in (1e-100, 1.0, 1e100):
        with pytest.warns(RuntimeWarning, match=r"weights: 1000 training rows count as only (9|10)[^ ]* \(Kish"):
            fit(kind, small(2), x, weights=scale * weights, epochs=1, validation=None)
    fit(kind, small(2), x, weights=np.linspace(0.1, 1.0, 1000), epochs=1, validation=None)


def test_one_row_of_weight_gives_a_warning():
    x = cases.rng("weighted").standard_normal((1000, 2))
    weights = np.zeros(1000)
    weights[5] = 1.0
    with pytest.warns(RuntimeWarning) as warned:
        small(2).fit(x, weights=weights, epochs=1, validation=None, **QUIET)
    assert any("1000 training rows count as only 1 " in str(one.message) for one in warned)
