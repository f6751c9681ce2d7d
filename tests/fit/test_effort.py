"""`fit(effort="high")`: the members, their mixture, the student of the mixture, and the flow that a fit returns."""

import math
import sys
import threading
import time
import tracemalloc
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

import cases
import headrace as hr
from effort_cases import Killed, bent, flow_of, state
from fitting import QUIET, gaussian, small
from headrace._arrays.row_parts import CHUNK
from headrace._fit import high_effort as _effort
from headrace._fit import run as _run
from headrace._fit.given_rows import Data
from headrace._fit.high_effort import weights_of_mixture
from headrace._fit.source import ArrayRows
from headrace._flow.fit_arguments import Arguments
from headrace.choosing.run import _SuccessiveHalving
from interrupts import ctrl_c
from terminal import Stream

# The tests run whole fits.
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:fit. no epoch:RuntimeWarning")]
HIGH = QUIET | {"effort": "high", "epochs": 3}


# ---- results ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 3])
def test_high_effort_is_no_worse_on_held_out_rows_than_normal_effort(seed):
    flow, plain = flow_of(), flow_of()
    want = plain.fit(bent(700), seed=seed, epochs=3, **QUIET)
    history = flow.fit(bent(700), seed=seed, **HIGH)
    assert history.tried["0: the flow's own fit"] == want.best_loss
    assert history.best_loss == min(history.tried["0: the flow's own fit"], history.tried["student"])
    assert history.chosen in ("the flow's own fit", "student")
    assert (state(flow) == state(plain)) == (history.chosen != "student")
    assert history.members is None


@pytest.mark.parametrize("which", ["student", "0: the flow's own fit"])
def test_the_flow_is_the_one_that_history_names(which, monkeypatch):
    """The fitted flow is the candidate with the lowest loss: the student, or the flow's own fit."""
    x, held = bent(700), bent(300, "held")
    finished = _effort.finished

    def preferring(flow, history, opened):
        found = finished(flow, history, opened)
        if (getattr(opened(), "what", "") == "student") != (which == "student"):
            found.best_loss += 100.0
        return found

    monkeypatch.setattr(_effort, "finished", preferring)
    flow, plain = flow_of(), flow_of()
    plain.fit(x, epochs=3, validation=held, **QUIET)
    history = flow.fit(x, validation=held, keep=True, **HIGH)
    assert history.chosen == which.removeprefix("0: ")
    assert history.best_loss == history.tried[which]
    assert -flow.log_prob(held).mean(dtype="f8") == pytest.approx(history.best_loss, rel=1e-6)
    assert (state(flow) == state(plain)) == (which != "student")
    assert -history.members.log_prob(held).mean(dtype="f8") == pytest.approx(history.tried["mixture"], rel=1e-5)
    assert len(history.members) == 4
    assert [one.split(": ")[0] for one in history.tried] == ["0", "1", "2", "3", "mixture", "student"]


@pytest.mark.costly
def test_a_student_is_better_than_one_fit(monkeypatch):
    """A student with more steps than the members have is better than the fit of its flow, and near the mixture."""
    monkeypatch.setattr(_effort, "STEPS", 1500)
    monkeypatch.setattr(_effort, "SAMPLES", 30_000)
    x, new = gaussian(700), gaussian(4000, "new")
    x, new = (np.column_stack([rows[:, 0], rows[:, 1] + np.sin(3.0 * rows[:, 0]), rows[:, 2]]) for rows in (x, new))
    flow, plain = (hr.NSF(3, transforms=2, hidden=(24,)) for _ in range(2))
    settings = QUIET | {"gaussianize": False, "weight_decay": 0.02, "patience": 10}
    plain.fit(x, **settings)
    history = flow.fit(x, effort="high", **settings)
    assert history.chosen == "student"
    assert flow.log_prob(new).mean() > plain.log_prob(new).mean() + 0.02


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_bits(threads, set_threads):
    set_threads(threads)
    flow = flow_of()
    flow.fit(bent(600), **HIGH)
    set_threads(2)
    other = flow_of()
    other.fit(bent(600), **HIGH)
    assert state(flow) == state(other)


def test_the_flow_may_become_a_member_of_its_structure(monkeypatch):
    monkeypatch.setattr(_effort, "_KINDS", (_effort._Kind("again", lambda n, **more: flow_of(n, **more)),) * 4)
    finished, losses = _effort.finished, iter([5.0, 6.0, 4.0, 7.0, 9.0])

    def judged(flow, history, opened):
        found = finished(flow, history, opened)
        found.best_loss = next(losses)
        return found

    monkeypatch.setattr(_effort, "finished", judged)
    flow = flow_of()
    with hr.threads(1):  # with one thread members are fitted in turn
        history = flow.fit(bent(600), keep=True, **HIGH)
    assert (history.chosen, history.best_loss) == ("again", 4.0)
    cases.assert_same_bits(flow.parameters, history.members[2].parameters)


def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """A fit that is killed in a member's fit, then in the student's, goes on; finished flows take no further steps."""
    steps, left, step = [], [], hr.Adam.step

    def counted(adam, gradient):
        steps.append(1)
        if left and len(steps) == left[0]:
            raise Killed
        return step(adam, gradient)

    monkeypatch.setattr(hr.Adam, "step", counted)
    monkeypatch.setattr(_effort, "SAMPLES", 2000)
    kept = {"checkpoint": tmp_path / "state", "checkpoint_every": "epoch"}
    with hr.threads(1):  # with one thread members are fitted in turn
        want, flow = flow_of(), flow_of()
        history = want.fit(bent(600), **HIGH)
        total = len(steps)
        for at in (total // 3, total // 3, 40):
            steps.clear()
            left[:] = [at]
            with pytest.raises(Killed):
                flow_of().fit(bent(600), **HIGH, **kept)
        assert (tmp_path / "state.student").exists() or (tmp_path / "state.3").exists()
        steps.clear()
        left.clear()
        again = flow.fit(bent(600), **HIGH, **kept)
    assert len(steps) < total // 3
    assert state(flow) == state(want)
    assert (again.tried, again.chosen, again.validation_loss) == (
        history.tried,
        history.chosen,
        history.validation_loss,
    )
    assert not list(tmp_path.iterdir())


def test_the_history_of_each_flow_is_there():
    history = flow_of().fit(bent(700), **HIGH)
    assert [one.best_loss for one in history.fits] == list(history.tried.values())[:4]
    assert all(one.weight_decay > 0 and one.residuals == {} for one in history.fits)


def test_members_differ_in_decay_where_rows_are_many(monkeypatch):
    seen = []
    monkeypatch.setattr(_effort, "finished", lambda flow, history, opened: seen.append(opened().decays) or history)
    for many, want in ((1000, {1.0}), (100, {1.0, 0.25, 2.5})):
        monkeypatch.setattr(_effort, "MANY", many)
        seen.clear()
        flow_of().fit(bent(600), **HIGH)
        assert set(seen) == want


# ---- rows of all kinds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_context_weights_bounds_and_periods(dtype, monkeypatch):
    rng = cases.rng("kinds")
    n = 600
    context = rng.standard_normal((n, 2))
    x = np.column_stack([np.exp(context[:, 0]), rng.random(n), rng.vonmises(0.0, 2.0, n), context[:, 1]])
    weights = rng.random(n)
    weights[:50] = 0.0
    seen = []
    rows_of = _effort._HighEffort._rows_of_student
    monkeypatch.setattr(
        _effort._HighEffort, "_rows_of_student", lambda self, e: seen.append(rows_of(self, e)) or seen[-1]
    )
    ends = {"bounds": [(0.0, None), (0.0, 1.0), None, None], "periodic": [None, None, (-np.pi, np.pi), None]}
    flow = flow_of(4, context=2, dtype=dtype, **ends)
    history = flow.fit(x, context, weights=weights, **HIGH)
    assert math.isfinite(history.tried["student"])
    (data,) = seen
    assert len(data.x) == len(data.context) == len(data.weights)
    assert (data.weights > 0).all()
    inside = data.x
    assert (inside[:, 0] > 0).all()
    assert ((inside[:, 1] > 0) & (inside[:, 1] < 1)).all()
    assert np.isin(data.context, context[weights > 0]).all()
    real = np.isin(data.x[:, 3], x[:, 3])
    assert 400 <= real.sum() <= 550
    assert data.weights[real].sum() == pytest.approx(_effort.REAL * data.weights[~real].sum())
    drawn = flow.sample(500, context[:500], seed=0)
    assert ((drawn[:, 1] > 0) & (drawn[:, 1] < 1)).all()


def test_one_context_for_all_rows():
    flow = flow_of(context=1)
    history = flow.fit(bent(600), np.array([0.5]), **HIGH)
    assert math.isfinite(history.best_loss)


def test_high_effort_between_bounds_over_a_uniform_base():
    flow = flow_of(base="uniform", bounds=[(0.0, 1.0)] * 2, link="none")
    history = flow.fit(cases.rng("box").random((600, 2)), **HIGH)
    assert all(math.isfinite(loss) for loss in history.tried.values())


def test_samples_far_out_take_no_part(monkeypatch):
    sample = hr.Ensemble.sample

    def with_outliers(self, n, *given, **more):
        rows = sample(self, n, *given, **more)
        rows[::3, 0], rows[1::7, 1] = 1e9, np.nan
        return rows

    monkeypatch.setattr(hr.Ensemble, "sample", with_outliers)
    flow = flow_of()
    history = flow.fit(bent(700), **HIGH)
    assert abs(flow.transforms[-1].std).max() < 10.0
    assert history.tried["student"] < history.best_loss + 2.0


def test_float64_rows_far_from_zero_keep_their_digits(monkeypatch):
    seen = []
    rows_of = _effort._HighEffort._rows_of_student
    monkeypatch.setattr(
        _effort._HighEffort, "_rows_of_student", lambda self, e: seen.append(rows_of(self, e)) or seen[-1]
    )
    flow = flow_of()
    with pytest.warns(RuntimeWarning, match="float32 has fewer than four digits"):
        history = flow.fit(bent(600) + np.array([1.7e9, 0.0]), **HIGH)
    assert len(np.unique(seen[0].x[:, 0])) > 0.9 * len(seen[0].x)
    assert math.isfinite(history.tried["student"])


def test_a_stream_that_fits_in_its_buffer_is_its_rows():
    x = bent(600)
    flow, other = flow_of(), flow_of()
    flow.fit(hr.rows.blocks([x[:250], x[250:]], buffer=1000), **HIGH)
    other.fit(x, **HIGH)
    assert state(flow) == state(other)


def test_names_of_a_frame_are_kept():
    pandas = pytest.importorskip("pandas")
    flow = flow_of()
    flow.fit(pandas.DataFrame(bent(600), columns=["a", "b"]), **HIGH)
    assert flow.feature_names == ("a", "b")


def test_a_flow_that_was_fitted_goes_on():
    flow = flow_of()
    first = flow.fit(bent(700), epochs=4, **QUIET)
    assert flow.fit(bent(700), **HIGH).best_loss <= first.best_loss


# ---- memory ----------------------------------------------------------------------------------------------------------


@contextmanager
def traced():
    """Yield a list, to which the end of the ``with`` block appends the peak growth of memory in bytes."""
    most = []
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    yield most
    most.append(tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()


def test_rows_of_the_student_need_little_more_memory_than_their_size(monkeypatch):
    """Samples of the mixture are drawn in parts, and training rows are converted to float64 in parts."""
    monkeypatch.setattr(_effort, "SAMPLES", 80_000)
    x = cases.rng("memory").standard_normal((60_000, 40)).astype("f4")
    flows = [hr.MAF(40, transforms=1, hidden=(8,), seed=seed) for seed in (0, 1)]
    effort = _effort._HighEffort(flows[0], x, None, Arguments(effort="high", progress=False))
    mixture = hr.Ensemble(flows)
    mixture.sample(_effort.DRAWN)
    with traced() as most:
        data = effort._rows_of_student(mixture)
    assert len(data.x) > 1.5 * len(x)
    size, copied = data.x.base.nbytes, x.nbytes  # training rows are copied part by part
    assert most[0] < 1.2 * size + copied


def test_moments_of_rows_take_three_parts():
    """Moments need three arrays: the last chunk, the current one in float64, and values computed from it."""
    x = np.ones((3 * CHUNK, 20), np.float32)
    x[0] = 3.0
    rows = ArrayRows(Data(x, None, None))
    with traced() as most:
        mean, _ = rows.moments(say=False)
    assert most[0] < 8 * CHUNK * (3.6 * x.shape[1] + 3)
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype="f8"), rtol=1e-12)


# ---- weights of a mixture --------------------------------------------------------------------------------------------


def test_weights_of_a_mixture_maximise_the_likelihood():
    rng = cases.rng("em")
    log_probs, rows = rng.normal(0.0, 1.5, (3, 200)), rng.integers(0, 4, 200).astype(float)
    weights, loss = weights_of_mixture(log_probs, rows)
    assert weights.sum() == pytest.approx(1.0)

    def loss_of(w):
        return -np.average(np.log(np.maximum(w, 1e-300) @ np.exp(log_probs)), weights=rows)

    assert loss == pytest.approx(loss_of(weights), rel=1e-12)
    for _ in range(200):
        other = np.abs(weights + 0.05 * rng.standard_normal(3))
        assert loss_of(other / other.sum()) >= loss - 1e-6
    repeated, _ = weights_of_mixture(np.repeat(log_probs, rows.astype(int), axis=1), np.ones(int(rows.sum())))
    np.testing.assert_allclose(repeated, weights, atol=1e-4)


def test_a_member_without_a_density_gets_no_weight():
    log_probs = np.array([[-1.0, -2.0], [np.nan, -1.0], [-np.inf, -np.inf]])
    weights, loss = weights_of_mixture(log_probs, np.ones(2))
    assert weights[2] == 0.0
    assert math.isfinite(loss)


# ---- time, progress, Ctrl-C ------------------------------------------------------------------------------------------


def test_a_budget_fits_as_many_members_as_it_has_time_for(monkeypatch):
    with hr.threads(1):
        history = flow_of().fit(bent(600), effort="high", time_budget=1e-3, **QUIET)
        few = [name for name in history.tried if name[0].isdecimal()]
        monkeypatch.setattr(_effort.Clock, "has", lambda self, seconds: True)
        history = flow_of().fit(bent(600), effort="high", epochs=1, time_budget=1000.0, **QUIET)
    assert len(few) == 2
    assert sum(name[0].isdecimal() for name in history.tried) == _effort.MOST_MEMBERS


def test_bars_of_both_parts(monkeypatch):
    monkeypatch.setattr(sys, "stderr", shown := Stream(tty=True))
    flow_of().fit(bent(600), effort="high", epochs=2)
    assert "members" in shown.text
    assert "student" in shown.text
    assert shown.text.count("\n") == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_before_the_flow_has_better_weights(threads, monkeypatch, set_threads):
    set_threads(threads)
    flow = flow_of()
    before = state(flow)
    calls = ctrl_c(monkeypatch, _run.ArrayRun, "_find_gradient")
    step = _run.ArrayRun._find_gradient

    def slow(run, *given):
        found = step(run, *given)
        time.sleep(0.2 if calls and threads > 1 else 0.0)  # a pause gives the main thread time to stop the others
        return found

    monkeypatch.setattr(_run.ArrayRun, "_find_gradient", slow)
    with pytest.raises(KeyboardInterrupt):
        flow.fit(bent(600), effort="high", epochs=400, **QUIET)
    assert calls
    assert state(flow) == before
    assert not [one for one in threading.enumerate() if one.name.startswith("headrace")]


def test_ctrl_c_among_the_members_keeps_the_flow_s_own(monkeypatch, set_threads):
    set_threads(1)
    flow, plain = flow_of(), flow_of()
    plain.fit(bent(600), epochs=3, **QUIET)
    ctrl_c(monkeypatch, _run.ArrayRun, "_find_gradient", lambda run, *_: run.flow.n_parameters != plain.n_parameters)
    history = flow.fit(bent(600), **HIGH)
    assert (history.stopped, history.chosen) == ("interrupted", "the flow's own fit")
    assert state(flow) == state(plain)


def test_ctrl_c_in_the_student_keeps_the_best(monkeypatch):
    flow, plain = flow_of(), flow_of()
    plain.fit(bent(600), epochs=3, **QUIET)
    ctrl_c(monkeypatch, _run.ArrayRun, "_find_gradient", lambda run, *_: run.what == "student")
    history = flow.fit(bent(600), **HIGH)
    assert (history.stopped, history.chosen) == ("interrupted", "the flow's own fit")
    assert state(flow) == state(plain)


# ---- estimators, searches and refusals -----------------------------------------------------------------------------


def test_an_estimator_has_residual_blocks_by_default():
    pytest.importorskip("sklearn")
    from sklearn_cases import estimator

    own = {"transforms": 1, "hidden": (8,), "epochs": 2, "random_state": 0}
    density = estimator(effort="high", keep=True, **own).fit(bent(600))
    assert len(density.history_.members) == 4
    sizes = {
        residual: hr.NSF(2, transforms=1, hidden=(8,), residual=residual).n_parameters for residual in (True, False)
    }
    assert density.flow_.n_parameters == sizes[True]
    plain = estimator(effort="high", residual=False, **own).fit(bent(600))
    assert plain.flow_.n_parameters == sizes[False] != sizes[True]


@pytest.mark.costly
@pytest.mark.parametrize("keep", [False, True])
def test_auto_ends_with_a_fit_of_high_effort(keep):
    choice = hr.auto(bent(900), time_budget=3, families=("maf",), effort="high", keep=keep, progress=False)
    (one,) = (one for one in choice.table if one.name == "NSF, high effort")
    assert one.flow is not None
    assert math.isfinite(one.log_likelihood)
    assert (choice.members is not None) == keep
    if keep:
        assert len(choice.members) >= 2
        assert np.isfinite(choice.members.log_prob(bent(50))).all()


def test_auto_keeps_two_thirds_of_the_time_for_high_effort(monkeypatch):
    """The search ends within a third of the time budget, and the fit with high effort has the rest."""
    given, fit = [], hr.NSF.fit

    def without_search(search, *rest):
        given.append(search.clock.left())

    def watched(flow, *rows, **settings):
        given.append(settings["time_budget"])
        return fit(flow, *rows, **(settings | {"time_budget": None, "epochs": 1}))

    monkeypatch.setattr(_SuccessiveHalving, "_halve", without_search)
    monkeypatch.setattr(hr.NSF, "fit", watched)
    hr.auto(bent(600), time_budget=600.0, effort="high", progress=False)
    assert 100 < given[0] < 200
    assert 400 < given[1] < 600


def test_a_residual_nsf_can_be_its_own_member():
    """A student with residual blocks has the structure of some members, so that it can become one of them."""
    flow = hr.NSF(2, residual=True)
    history = flow.fit(bent(600), **(HIGH | {"epochs": 1}))
    assert [one.split(": ")[-1] for one in history.tried][:2] == ["the flow's own fit", "NSF with residual blocks"]
    assert history.best_loss == history.tried["student"] or history.chosen != "student"
    assert history.best_loss <= min(history.tried[one] for one in history.tried if one.startswith(("0: ", "1: ")))


REFUSED = {
    "few rows": (
        {"x": bent(494), "epochs": 3},
        r"x: expected at least 495 rows with effort='high' and validation=0.1, so that 50 .*, got 494",
    ),
    "few rows of a larger share": ({"x": bent(150), "validation": 0.25, "epochs": 3}, "x: expected at least 198 rows"),
    "too few rows": ({"x": bent(49)}, "x: expected at least 50 rows with effort='high', got 49"),
    "few held out": ({"validation": bent(49)}, "validation: expected at least 50 rows with effort='high', got 49"),
    "none held out": ({"validation": None}, "validation: expected rows to hold out with effort='high'"),
    "no time": ({"time_budget": 0.0}, "time_budget: expected a number above 0"),
    "less": ({"time_budget": -3.0}, "time_budget: expected a number above 0"),
    "a checkpoint and a budget": (
        {"checkpoint": "a", "time_budget": 9.0},
        "time_budget: expected None beside checkpoint, effort='high', got 9.0",
    ),
    "a group": ({"group": hr.distributed.local()}, "group: expected None with effort='high'"),
    "a wrong one": ({"effort": "low"}, "effort: expected one of 'normal', 'high', got 'low'"),
    "members of a normal fit": ({"effort": "normal", "keep": True}, "keep: expected False with effort='normal'"),
    "a long stream": (
        {"x": hr.rows.blocks([bent(400), bent(400)], buffer=500)},
        "effort: expected 'normal' for a stream of more rows than its buffer holds",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_arguments_of_high_effort(name):
    given, message = REFUSED[name]
    flow = flow_of()
    before = state(flow)
    with pytest.raises(ValueError, match=f"^{message}"):
        flow.fit(**{"x": bent(600), "effort": "high", **QUIET, **given})
    assert state(flow) == before


def test_ensembles_and_many_fits_refuse_high_effort():
    with pytest.raises(ValueError, match=r"^effort: expected 'normal' in a fit of an ensemble"):
        hr.Ensemble([small()]).fit(gaussian(600), effort="high")
    with pytest.raises(ValueError, match=r"^effort: expected 'normal' with fewer than 500 rows, got 'high' with 400"):
        hr.auto(bent(400), time_budget=1, effort="high", progress=False)
    for fit in (flow_of().fit, partial(hr.auto, progress=False, effort="high")):
        with pytest.raises(TypeError, match=r"^keep: expected True or False, got 3"):
            fit(bent(600), keep=3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"effort": "low"}, "effort: expected one of 'normal', 'high', got 'low'"),
        ({"effort": "high", "time_budget": 0}, "time_budget: expected a number above 0"),
        ({"effort": "high", "time_budget": -1.0}, "time_budget: expected a number above 0"),
        ({"keep": True}, "keep: expected False with effort='normal', which has one flow, got True"),
    ],
    ids=str,
)
def test_auto_refuses_contradictory_efforts(given, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        hr.auto(bent(600), progress=False, **given)
