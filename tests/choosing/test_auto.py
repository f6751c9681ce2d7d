"""`hr.auto`: the candidates, the chosen density, and its message where a simple density is as good."""

import copy
import itertools
import os
import re
import signal
import warnings

import numpy as np
import pytest
import scipy.stats

import cases
import headrace as hr
from headrace._fit import clock
from headrace._fit.run import Run
from headrace.choosing import candidates as simple
from headrace.choosing import candidates as tried
from headrace.choosing import run
from headrace.choosing.result import Choice, Judged, Tried, compared, comparison_of
from headrace.choosing.sample import Sample, folds, parted

QUICK = {"time_budget": 1.0, "progress": False}


def banana(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 2))
    x[:, 1] = 0.3 * x[:, 1] + np.square(x[:, 0])
    return x


@pytest.mark.costly
def test_a_flow_beats_the_gaussian_where_rows_are_bent():
    choice = hr.auto(banana(3000), time_budget=4.0, families=("maf", "nsf"), progress=False)
    assert [one.name for one in choice.table if one.name.startswith("MAF") or one.name.startswith("NSF")]
    named = {one.name: one for one in choice.table}
    assert set(named) == {*sizes_of("MAF", 8), *sizes_of("NSF", 5), *SIMPLE}
    assert choice.table[0].name == choice.name
    assert choice.table[0].behind == 0.0
    assert named["Gaussian"].behind > 0.5
    assert "Gaussian" not in choice.as_good
    # The truth log φ(a) + log φ((b - a²) / 0.3) - log 0.3 has the expectation -log 2π - 1 - log 0.3.
    assert choice.table[0].log_likelihood == pytest.approx(-np.log(2 * np.pi) - 1 - np.log(0.3), abs=0.35)
    assert choice.flow.sample(5, seed=0).shape == (5, 2)
    assert choice.diagnosis is not None
    assert not choice.diagnosis.copies
    text = str(choice)
    assert all(one.name in text for one in choice.table)
    assert "300 rows that no fit and no choice has seen" in text
    summary = choice.summary()
    assert summary["name"] == choice.name
    assert len(summary["table"]) == len(choice.table)


SIMPLE = ("Gaussian", "kernel density")


def sizes_of(kind, large):
    return f"{kind} 3x[32,32]", f"{kind} 5x[64,64]", f"{kind} {large}x[128,128]"


@pytest.mark.parametrize("is_small", [False, True])
def test_the_default_is_a_candidate(is_small):
    setting = tried.Setting(3, 1, None, None, "float32", 4)
    own = [one for one in tried.candidates(tried.FAMILIES, setting, is_small=is_small) if one.is_default]
    assert [one.name for one in own] == ["NSF 5x[64,64]"]
    cases.assert_same_bits(own[0].make().parameters, hr.NSF(3, context=1, seed=4).parameters)
    assert repr(own[0].make()) == repr(hr.NSF(3, context=1, seed=4))


@pytest.mark.parametrize(("is_best", "kept"), [(False, 0.0), (True, 3.0 * run.ALL_ROWS)])
def test_the_default_comes_first_with_most_of_the_time(monkeypatch, is_best, kept):
    """Only trials advance the simulated clock.

    The default candidate ends early; a part of the remaining time is reserved for a fit to all rows.
    """
    now, asked = [100.0], []

    class Timed(tried.Trial):
        def go(self, fitted, choosing, seconds, folder=None):
            asked.append((self.candidate.name, seconds))
            self.rounds += 1
            self.stopped, self.chosen_by, self.flow = "time_budget", 0.0, hr.MAF(2)
            if self.candidate.is_default:
                self.stopped, seconds, self.chosen_by = "patience", 3.0, float(is_best)
            now[0] += seconds
            self.seconds += seconds

    monkeypatch.setattr("headrace._fit.clock.now", lambda: now[0])
    monkeypatch.setattr(run.time, "perf_counter", lambda: now[0])
    setting = tried.Setting(2, 0, None, None, "float32", 0)
    trials = [Timed(one, 0) for one in tried.candidates(("maf", "nsf"), setting, is_small=False)]
    search = run._SuccessiveHalving(Sample(banana(10)), trials, setting, None, run.Clock(10.0), False)
    with search.shown() as shown:
        search._halve(Sample(banana(10)), Sample(banana(10)), "", shown)
    assert asked[0] == ("NSF 5x[64,64]", pytest.approx(8.0, rel=0.05))
    assert [name for name, _ in asked].count("NSF 5x[64,64]") == 1
    assert sum(seconds for _, seconds in asked[1:]) == pytest.approx(6.8 - kept, rel=0.05)
    assert search.clock.left() == pytest.approx(kept, abs=0.05)


@pytest.mark.costly
def test_a_gaussian_that_is_as_good_is_reported():
    x = np.random.default_rng(0).standard_normal((1000, 3)) @ np.random.default_rng(1).standard_normal((3, 3))
    choice = hr.auto(x, families=("maf",), **QUICK)
    assert "Gaussian" in (choice.name, *choice.as_good)
    assert "Gaussian" in comparison_of(choice.name, choice.as_good)
    held = np.random.default_rng(2).standard_normal((4000, 3)) @ np.random.default_rng(1).standard_normal((3, 3))
    truth = scipy.stats.multivariate_normal(np.zeros(3), np.cov(held.T)).logpdf(held).mean()
    gaussian = next(one.flow for one in choice.table if one.name == "Gaussian")
    assert gaussian.log_prob(held).mean() == pytest.approx(truth, abs=0.03)


@pytest.mark.costly
def test_held_out_rows_are_not_used_before(monkeypatch):
    x = banana(800).astype(np.float64)
    fitted, choosing, judging = parted(Sample(x), 0)
    parts = [set(map(bytes, part.x)) for part in (fitted, choosing, judging)]
    assert [len(part) for part in parts] == [640, 80, 80]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    seen = []
    fit = hr.MAF.fit

    def watched(self, rows, context=None, **given):
        if "validation" in given:  # the table ignores the last fit, which uses all rows
            seen.extend([rows, given["validation"][0]])
        return fit(self, rows, context, **given)

    monkeypatch.setattr(hr.Flow, "fit", watched)
    hr.auto(x, families=("maf",), **QUICK)
    assert seen
    assert all(not set(map(bytes, rows)) & parts[2] for rows in seen)


def test_the_best_is_fitted_to_all_rows_as_without_a_choice(monkeypatch):
    """If time remains, the flow has the bits of a fit to all rows, and the table has the earlier fit's likelihood."""
    small = tried.candidates(("nsf",), tried.Setting(2, 0, None, None, "float32", 2), is_small=False)[:1]
    monkeypatch.setattr(run, "candidates", lambda *given, **others: small)
    x = banana(600).astype("float32")
    choice = hr.auto(x, time_budget=300.0, progress=False, seed=2)
    assert choice.name == "NSF 3x[32,32]"
    assert "before the best was fitted to all rows" in " ".join(str(choice).split())
    alone = small[0].make()
    alone.fit(x, seed=2, progress=False)
    cases.assert_same_bits(choice.flow.parameters, alone.parameters)
    judged = parted(Sample(x), 2)[2]
    own = next(one for one in choice.table if one.name == choice.name)
    assert own.log_likelihood == pytest.approx(own.flow.log_prob(judged.x).mean(), rel=1e-5)
    assert (own.flow.parameters != alone.parameters).any()


@pytest.mark.costly
def test_the_time_is_kept():
    choice = hr.auto(banana(1000), time_budget=2.0, families=("maf", "nsf", "realnvp"), progress=False)
    begun = [one for one in choice.table if one.flow is not None]
    assert sum(one.seconds for one in begun) < 6.0  # the limit is wide for busy machines
    states = {one.state.split(" after")[0] for one in choice.table}
    assert states <= {"", "dropped", "not begun", "it ended", "to the end of the time"}


def test_the_better_half_goes_on(monkeypatch):
    """Trials in this test only count their calls, and the seconds that each call gets."""
    asked = []

    class Counted(tried.Trial):
        def go(self, fitted, choosing, seconds, folder=None):
            place = int(self.candidate.name)
            asked.append((place, seconds))
            self.rounds += 1
            self.stopped, self.chosen_by, self.flow = "time_budget", float(place), hr.MAF(2)

    trials = [Counted(tried.Candidate(str(i), lambda: None), 0) for i in range(7)]
    clock = run.Clock(10.0)
    search = run._SuccessiveHalving(
        Sample(banana(10)), trials, tried.Setting(2, 0, None, None, "float32", 0), None, clock, False
    )
    with search.shown() as shown:
        search._halve(Sample(banana(10)), Sample(banana(10)), "", shown)
    places = [place for place, _ in asked]
    assert places == [0, 1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 6, 5, 6]
    assert asked[0][1] == pytest.approx(10 * 0.98 / 4 / 7, rel=0.05)
    assert asked[-1][1] > 2 * asked[0][1]
    assert [one.dropped for one in trials] == [True] * 6 + [False]
    assert [run._state(one) for one in trials[-2:]] == ["dropped after round 3", "to the end of the time"]
    trials[0].chosen_by = 9.0  # by chance a dropped trial is better
    assert run._reached(trials[0]) == -np.inf
    assert run._reached(trials[-1]) == 6.0


def test_a_fit_resumes_where_it_stopped(tmp_path, monkeypatch):
    """A second fit begins with the state of the first fit, and its history continues the losses of the first fit."""
    histories, begun, fit = [], [], hr.Flow.fit

    def watched(self, *given, **others):
        begun.append(os.path.exists(others["checkpoint"]))
        histories.append(fit(self, *given, **others))
        return histories[-1]

    monkeypatch.setattr(hr.Flow, "fit", watched)
    looks = itertools.count()
    monkeypatch.setattr(clock, "now", lambda: 0.005 * next(looks))  # a fit is equally fast on every machine
    fitted, choosing, _ = parted(Sample(banana(2000)), 0)
    setting = tried.Setting(2, 0, None, None, "float32", 0)
    trial = tried.Trial(tried.candidates(("nsf",), setting, is_small=False)[0], 0)
    trial.go(fitted, choosing, 0.8, str(tmp_path))
    assert trial.stopped == "time_budget"
    first, reached = copy.copy(trial.flow), trial.chosen_by
    trial.go(fitted, choosing, 1.6, str(tmp_path))
    assert trial.rounds == 2
    assert begun == [False, True]
    losses = [history.train_loss for history in histories]
    assert len(losses[1]) >= len(losses[0])
    assert losses[1][: len(losses[0]) - 1] == losses[0][:-1]  # the last epoch may be incomplete
    assert trial.chosen_by >= reached - 1e-3
    assert (trial.flow.parameters != first.parameters).any()


@pytest.mark.parametrize("slow", [1.0, 1.2])
def test_rounds_share_the_time(monkeypatch, slow):
    """Rounds use exactly the whole time if trials, which alone advance the clock, use all of the time that they get."""
    now = [100.0]

    class Timed(tried.Trial):
        def go(self, fitted, choosing, seconds, folder=None):
            now[0] += slow * seconds
            self.rounds += 1
            self.stopped, self.chosen_by, self.flow = "time_budget", float(self.candidate.name), hr.MAF(2)

    monkeypatch.setattr("headrace._fit.clock.now", lambda: now[0])
    monkeypatch.setattr(run.time, "perf_counter", lambda: now[0])
    trials = [Timed(tried.Candidate(str(i), lambda: None), 0) for i in range(7)]
    setting = tried.Setting(2, 0, None, None, "float32", 0)
    search = run._SuccessiveHalving(Sample(banana(10)), trials, setting, None, run.Clock(10.0), False)
    with search.shown() as shown:
        search._halve(Sample(banana(10)), Sample(banana(10)), "", shown)
    assert now[0] - 100.0 == pytest.approx(9.8, rel=1e-9) if slow == 1.0 else 9.8 <= now[0] - 100.0 < 10.4


@pytest.mark.parametrize("rows", [4, 10, 60])
@pytest.mark.parametrize("features", [1, 2])
def test_few_rows(rows, features):
    x = banana(rows)[:, :features]
    choice = hr.auto(x, **QUICK)
    assert choice.flow.features == features
    assert "each by a fit to four fifths" in choice.judged_by
    assert choice.flow.sample(3, seed=0).shape == (3, features)
    assert np.isfinite(choice.table[0].log_likelihood)
    if rows == 4:  # four rows cannot distinguish densities
        assert choice.name in SIMPLE or choice.as_good


def test_one_column_of_many_rows_has_no_affine_flows():
    x = np.random.default_rng(0).gamma(2.0, size=(600, 1))
    choice = hr.auto(x, bounds=[(0.0, None)], **QUICK)
    assert {one.name for one in choice.table} == {*SIMPLE, *sizes_of("NSF", 5), "dual ascent"}
    for one in choice.table:
        if one.flow is not None:
            assert one.flow.log_prob(np.array([[-1.0]], np.float32)) == -np.inf
            assert one.flow.sample(100, seed=0).min() > 0


@pytest.mark.costly
def test_context_and_weights():
    rng = np.random.default_rng(0)
    context = rng.uniform(-1, 1, 900)
    x = np.stack([2 * context, -context], axis=1) + 0.3 * rng.standard_normal((900, 2))
    choice = hr.auto(x, context=context, families=("maf", "dual-ascent"), **QUICK)
    assert {one.name for one in choice.table} == {"linear Gaussian", *sizes_of("MAF", 8)}
    truth = -np.log(2 * np.pi) - 1 - 2 * np.log(0.3)
    linear = next(one for one in choice.table if one.name == "linear Gaussian")
    assert linear.log_likelihood == pytest.approx(truth, abs=0.2)
    assert "linear Gaussian" in (choice.name, *choice.as_good)
    both = np.concatenate([banana(600), banana(600) + 50.0])
    weights = np.repeat([1.0, 0.0], 600)
    weighted = hr.auto(both, weights=weights, families=("maf",), **QUICK)
    assert all(one.flow.sample(500, seed=1).max() < 40 for one in weighted.table if one.flow is not None)


def test_ctrl_c_keeps_the_best_so_far(monkeypatch):
    """A real signal in the third fit, when it has better weights than at its start, ends this fit and the search."""
    count, fit, finish = [0], tried.Trial._fit, Run._finish_epoch

    def counted(self, fitted, held, seconds, folder):
        count[0] += 1
        return fit(self, fitted, held, min(seconds, 0.3) if count[0] < 3 else 60.0, folder)

    def signalled(self, *given):
        goes_on = finish(self, *given)
        if count[0] == 3 and self.history.best_epoch > 0:
            signal.raise_signal(signal.SIGINT)
        return goes_on

    monkeypatch.setattr(tried.Trial, "_fit", counted)
    monkeypatch.setattr(Run, "_finish_epoch", signalled)
    choice = hr.auto(banana(4000), time_budget=60.0, progress=False)
    assert count[0] == 3
    assert choice.interrupted
    assert choice.diagnosis is None
    assert np.isfinite(choice.flow.log_prob(banana(10))).all()
    assert "Interrupted: this is the best so far." in str(choice)
    assert choice.table[0].name == choice.name
    assert [one.state for one in choice.table].count("not begun") == 7


def test_ctrl_c_in_the_last_look_keeps_the_choice(monkeypatch):
    def interrupted(*given, **others):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "diagnose", interrupted)
    choice = hr.auto(banana(600), time_budget=0.5, families=("maf",), progress=False)
    assert choice.interrupted
    assert choice.diagnosis is None


def test_ctrl_c_in_a_cross_validation(monkeypatch):
    count = [0]
    go = tried.Trial.go

    def stopped(self, *given):
        count[0] += 1
        if count[0] > 6:
            raise KeyboardInterrupt
        go(self, *given)

    monkeypatch.setattr(tried.Trial, "go", stopped)
    choice = hr.auto(banana(40), **QUICK)
    assert choice.interrupted
    assert {one.state for one in choice.table} >= {"not begun"}
    assert choice.flow.features == 2


def test_kernels_are_a_flow():
    x = banana(400)
    flow = simple.kernels(Sample(x), None, "float64", 0)
    bandwidth = float(flow.base.scale[0, 0])
    covariance = np.cov(x.T, bias=True) * bandwidth**2
    rows = banana(20, seed=5)
    expected = np.log([scipy.stats.multivariate_normal(row, covariance).pdf(x).mean() for row in rows])
    assert np.allclose(flow.log_prob(rows), expected, atol=1e-9)
    assert simple.kernels(Sample(np.repeat(x[:, :1], 2, axis=1)), None, "float64", 0) is None
    assert simple.kernels(Sample(x[:2]), None, "float64", 0) is None


def test_densities_that_are_equally_good():
    best = Judged("NSF", None, np.array([0.0, 1.0, 2.0, 3.0]), 0.0, "", 0.0)
    near = Judged("Gaussian", None, best.log_prob - [0.1, -0.1, 0.2, -0.1], 0.0, "", 0.0)
    far = Judged("kernel density", None, best.log_prob - [0.5, 0.4, 0.6, 0.5], 0.0, "", 0.0)
    table, as_good = compared([near, far, best], best, None)
    assert [one.name for one in table] == ["NSF", "Gaussian", "kernel density"]
    assert as_good == ("Gaussian",)
    assert table[2].behind == pytest.approx(0.5)
    assert table[2].behind_error == pytest.approx(np.std([0.5, 0.4, 0.6, 0.5], ddof=1) / 2)
    assert "a Gaussian is as good (within the standard error, or 0.01 nats a row)" in comparison_of("NSF", as_good)
    for step, found in ((0.009, ("Gaussian",)), (0.02, ())):  # both differences are many standard errors
        assert compared([Judged("Gaussian", None, best.log_prob - step, 0.0, "", 0.0), best], best, None)[1] == found
    assert "by more than the standard error" in comparison_of("NSF", ())
    assert [sorted(np.concatenate(folds(n, 5, 0)).tolist()) == list(range(n)) for n in (5, 13)] == [True, True]


def test_wrong_arguments_of_auto_are_refused():
    for wrong, error in (
        ({"x": np.zeros((3, 2))}, "at least 4 rows"),
        ({"families": ("glow",)}, "families: expected one of"),
        ({"time_budget": 0}, "time_budget: expected a number above 0"),
        ({"context": np.zeros(7)}, "context"),
        ({"x": np.full((9, 2), np.nan)}, r"x: row 0, column 0: .* NaN in 9 of 9 rows \(column 0 9, column 1 9\)"),
        ({"bounds": [(0, None)]}, "bounds: expected 2"),
    ):
        with pytest.raises(ValueError, match=error):
            hr.auto(**{"x": banana(100), **QUICK, **wrong})
    with pytest.raises(TypeError, match="families: expected a sequence"):
        hr.auto(banana(100), families="maf")


def test_names_of_columns_are_those_of_frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(banana(600), columns=["mass", "age"])
    assert hr.auto(frame, families=("maf",), **QUICK).diagnosis.names == ("mass", "age")
    assert hr.auto(frame, names=["a", "b"], families=("maf",), **QUICK).diagnosis.names == ("a", "b")


def test_constant_columns_are_kept_aside_and_named():
    x = np.column_stack([banana(600), np.zeros(600)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choice = hr.auto(x, families=("maf",), **QUICK)
    assert choice.flow.features == 2
    assert "One value alone, kept aside and put back in samples: 2." in str(choice)


@pytest.mark.costly
@pytest.mark.parametrize("rows", [300, 900])
def test_periodic_columns(rows):
    """All candidates have periodic columns; the Gaussian is even around circles; kernels have seams and are omitted."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, 2))
    x = np.column_stack([rng.vonmises(np.pi + x[:, 0], 4.0), x])
    periods = [(-np.pi, np.pi), None, None]
    choice = hr.auto(x, time_budget=3.0, families=("maf", "dual-ascent"), periodic=periods, progress=False)
    named = {one.name: one for one in choice.table}
    assert "kernel density" not in named
    gaussian = named["Gaussian"].flow
    assert gaussian.base.densities == ("uniform", "normal", "normal")
    there = x + np.array([2 * np.pi, 0.0, 0.0])
    np.testing.assert_allclose(gaussian.log_prob(there), gaussian.log_prob(x), atol=1e-4)
    assert choice.flow.transforms[-1].periodic[0] == (-np.pi, np.pi)
    drawn = choice.sample(200, seed=0)
    assert ((drawn[:, 0] >= np.float32(-np.pi)) & (drawn[:, 0] < np.float32(np.pi))).all()


@pytest.mark.parametrize("periods", [[(-np.pi, np.pi), None], [(-np.pi, np.pi), (0.0, 1.0)]])
def test_periodic_columns_given_a_context(periods):
    rng = np.random.default_rng(0)
    context = rng.standard_normal((700, 1))
    x = np.column_stack([rng.vonmises(context[:, 0], 4.0), rng.uniform(0.0, 1.0, 700)])
    choice = hr.auto(x, context=context, families=("nsf",), periodic=periods, **QUICK)
    assert {one.name for one in choice.table} >= {"linear Gaussian"}
    assert np.isfinite(choice.log_prob(x, context)).all()


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_columns_of_the_table_stay_apart(columns, monkeypatch):
    """Columns of the table stay apart for likelihoods of rows in large units."""
    monkeypatch.setenv("COLUMNS", str(columns))
    found = [Tried(name, -1234.5678, 123.4567, 1234.5678, 123.4567, 1.0, "", None) for name in ("first", "other")]
    lines = str(Choice(None, "first", tuple(found), (), None, "rows", False, 1.0)).splitlines()
    assert max(map(len, lines)) <= columns
    if columns == 60:  # narrow tables become lists
        assert "  nats a row: -1234.5678 ± 123.4567" in lines
        return
    assert lines[3].split() == ["other", "-1234.5678", "±", "123.4567", "1234.5678", "±", "123.4567", "1.0", "s"]
    assert re.search(r"123\.4567 {2,}1234\.5678", lines[3])
    assert lines[1].index("behind the best") + len("behind the best") == lines[3].rindex("123.4567") + len("123.4567")
