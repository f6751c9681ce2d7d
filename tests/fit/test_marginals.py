"""Marginal maps with which a fit starts: which columns get a map, what fits gain, and columns that stay unchanged."""

import types

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import cases
import headrace as hr
from headrace._fit import marginals
from headrace._fit import start as _start
from headrace._fit.checkpoint import Checkpoint
from headrace._fit.clock import Clock
from headrace._fit.given_rows import Data
from headrace._fit.marginals import Sample, of_sample
from headrace._fit.source import ArrayRows
from headrace._fit.starts import curves
from headrace._fit.starts.curves import Column, Curve, of_quantiles

LATENT = np.linspace(-2.0, 2.0, marginals.KNOTS)


def skewed(n, *key):
    """Three columns that depend on each other and whose logarithms are about normal."""
    normal = cases.rng("skewed", *key).standard_normal((n, 3))
    normal[:, 1] += 0.8 * np.sin(2.0 * normal[:, 0])
    return np.exp(0.8 * normal)


def small(seed=0, **settings):
    return hr.MAF(3, transforms=2, hidden=(16,), seed=seed, **settings)


def marginal_of(flow):
    return [t for t in flow.transforms if isinstance(t, hr.transforms.Gaussianize)]


# --- curves ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [lambda u: stats.gamma(2.0).ppf(u), lambda u: stats.beta(0.8, 3.0).ppf(u), lambda u: stats.t(3.0).ppf(u)],
    ids=["skewed", "an edge", "heavy tails"],
)
def test_a_column_becomes_about_normal(column):
    draw = cases.rng("columns")
    rows, new = (column(draw.random((n, 1))) for n in (4000, 20_000))
    mean, std = rows.mean(), rows.std()
    (curve,) = of_sample(Sample((rows - mean) / std, None))
    z = curve.inverse((new - mean) / std)[0][:, 0]
    assert stats.kstest(z, "norm").statistic < 0.02  # the 5 % bound for 4000 normal rows is 1.36 / sqrt(4000)
    assert stats.kstest((new[:, 0] - mean) / std, "norm").statistic > 0.03


def test_normal_columns_stay_as_they_are_beside_others():
    draw = cases.rng("beside")
    rows = np.stack([draw.standard_normal(3000), draw.exponential(size=3000) - 1.0], axis=1)
    (curve,) = of_sample(Sample(rows, None))
    assert_allclose(curve.data[0], curve.latent)
    assert_allclose(curve.slopes[0], 1.0)
    assert np.abs(curve.data[1] - curve.latent).max() > 0.5
    assert of_sample(Sample(rows[:, :1], None)) == ()
    assert of_sample(Sample(rows, None), [1]) == ()  # column 1 is a circle


def test_few_rows_and_values_that_repeat_get_no_curves():
    draw = cases.rng("few")
    rows = draw.exponential(size=(3000, 1)) - 1.0
    assert of_sample(Sample(rows[:150], None)) == ()
    assert of_sample(Sample(np.round(rows), None)) == ()
    assert of_sample(Sample(np.where(rows < -0.5, -0.5, rows), None)) == ()  # a value that repeats is an atom
    assert of_sample(Sample(np.zeros((3000, 1)), None)) == ()
    weights = np.where(np.arange(3000) < 150, 1.0, 1e-9)
    assert of_sample(Sample(rows, weights)) == ()


def test_weights_count_as_rows_that_are_repeated():
    rows = cases.rng("weights").exponential(size=(2000, 1)) - 1.0
    weights = np.arange(2000) % 4
    (weighted,), (repeated,) = of_sample(Sample(rows, weights)), of_sample(Sample(np.repeat(rows, weights, 0), None))
    inner = slice(4, -4)  # curves of weighted and of repeated rows differ in their tails
    x = weighted.data[0, inner]
    assert_allclose(weighted.inverse(x[:, None])[0], repeated.inverse(x[:, None])[0], atol=0.15)


@pytest.mark.parametrize("count", marginals.COUNTS)
def test_quantiles_go_to_those_of_a_normal_distribution(count):
    rows = cases.rng("quantiles").exponential(size=(5000, 1))
    curve = of_quantiles(Column.of(rows[:, 0], np.ones(5000)), LATENT[:: (marginals.KNOTS - 1) // (count - 1)])
    assert_allclose(np.mean(rows <= curve.x, axis=0), stats.norm.cdf(curve.z), atol=1e-3)
    inner, chords = curve.slope[1:-1], np.diff(curve.z) / np.diff(curve.x)
    assert (inner <= 3 * np.minimum(chords[1:], chords[:-1])).all()  # with steeper slopes the curve would oscillate


def test_straight_tails_have_the_most_likely_slope():
    draw = cases.rng("tails")
    rows, weights = draw.standard_t(2.0, 3000)[:, None], draw.uniform(0.5, 1.5, 3000)
    curve = of_quantiles(Column.of(rows[:, 0], weights), LATENT)
    for end, sign in ((0, -1.0), (-1, 1.0)):
        beyond = sign * (rows[:, 0] - curve.x[end])
        out, share, far = beyond[beyond > 0], weights[beyond > 0], abs(LATENT[end])

        def likelihood(slope, out=out, share=share, far=far):
            return (share * (np.log(slope) - 0.5 * np.square(far + slope * out))).sum()

        best = curve.slope[end]
        assert likelihood(best) > likelihood(0.97 * best)
        assert likelihood(best) > likelihood(1.03 * best)
    alone = np.concatenate([np.linspace(-1.0, 1.0, 300), [0.0]])[:, None]
    assert curves._tail(alone[:, 0] - 5.0, 2.0, np.ones(301), 0.7) == 0.7


def test_a_curve_in_numpy_is_that_of_the_core():
    data, latent, slopes = cases.curves(1, 9)
    x = cases.rng("beyond").uniform(data[0, 0] - 1.0, data[0, -1] + 1.0, 200)
    z, log_slope = Curve(data[0], latent, slopes[0]).at(x)
    want = hr.transforms.Gaussianize(data, latent, slopes).inverse(x[:, None])
    assert_allclose(z, want[0][:, 0], atol=1e-12)
    assert_allclose(log_slope, want[1], atol=1e-12)


def test_scales_of_weights_do_not_count():
    rows = cases.rng("scales").exponential(size=(2000, 1)) - 1.0
    weights = cases.rng("weights").uniform(0.5, 2.0, 2000)
    (want,) = of_sample(Sample(rows, weights))
    for scale in (1e-170, 1e160):
        assert_allclose(of_sample(Sample(rows, scale * weights))[0].data, want.data)


def test_without_time_there_are_no_curves():
    rows = cases.rng("time").exponential(size=(2000, 3))
    clock = Clock(1e-9)
    assert of_sample(Sample(rows, None), (), clock) == ()
    assert clock.ran_out


# --- fits -----------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_fit_gains_by_curves_and_keeps_its_parameters(dtype):
    x, new = skewed(1200, "fit").astype(dtype), skewed(4000, "new").astype(dtype)
    flow, without = small(dtype=dtype), small(dtype=dtype)
    size = flow.parameters.size
    history = flow.fit(x, progress=False)
    assert history.gaussianized
    assert not without.fit(x, gaussianize=False, progress=False).gaussianized
    assert flow.log_prob(new).mean() > without.log_prob(new).mean() + 0.05
    assert flow.parameters.size == size
    assert [type(t).__name__ for t in flow.transforms[-2:]] == ["Gaussianize", "Standardize"]
    assert_allclose(flow.transforms[-1].mean, without.transforms[-1].mean)
    assert hr.from_bytes(hr.to_bytes(flow)).log_prob(new[:9]).tolist() == flow.log_prob(new[:9]).tolist()
    (before,) = marginal_of(flow)
    assert not flow.fit(2.0 * x, epochs=1, progress=False).gaussianized
    assert_array_equal(marginal_of(flow)[0].data, before.data)


def test_a_sample_comes_from_the_density_of_the_fit():
    x = skewed(1200, "fit")
    flow = small(dtype="float64")
    flow.fit(x, progress=False, epochs=200)
    drawn, log_prob = flow.sample_and_log_prob(500, seed=1)
    assert_allclose(flow.log_prob(drawn), log_prob, atol=1e-8)
    assert drawn.min() > -0.5  # rows end at 0, and samples far below 0 would show a missing curve
    assert np.abs(np.median(drawn, axis=0) - np.median(x, axis=0)).max() < 0.4


@pytest.mark.parametrize(
    ("rows", "settings", "base"),
    [
        (1200, {"validation": None, "epochs": 200}, None),
        (1200, {"epochs": 20}, None),  # 20 epochs have fewer than 4000 steps
        (1200, {}, hr.NormalMixture(3, 2, seed=0)),
    ],
    ids=["nothing held out", "few steps", "modes in the base"],
)
def test_fits_without_curves(rows, settings, base):
    flow = small(base=base)
    history = flow.fit(skewed(rows, "none"), progress=False, time_budget=2.0, **settings)
    assert not history.gaussianized
    assert marginal_of(flow) == []


def test_normal_rows_get_no_curves():
    x = cases.rng("normal").standard_normal((1200, 3)) @ [[1.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 2.0]]
    flow = small()
    history = flow.fit(x, progress=False)
    assert not history.gaussianized
    assert marginal_of(flow) == []


def test_a_gaussian_takes_the_place_of_marginals_that_are_not_better(monkeypatch):
    monkeypatch.setattr(_start, "_is_kept", lambda *losses: False)
    flow, tried = small(), []
    monkeypatch.setattr(marginals, "gain", lambda *runs: not tried.append(runs))
    history = flow.fit(skewed(600, "gaussian"), progress=False)
    assert tried
    assert history.gaussian
    assert not history.gaussianized
    assert marginal_of(flow) == []
    assert isinstance(flow.transforms[-1], hr.transforms.Standardize)


def test_an_explicit_choice_runs_no_trial(monkeypatch):
    def refuse(*runs):
        raise AssertionError("a trial")

    monkeypatch.setattr(marginals, "gain", refuse)
    assert small().fit(skewed(800, "choice"), gaussianize=True, epochs=2, progress=False).gaussianized
    assert not small().fit(skewed(800, "choice"), gaussianize=False, epochs=200, progress=False).gaussianized


@pytest.mark.parametrize("value", ["yes", 2, None])
def test_other_values_of_gaussianize_are_refused(value):
    with pytest.raises(ValueError, match=r"gaussianize: expected True, False or 'auto', got"):
        small().fit(skewed(800, "choice"), gaussianize=value, progress=False)


def test_bounds_and_circles():
    draw = cases.rng("bounds")
    x = np.stack([draw.uniform(-np.pi, np.pi, 1500), draw.exponential(size=1500), draw.beta(0.5, 4.0, 1500)], axis=1)
    flow = hr.NSF(
        3,
        transforms=2,
        hidden=(16,),
        coupling=True,
        bounds=[None, (0, None), (0, 1)],
        periodic=[(-np.pi, np.pi), None, None],
    )
    history = flow.fit(x, gaussianize=True, epochs=3, progress=False)
    assert history.gaussianized
    (curve,) = marginal_of(flow)
    assert_allclose(curve.data[0], curve.latent)  # a column on a circle has the identity as its curve
    ends = flow.log_prob(np.array([[-np.pi, 1.0, 0.2], [np.pi, 1.0, 0.2], [np.pi - 1e-6, 1.0, 0.2]]))
    assert_allclose(ends, ends[0], rtol=1e-4)
    drawn = flow.sample(500, seed=0)
    assert (drawn[:, 1:] > 0).all()
    assert (drawn[:, 2] < 1).all()


def test_only_some_bases_get_curves():
    for base, answer in ((hr.Logistic(3), True), (hr.Normal(3), True), (hr.StudentT(3), False), (hr.Uniform(3), False)):
        assert small(base=base)._interior.is_over_a_bell is answer
    around = {"transforms": 1, "periodic": [(0, 1), None]}
    assert hr.MAF(2, **around)._interior.is_over_a_bell
    assert not hr.MAF(1, transforms=1, periodic=[(0, 1)])._interior.is_over_a_bell
    mixed = hr.Independent(["uniform", "normal", "logistic"])
    assert not hr.MAF(3, transforms=1, periodic=[(0, 1), None, None], base=mixed)._interior.is_over_a_bell
    assert not small(base=hr.Independent(["normal"] * 3))._interior.is_over_a_bell


# --- the trial ------------------------------------------------------------------------------------------------------


def run_of(losses, passes, ran_out_at=None):
    """A stand-in for a `Run` whose trial has `passes` passes, and whose held-out losses are `losses`, one a pass."""
    run = types.SimpleNamespace(
        plan=types.SimpleNamespace(batches=-(-marginals.STEPS // passes)),
        clock=types.SimpleNamespace(ran_out=False),
        flow=iter(losses),
        shows_steps=False,
        taken=0,
    )

    def one_pass():
        run.taken += 1
        run.clock.ran_out = run.taken == ran_out_at
        return 1.0

    run.one_pass, run.current = one_pass, lambda: None
    return run


def judged(first, second, has_tails=False, *, passes=1, ran_out_at=None, weights=None):
    """Return whether curves stay, by held-out losses in each pass with curves (`first`) and without (`second`)."""
    runs = [
        run_of([np.broadcast_to(np.array(one, float), 4) for one in first], passes),
        run_of([np.broadcast_to(np.array(one, float), 4) for one in second], passes, ran_out_at),
    ]
    held_out = types.SimpleNamespace(
        log_probs=lambda losses, at: -next(losses), weights=lambda: np.ones(4) if weights is None else np.array(weights)
    )
    return marginals.gain(*runs, held_out, has_tails)


# Mean losses of 0.6, 1.5 and 6 standard errors.
LITTLE, MORE, MOST = [-0.2, 0.2, 0.1, 0.1], [-0.1, 0.2, 0.1, 0.25], [0.1, 0.2, 0.1, 0.2]
NONE = [0, 0, 0, 0]


def test_curves_stay_unless_rows_lose_by_more_than_a_standard_error():
    for losses in (LITTLE, MORE, MOST):
        for has_tails in (False, True):
            assert judged([NONE], [losses], has_tails)
    assert [judged([losses], [NONE]) for losses in (LITTLE, MORE, MOST)] == [True, False, False]


def test_long_tails_stay_unless_rows_lose_by_more_than_two_errors():
    assert [judged([losses], [NONE], has_tails=True) for losses in (LITTLE, MORE, MOST)] == [True, True, False]


def test_curves_that_make_no_difference_are_left_out():
    assert not judged([NONE], [NONE])
    assert not judged([NONE], [NONE], has_tails=True)


def test_the_lowest_losses_of_a_trial_count():
    assert judged([0.5, NONE, 0.5], [1, MOST, 1], passes=3)
    assert not judged([1, MOST, 1], [0.5, NONE, 0.5], passes=3)


def test_a_row_far_out_is_one_standard_error():
    """The loss of a single row may have any size, and counts as one standard error."""
    assert not judged([[-0.1, 0.1, 0.1, 9]], [NONE])
    assert judged([[-0.1, 0.1, 0.1, 9]], [NONE], has_tails=True)


def test_a_trial_that_diverged_is_not_taken():
    for has_tails in (False, True):
        assert judged([NONE], [[0, 0, 0, np.nan]], has_tails)
        assert not judged([[np.inf, 0, 0, 0]], [NONE], has_tails)
        assert not judged([np.inf], [np.nan], has_tails)


def test_without_time_left_only_passes_of_both_fits_count():
    assert judged([NONE, 9, 9], [MOST, 0, 0], passes=3, ran_out_at=2)
    assert not judged([NONE, NONE, NONE], [MOST, MOST, MOST], passes=3, ran_out_at=1)  # no fit has a loss


def test_weights_of_held_out_rows_count_in_a_trial():
    first = [[0.1, 0.2, 0.1, -9]]
    assert judged(first, [NONE], weights=[1, 1, 1, 1])
    assert not judged(first, [NONE], weights=[1, 1, 1, 0])


def test_modes_with_gaps_are_left_to_networks():
    draw = cases.rng("gaps")
    x = np.array([[-3.0, -2.0], [3.0, -2.0], [0.0, 3.0]])[draw.integers(0, 3, 2000)]
    x += draw.standard_normal((2000, 2)) * [0.7, 0.2]
    flow = hr.NSF(2, transforms=3, hidden=(32, 32))
    assert not flow.fit(x, progress=False, epochs=200, patience=1).gaussianized


def test_a_trial_takes_as_many_rows_as_its_steps_need():
    source = ArrayRows(Data(np.zeros((9000, 2)), None, None))
    for most, rows in ((4000, 4000), (10_000, 9000)):
        assert source.trial(source, source, most, 0)[0].size == rows


def test_marginals_of_the_caller_stay():
    """Curves from the caller stay even where the Gaussian of the rows replaces the networks."""
    x = cases.rng("own").standard_normal((2000, 2)) @ [[1.0, 0.9], [0.0, 0.4]]
    own = hr.transforms.Gaussianize(*cases.curves(2, 9))
    flow = hr.Flow(
        [*hr.MAF(2, transforms=1, hidden=(8,)).transforms[:-1], own, hr.transforms.Standardize([0.0, 0.0], [1.0, 1.0])]
    )
    history = flow.fit(x, gaussianize=False, progress=False)
    assert not history.gaussianized
    (kept,) = marginal_of(flow)
    assert_allclose(kept.data, own.data)


# --- checkpoints, streams, groups -----------------------------------------------------------------------------------


class Stopped(Exception):
    pass


@pytest.mark.parametrize("after", [0, 30])
def test_a_fit_that_was_killed_goes_on_to_the_same_bits(after, tmp_path, monkeypatch):
    x = skewed(900, "killed")
    settings = {"epochs": 170, "progress": False, "patience": None, "weight_decay": 0.1}
    whole = small()
    assert whole.fit(x, **settings).gaussianized
    ends, seen = Checkpoint.epoch_ends, []

    def killed(self, run):
        ends(self, run)
        seen.append(run)
        if len(seen) > after:
            raise Stopped

    monkeypatch.setattr(Checkpoint, "epoch_ends", killed)
    kept = {**settings, "checkpoint": tmp_path / "state", "checkpoint_every": "epoch"}
    with pytest.raises(Stopped):
        small().fit(x, **kept)
    monkeypatch.undo()
    monkeypatch.setattr(marginals, "gain", None)  # a resumed fit does not compute the gain
    again = small()
    assert again.fit(x, **kept).gaussianized
    assert_array_equal(again.parameters, whole.parameters)
    assert hr.to_bytes(again) == hr.to_bytes(whole)


def test_a_killed_fit_without_curves_repeats_no_trial(tmp_path, monkeypatch):
    ends = Checkpoint.epoch_ends

    def killed(self, run):
        ends(self, run)
        raise Stopped

    kept = {"epochs": 170, "progress": False, "checkpoint": tmp_path / "state", "checkpoint_every": "epoch"}
    with monkeypatch.context() as patch:
        patch.setattr(marginals, "gain", lambda *runs: False)
        patch.setattr(Checkpoint, "epoch_ends", killed)
        with pytest.raises(Stopped):
            small().fit(skewed(900, "killed"), **kept)
    monkeypatch.setattr(marginals, "gaussianizing", None)  # a resumed fit makes no new choice
    again = small()
    assert not again.fit(skewed(900, "killed"), **kept).gaussianized
    assert marginal_of(again) == []


def test_curves_of_a_stream_come_from_a_sample_of_its_rows():
    x = skewed(3000, "stream").astype("float32")
    blocks = [x[i : i + 500] for i in range(0, 3000, 500)]
    flow = small()
    history = flow.fit(hr.rows.blocks(blocks, buffer=1000), epochs=100, progress=False)
    assert history.gaussianized
    assert len(marginal_of(flow)) == 1


@pytest.mark.parametrize("gaussianize", ["auto", True])
def test_curves_of_a_group_do_not_depend_on_shards(gaussianize):
    x, weights = skewed(2400, "group"), np.linspace(0.5, 1.5, 2400)
    group, found = hr.distributed.local(), []
    for _ in range(2):
        flow = small()
        shards = {"rows": 250}
        history = flow.fit(
            hr.distributed.shards(x, group, **shards),
            weights=hr.distributed.shards(weights, group, **shards),
            epochs=1000 if gaussianize == "auto" else 2,
            patience=2,
            gaussianize=gaussianize,
            group=group,
            progress=False,
        )
        assert history.gaussianized
        found.append(hr.to_bytes(flow))
    assert found[0] == found[1]
