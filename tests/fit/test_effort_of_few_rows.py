"""`fit(effort="high")` of few rows: members and student are judged by cross-validation."""

import numpy as np
import pytest

import cases
import headrace as hr
from effort_cases import Killed, bent, flow_of, state
from fitting import QUIET
from headrace._fit import few_rows as _few_rows
from headrace._fit import high_effort as _effort

# The tests run whole fits.
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:fit. no epoch:RuntimeWarning")]


@pytest.fixture
def few(one_mixture, monkeypatch):
    """Make fits short: 20 epochs of members, and few steps of flows that learn from samples."""
    for module, steps in ((_few_rows, "STEPS"), (_effort, "STEPS_OF_FEW")):
        monkeypatch.setattr(module, steps, 300)
        monkeypatch.setattr(module, "SAMPLES", 4000)
    monkeypatch.setattr(_few_rows, "WAIT", 3)
    return {"effort": "high", "batch_size": 64, **QUIET}


@pytest.mark.costly
@pytest.mark.parametrize("context", [0, 1])
def test_few_rows_are_judged_by_cross_validation(context, few):
    """Members have equal weights; with context, which mixtures of normal densities lack, members are NSFs and MAFs."""
    x, given = bent(90), bent(90, "given")[:, :context] if context else None
    flow, plain = (flow_of(context=context) for _ in range(2))
    want = plain.fit(x, given, batch_size=64, **QUIET)
    history = flow.fit(x, given, keep=True, **few)
    assert history.judged_by == "cross-validation"
    assert history.tried["0: the flow's own fit"] == want.best_loss
    assert history.members.weights.tolist() == [0.25] * 4
    assert ("1: mixture of normal densities" in history.tried) == (context == 0)
    assert history.fits[1].from_samples == (context == 0)
    assert history.tried["mixture"] <= np.mean(list(history.tried.values())[:4])
    assert history.best_loss == min(history.tried["0: the flow's own fit"], history.tried["student"])
    assert (state(flow) == state(plain)) == (history.chosen != "student")


@pytest.mark.costly
def test_a_student_of_few_rows_has_the_loss_of_the_mixture_and_what_it_loses_to_it(few, monkeypatch):
    seen, kept, fitted = [], _effort.HeldOut, _effort._HighEffort._fit_student
    monkeypatch.setattr(_effort, "HeldOut", lambda source: seen.append(source) or kept(source))
    monkeypatch.setattr(_effort._HighEffort, "_fit_student", lambda *given: seen.append(fitted(*given)) or seen[-1])
    # A member learns from a mixture of normal densities even where the mixture is not clearly better.
    monkeypatch.setattr("headrace._fit.fit.clearly_better", lambda *given: False)
    history = flow_of().fit(bent(90), keep=True, **few)
    assert [one.from_samples for one in history.fits] == [False, True, False, False]
    judge, (student, learning) = seen
    rows = judge.data.rows(judge.part.all()).x
    assert len(rows) == pytest.approx(0.1 * len(judge.data.x), abs=2)
    assert not np.isin(judge.data.x, bent(90)).any()
    lost = (history.members.log_prob(rows) - student.log_prob(rows)).mean(dtype="f8")
    assert history.tried["student"] == learning.best_loss == pytest.approx(history.tried["mixture"] + lost, abs=1e-4)
    assert learning.judged_by == "cross-validation"


@pytest.mark.costly
def test_a_killed_fit_of_few_rows_goes_on_to_the_same_bits(few, tmp_path, monkeypatch):
    """A fit killed in a member's fit, then in the student's, repeats cross-validation, but no finished steps."""
    steps, left, step, file = [], [], hr.Adam.step, tmp_path / "state.student"

    def counted(adam, gradient):
        steps.append(file.exists())
        if left and steps.count(left[0][0]) == left[0][1]:
            raise Killed
        return step(adam, gradient)

    monkeypatch.setattr(hr.Adam, "step", counted)
    kept = {"checkpoint": tmp_path / "state", "checkpoint_every": "epoch"}
    with hr.threads(1):  # with one thread members are fitted in turn
        want, flow = flow_of(), flow_of()
        history = want.fit(bent(60), **few)
        total = len(steps)
        for is_student, at in ((False, total // 2), (True, 150)):
            steps.clear()
            left[:] = [(is_student, at)]
            with pytest.raises(Killed):
                flow_of().fit(bent(60), **few, **kept)
        steps.clear()
        left.clear()
        again = flow.fit(bent(60), **few, **kept)
    assert len(steps) < total - 150
    assert state(flow) == state(want)
    assert (again.tried, again.chosen) == (history.tried, history.chosen)
    assert not list(tmp_path.iterdir())


@pytest.mark.costly
def test_few_rows_gain_by_the_mixture(one_mixture, monkeypatch):
    """High effort gains 0.1 nats on new rows of six columns, which depend on two factors; four are bent or skewed."""
    for module, steps in ((_few_rows, "STEPS"), (_effort, "STEPS_OF_FEW")):
        monkeypatch.setattr(module, steps, 1000)
    rng = cases.rng("factors")
    z = rng.standard_normal((1200, 2))
    x = z @ rng.standard_normal((2, 6)) + 0.4 * rng.standard_normal((len(z), 6))
    x[:, 1::3], x[:, 2::3] = np.exp(0.4 * x[:, 1::3]), x[:, 2::3] + 0.6 * np.square(z)
    flow, plain = (hr.MAF(6, transforms=3, hidden=(24,)) for _ in range(2))
    plain.fit(x[:100], **QUIET)
    history = flow.fit(x[:100], effort="high", **QUIET)
    assert history.chosen == "student"
    assert flow.log_prob(x[100:]).mean() > plain.log_prob(x[100:]).mean() + 0.1
