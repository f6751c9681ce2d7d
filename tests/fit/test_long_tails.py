"""Columns with power-law tails: which columns have such tails, their marginal curves far out, and fits to such rows."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import cases
import headrace as hr
from headrace._fit import marginals
from headrace._fit.checkpoint import Checkpoint
from headrace._fit.marginals import Sample, of_sample
from headrace._fit.starts import long_tails
from headrace._fit.starts.long_tails import LongTail, tail_of


def drawn(true, n, *key):
    return true.ppf(cases.rng(*key).random((n, 1)))


def log_density(curve, x):
    z, log_det = curve.inverse(x)
    return stats.norm.logpdf(z[:, 0]) + log_det


@pytest.mark.parametrize("side", [1.0, -1.0], ids=["above", "below"])
def test_rows_beyond_all_others_have_about_their_density(side):
    true = stats.burr12(2.0, 1.5)  # the survival function falls with the power -3
    far = true.isf([1e-4, 1e-5, 1e-6])
    rows = side * drawn(true, 6000, "burr")
    (curve,) = of_sample(Sample(rows, None))
    assert_allclose(log_density(curve, side * far[:, None]), true.logpdf(far), atol=1.5)
    (straight,) = of_sample(Sample(rows, None), long=False)
    assert straight.latent.size == marginals.KNOTS
    assert log_density(straight, side * far[:, None])[-1] < true.logpdf(far)[-1] - 20.0


@pytest.mark.parametrize(
    ("true", "is_long"),
    [
        (stats.t(3.0), True),
        (stats.lognorm(1.0), True),
        (stats.norm(), False),
        (stats.expon(), False),
        (stats.gamma(2.0), False),
        (stats.beta(0.8, 3.0), False),
        (stats.uniform(), False),
    ],
    ids=lambda value: value.dist.name if hasattr(value, "dist") else "",
)
def test_long_tails_are_detected_by_column(true, is_long):
    found = tail_of(np.sort(drawn(true, 6000, "kinds")[:, 0]), np.ones(6000))
    assert (found is not None and found.is_clear) == is_long
    curves = of_sample(Sample(drawn(true, 6000, "kinds"), None))
    assert marginals.has_long_tails(curves) == is_long


@pytest.mark.parametrize(
    ("true", "is_long"),
    [(stats.t(8.0), True), (stats.logistic(), True), (stats.gumbel_r(), True), (stats.norm(), False)],
    ids=lambda value: value.dist.name if hasattr(value, "dist") else "",
)
def test_a_standardised_column_is_compared_with_a_normal_one(true, is_long):
    """3,000 rows distinguish an exponential tail from a normal one; few normal columns count as long-tailed."""
    found = []
    for seed in range(20):
        x = np.sort(drawn(true, 3000, "standard", seed)[:, 0])
        found.append(tail_of((x - x.mean()) / x.std(), np.ones(3000), standard=True))
    share = np.mean([tail is not None and tail.is_clear for tail in found])
    assert share > 0.9 if is_long else share < 0.2
    short = np.sort(drawn(stats.uniform(-1.7, 3.4), 3000, "u")[:, 0])
    assert tail_of(short, np.ones(3000), standard=True) is None


def test_the_shape_is_that_of_a_power_law_and_a_little_more():
    shapes = [tail_of(np.sort(drawn(stats.genpareto(0.4), 4000, i)[:, 0]), np.ones(4000)).shape for i in range(20)]
    error = 1.4 / math.sqrt(0.04 * 4000)  # the standard error of a maximum-likelihood shape
    assert 0.4 < np.mean(shapes) < 0.4 + 1.5 * error
    assert np.max(shapes) <= long_tails.STEEPEST
    assert tail_of(np.sort(drawn(stats.genpareto(3.0), 4000, "steep")[:, 0]), np.ones(4000)).shape == 1.0


def test_tails_depend_on_weights_and_not_on_their_scale():
    x = np.sort(drawn(stats.t(2.5), 3000, "weights")[:, 0])
    weights = cases.rng("weights").integers(1, 4, 3000).astype(float)
    want, found = tail_of(np.repeat(x, weights.astype(int)), np.ones(int(weights.sum()))), tail_of(x, weights)
    assert found.threshold == want.threshold
    assert found.shape == pytest.approx(want.shape, rel=0.3)  # a tail has fewer weighted rows than repeated rows
    scaled = tail_of(x, 1e-100 * weights)
    assert (scaled.threshold, scaled.is_clear) == (found.threshold, found.is_clear)
    assert_allclose([scaled.shape, scaled.scale], [found.shape, found.scale])


@pytest.mark.parametrize(
    "x", [np.arange(500.0), np.zeros(5000), np.repeat([0.0, 1.0], 2500)], ids=["few", "one", "two"]
)
def test_few_rows_or_values_have_no_tail(x):
    assert tail_of(x, np.ones(x.size)) is None


def test_knots_are_quantiles_of_the_tail():
    tail = LongTail(2.0, 0.3, 0.5, True)
    distance, z, slope = tail.knots(3.0, 2.5, math.inf)
    beyond = stats.genpareto(0.3, scale=0.5 + 0.3)
    assert_allclose(beyond.sf(distance), stats.norm.sf(z) / stats.norm.sf(2.5))
    assert_allclose(slope, beyond.pdf(distance) * stats.norm.sf(2.5) / stats.norm.pdf(z))
    assert z[0] == 2.5
    assert_allclose(z[1:], long_tails.beyond(2.5))
    assert z[-1] == long_tails.TOP


def test_knots_of_tails_keep_the_least_distance():
    tail, last = LongTail(2.0, 0.9, 0.5, True), long_tails.TOP
    sizes = []
    for room in (1e9, 1e3, 60.0):
        distance, z, slope = tail.knots(2.0, 2.5, room)
        assert distance[-1] + (last - z[-1]) / slope[-1] <= room
        sizes.append(z.size)
    assert sizes[0] == long_tails.KNOTS + 1
    assert sizes[0] > sizes[1] > sizes[2] > 0
    assert tail.knots(2.0, 2.5, 0.1) is None
    assert tail.knots(1.9, 2.5, 1e9) is None  # 1.9 is below the tail's threshold


def test_columns_without_long_tails_stay_straight_beside_others():
    rows = np.hstack([drawn(stats.t(2.5), 4000, "beside"), drawn(stats.beta(0.8, 3.0), 4000, "alone")])
    (both,), (alone,) = of_sample(Sample(rows, None)), of_sample(Sample(rows[:, 1:], None))
    assert both.latent.size == marginals.MOST
    assert alone.latent.size == marginals.KNOTS
    x = np.linspace(-0.5, 1.5, 101)[:, None]
    got, want = both.inverse(np.hstack([np.zeros_like(x), x]))[0][:, 1], alone.inverse(x)[0][:, 0]
    assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("narrow", [1e-3, 4e-4, 2e-4])
def test_a_column_whose_quantiles_lie_close_keeps_its_curve(narrow):
    """`Gaussianize` refuses knots far out beside close quantiles: such knots are set nearer, or left out."""
    rows = drawn(stats.t(2.0), 6000, "close")
    spiky = rows.copy()
    spiky[::2] *= narrow
    assert of_sample(Sample(spiky, None), long=False)
    (curve,) = of_sample(Sample(np.hstack([spiky, rows]), None))
    assert_allclose(curve.inverse(np.hstack([spiky, rows]))[0].std(axis=0), 1.0, atol=0.1)


@pytest.mark.parametrize("edge", [stats.pareto(2.0), stats.pareto(1.5), stats.lognorm(2.0)])
def test_a_column_without_room_leaves_others_their_tails(edge):
    """A column with a sharp edge and a long tail, too much for one `Gaussianize`, has straight tails."""
    rows = np.hstack([drawn(stats.t(2.5), 6000, "beside"), drawn(edge, 6000, "edge")])
    (both,), (alone,) = of_sample(Sample(rows, None)), of_sample(Sample(rows[:, :1], None))
    assert both.latent.size == alone.latent.size == marginals.MOST
    far = np.linspace(-200.0, 200.0, 401)[:, None]
    got = both.inverse(np.hstack([far, np.full_like(far, 2.0)]))[0][:, 0]
    assert_allclose(got, alone.inverse(far)[0][:, 0], rtol=0.05, atol=0.05)
    assert_allclose(both.inverse(rows)[0].std(axis=0), 1.0, atol=0.1)


def test_one_row_far_out_does_not_prevent_a_curve():
    """One row at 500 makes nearly all of the loss of a normal density, whose standard error is as large as the loss."""
    rows = drawn(stats.t(3.0), 3000, "far")
    rows[0] = 500.0
    (curve,) = of_sample(Sample((rows - rows.mean()) / rows.std(), None))
    assert stats.kstest(curve.inverse((rows - rows.mean()) / rows.std())[0][:, 0], "norm").statistic < 0.02


# --- fits -----------------------------------------------------------------------------------------------------------


def student(n, freedom, *key):
    """Two columns of a multivariate t, which depend on each other in their tails alone."""
    draw = cases.rng("student", *key)
    return draw.standard_normal((n, 2)) / np.sqrt(draw.chisquare(freedom, (n, 1)) / freedom)


@pytest.mark.long
@pytest.mark.parametrize("group", [False, True], ids=["alone", "in a group"])
def test_a_fit_of_heavy_tails_loses_little_far_out(group):
    freedom, x = 2.0, student(3000, 2.0, "fit").astype("float32")
    flow = hr.NSF(2, transforms=2, hidden=(16,), coupling=True, seed=0)
    more = {"group": hr.distributed.local()} if group else {}
    assert flow.fit({0: x} if group else x, epochs=150, patience=None, progress=False, **more).gaussianized
    (curve,) = (t for t in flow.transforms if isinstance(t, hr.transforms.Gaussianize))  # only the data end has a curve
    assert curve.latent.size == marginals.MOST
    new = student(20_000, freedom, "new")
    truth = stats.multivariate_t(np.zeros(2), np.eye(2), freedom).logpdf(new)
    apart = truth - flow.log_prob(new)
    assert apart.max() < 15.0
    assert apart.mean() < 0.1
    z, log_det = flow.to_latent(new[:500])
    back, log_det_back = flow.to_data(z)
    assert_allclose(back, new[:500], rtol=2e-3, atol=2e-3)
    assert_allclose(log_det_back, -log_det, atol=0.02)
    assert hr.from_bytes(hr.to_bytes(flow)).log_prob(new[:99]).tolist() == flow.log_prob(new[:99]).tolist()


def _stop_after_the_first(ends):
    def stopped(self, run):
        ends(self, run)
        raise ZeroDivisionError

    return stopped


def test_a_fit_without_curves_has_the_tails_of_its_columns(monkeypatch, tmp_path):
    """Rows beyond the training rows have about their true density; files and resumed fits keep the tails."""
    monkeypatch.setattr(marginals, "gain", lambda *given: False)
    true = stats.logistic(0.0, math.sqrt(3.0) / math.pi)
    x = np.concatenate([drawn(true, 3000, "a"), cases.rng("b").standard_normal((3000, 1))], axis=1)
    flow = hr.NSF(2, transforms=1, hidden=(8,), seed=0)
    history = flow.fit(x, progress=False)
    assert not history.gaussianized
    _, tails = (t for t in flow.transforms if isinstance(t, hr.transforms.Gaussianize))
    near = np.linspace(-1.8, 1.8, 9)[:, None] * [1.0, 1.0]
    assert_allclose(tails.inverse(near)[0], near, atol=1e-6)
    assert_array_equal(tails.inverse(9.0 * np.ones((1, 2)))[0][:, 1], [9.0])  # a normal column stays unchanged
    assert tails.inverse(np.full((1, 2), 9.0))[0][0, 0] < 5.5
    far = np.array([[7.0, 0.0], [-7.0, 0.0], [9.0, 0.0]])
    wanted = true.logpdf(far[:, 0]) + stats.norm.logpdf(0.0)
    assert_allclose(flow.log_prob(far), wanted, atol=3.0)
    latents = flow.transforms[0].inverse(np.array([[6.0, 6.0], [-6.0, -6.0]]))[0]
    assert_array_equal(latents[:, 0], [6.0, -6.0])  # a column with long tails gets no tails in the latents
    assert (np.abs(latents[:, 1]) < 5.0).all()
    assert hr.from_bytes(hr.to_bytes(flow)).log_prob(far).tolist() == flow.log_prob(far).tolist()
    stopped = {"epochs": history.epochs, "checkpoint": tmp_path / "state", "checkpoint_every": "epoch"}
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "epoch_ends", _stop_after_the_first(Checkpoint.epoch_ends))
        with pytest.raises(ZeroDivisionError):
            hr.NSF(2, transforms=1, hidden=(8,), seed=0).fit(x, progress=False, **stopped)
    ends = [hr.NSF(2, transforms=1, hidden=(8,), seed=0) for _ in range(2)]
    ends[0].fit(x, progress=False, **stopped)
    ends[1].fit(x, progress=False, epochs=history.epochs)
    assert hr.to_bytes(ends[0]) == hr.to_bytes(ends[1])
    plain = hr.NSF(2, transforms=1, hidden=(8,), seed=0)
    plain.fit(x, gaussianize=False, progress=False)
    assert (plain.log_prob(far) < wanted - 5.0).all()


def test_splines_of_few_rows_end_with_longer_tails():
    """Latents beyond 2.5 deviations get tails of a generalised Pareto distribution; all others stay unchanged."""
    x, held = (cases.rng("latents", n).standard_normal((n, 2)) for n in (1500, 200))
    for rows in (x, held):
        rows[:, 1] += np.sin(2.0 * rows[:, 0])
    flow, plain, affine = (kind(2, transforms=1, hidden=(8,), seed=0) for kind in (hr.NSF, hr.NSF, hr.MAF))
    size = flow.parameters.size
    history = flow.fit(x, validation=held, progress=False)
    tails, z = flow.transforms[0], np.linspace(-6.0, 6.0, 49)[:, None]
    far, beyond = np.maximum(np.abs(z) - 2.5, 0.0), stats.norm.sf(2.5)
    pareto = stats.genpareto(0.1, scale=beyond / stats.norm.pdf(2.5))
    want = np.where(far > 0.0, np.sign(z) * stats.norm.isf(beyond * pareto.sf(far)), z)
    assert_allclose(tails.inverse(np.repeat(z, 2, axis=1))[0], np.repeat(want, 2, axis=1), atol=0.02)
    assert flow.parameters.size == size
    assert_allclose(-flow.log_prob(held).mean(dtype="f8"), history.best_loss, rtol=1e-6)
    drawn = flow.sample(200_000, seed=0)
    assert 2e-4 < (np.abs(hr.Flow(flow.transforms[1:]).to_latent(drawn)[0]) > 4.0).mean() < 6e-4  # a normal has 6e-5
    plain.fit(x, validation=held, gaussianize=False, progress=False)
    affine.fit(x, validation=held, progress=False)
    for other in (plain, affine):
        assert not isinstance(other.transforms[0], hr.transforms.Gaussianize)


def test_heavy_tails_keep_their_curves_within_two_standard_errors(monkeypatch):
    """Curves are dropped only where the fit without curves is better by more than two standard errors."""
    asked = []

    def gain(*given):
        asked.append(given[3])
        return True

    monkeypatch.setattr(marginals, "gain", gain)
    for rows in (student(2000, 2.0, "doubt"), cases.rng("gamma").gamma(2.0, size=(2000, 2))):
        hr.MAF(2, transforms=1, hidden=(8,)).fit(rows, progress=False, time_budget=3.0)
    assert asked == [True, False]


def test_unfinished_trials_leave_columns_unchanged():
    """Columns are left unchanged if the time ends before a pass, or if both trials diverge."""
    tried, not_tried = marginals._Judged(1.0, np.ones(3)), marginals._Judged()
    share = np.full(3, 1.0 / 3.0)
    assert not marginals._stays(not_tried, not_tried, share, 2.0)
    assert not marginals._stays(not_tried, tried, share, 2.0)
    assert marginals._stays(tried, not_tried, share, 2.0)
