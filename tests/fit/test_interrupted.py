"""Ctrl-C before a fit has better weights: every sort of fit raises KeyboardInterrupt, and leaves the flow unchanged."""

import signal

import numpy as np
import pytest

import cases
import headrace as hr
from headrace._fit.run import ArrayRun
from headrace.choosing.candidates import Trial
from headrace.distributed import local
from headrace.variational.descent import Descent
from headrace.variational.distill import ConditionalStep
from interrupts import ctrl_c

QUIET = {"progress": False}
RUN, MARGINALS = "headrace._fit.run:ArrayRun", "headrace._fit.marginals:"
# Moments for Ctrl-C in a default fit: a function, and the index of the argument that is the flow or has it as `flow`.
MOMENTS = {
    "reading the rows": ("headrace._fit.source:RowSource", "moments", None),
    "choosing marginal curves": (MARGINALS, "gaussianizing", None),
    "in the trial of marginal curves": (RUN, "one_pass", None),
    "before standardising": ("headrace._fit.start:Start", "set", 1),
    "while standardising": ("headrace._flow.flow:Flow", "_take_parameters", 0),
    "after standardising": ("headrace._fit.start:", "start_act_norms", 0),
    "before the first epoch": (RUN, "go", 0),
    "judging the start": ("headrace._fit.run:HeldOut", "loss", 1),
    "in the first epoch": (RUN, "batches", 0),
    "in the first step": (RUN, "_find_gradient", 0),
}


def rows(n=2000, features=2, key="interrupted"):
    """Rows with skewed columns, and with a dependence that a flow learns."""
    z = cases.rng(key).standard_normal((n, features))
    z[:, 1] += 2.0 * np.sin(2.0 * z[:, 0])
    return np.exp(z).astype("float32")


def at(monkeypatch, moment, flow):
    """Send Ctrl-C at `moment`, one of MOMENTS, of the fit of a flow."""
    owner, name, place = MOMENTS[moment]

    def is_of_the_flow(*given):
        return place is None or flow in (given[place], getattr(given[place], "flow", None))

    return ctrl_c(monkeypatch, owner, name, is_of_the_flow)


def state(flow):
    """Return the state of a flow: the bytes of its file, and densities of rows."""
    x = cases.rng("state").standard_normal((20, flow.features)).astype("float32")
    context = np.zeros(flow.context, "float32") if flow.context else None
    return hr.to_bytes(flow), flow.log_prob(x, context).tobytes()


def assert_untouched(flow, call, calls):
    """Check that the call raises KeyboardInterrupt, at the chosen moment, and does not change the flow."""
    before = state(flow)
    with pytest.raises(KeyboardInterrupt):
        call()
    assert calls
    assert state(flow) == before


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_default_fit(moment, monkeypatch):
    flow = hr.MAF(2, transforms=2, hidden=(8,))
    assert_untouched(flow, lambda: flow.fit(rows(), **QUIET), at(monkeypatch, moment, flow))
    monkeypatch.undo()
    want = hr.MAF(2, transforms=2, hidden=(8,))
    for one in (flow, want):
        one.fit(rows(500), epochs=3, **QUIET)
    assert state(flow) == state(want)


LATE = [moment for moment in MOMENTS if "marginal" not in moment and "loss" not in MOMENTS[moment]]


def flow_of_all_parts():
    """A flow with every part that a fit sets: a scale of the context, ActNorms, and a Standardize."""
    chain = hr.MAF(2, context=1, transforms=1, hidden=(8,)).transforms
    return hr.Flow([hr.transforms.ActNorm(2), *chain[:-1], hr.transforms.ActNorm(2), chain[-1]])


@pytest.mark.parametrize("moment", LATE)
@pytest.mark.parametrize("validation", [0.2, None])
def test_a_fit_with_context_and_act_norms(moment, validation, monkeypatch):
    flow, x = flow_of_all_parts(), rows(600)
    context = 5.0 + x[:, :1]
    calls = at(monkeypatch, moment, flow)
    assert_untouched(flow, lambda: flow.fit(x, context, validation=validation, epochs=3, **QUIET), calls)


@pytest.mark.parametrize("moment", ["judging the start", "in the first epoch", "in the first step"])
def test_a_second_fit(moment, monkeypatch):
    flow = flow_of_all_parts()
    x = rows(600)
    flow.fit(x, 5.0 + x[:, :1], epochs=3, **QUIET)
    assert_untouched(flow, lambda: flow.fit(x, 5.0 + x[:, :1], epochs=3, **QUIET), at(monkeypatch, moment, flow))


@pytest.mark.usefixtures("one_mixture")
@pytest.mark.parametrize("moment", ["before the beginning", "while standardising", "in cross-validation"])
def test_few_rows(moment, monkeypatch):
    """A fit of few rows is interrupted before and in the cross-validation that chooses its beginning and its epochs."""
    flow = hr.MAF(2, transforms=1, hidden=(8,))
    monkeypatch.setitem(MOMENTS, "before the beginning", ("headrace._fit.start:Start", "begin", 1))
    if moment == "before the beginning":  # the fit begins without a flow that learns from samples
        monkeypatch.setattr("headrace._fit.few_rows.can_mix", lambda flow, source: False)
    monkeypatch.setitem(MOMENTS, "in cross-validation", (RUN, "one_pass", None))
    assert_untouched(flow, lambda: flow.fit(rows(100), **QUIET), at(monkeypatch, moment, flow))


@pytest.mark.parametrize("moment", ["while standardising", "in the first step"])
def test_a_stream(moment, monkeypatch):
    flow, x = hr.MAF(2, transforms=1, hidden=(8,)), rows(3000)
    stream = hr.rows.blocks(lambda: iter(np.split(x, 6)), buffer=1000)
    assert_untouched(flow, lambda: flow.fit(stream, epochs=3, **QUIET), at(monkeypatch, moment, flow))


def test_a_stream_while_its_rows_are_read():
    def blocks():
        yield rows(500)
        signal.raise_signal(signal.SIGINT)
        yield rows(500)

    flow = hr.MAF(2, transforms=1, hidden=(8,))
    assert_untouched(flow, lambda: flow.fit(hr.rows.blocks(blocks, buffer=100), **QUIET), ["blocks"])


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("headrace.distributed.run:", "opened"),
        ("headrace._fit.start:", "start_act_norms"),
        ("headrace.distributed.run:SharedRun", "one_pass"),
    ],
)
def test_a_group(owner, name, monkeypatch):
    flow = flow_of_all_parts()
    x = rows(600)
    fit = {"epochs": 3, "group": local(), "validation": 0.2, **QUIET}
    calls = ctrl_c(monkeypatch, owner, name)
    assert_untouched(flow, lambda: flow.fit({0: x}, {0: 5.0 + x[:, :1]}, **fit), calls)


def test_epochs_without_better_weights():
    """No epoch improves a flow that has the best weights already, so that Ctrl-C at any time leaves it unchanged."""
    flow = hr.Flow([hr.transforms.MaskedAutoregressive(2, (4,)), hr.transforms.Standardize(np.zeros(2), np.ones(2))])
    x = cases.rng("best").standard_normal((4000, 2)).astype("float32")
    passes, whole = [], ArrayRun.one_pass

    def interrupted(self):
        passes.append(1)
        if len(passes) == 3:
            signal.raise_signal(signal.SIGINT)
        return whole(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArrayRun, "one_pass", interrupted)
        worse = {"learning_rate": 0.3, "average": None, "clip": None, "validation": x[:2000]}
        assert_untouched(flow, lambda: flow.fit(x[2000:2040], epochs=9, **worse, **QUIET), passes)


def test_an_error_before_there_are_better_weights(monkeypatch):
    def broken(*given, **more):
        raise MemoryError

    flow = flow_of_all_parts()
    before, x = state(flow), rows(600)
    monkeypatch.setattr("headrace._fit.start.start_act_norms", broken)
    with pytest.raises(MemoryError):
        flow.fit(x, x[:, :1], epochs=3, **QUIET)
    assert state(flow) == before


@pytest.mark.parametrize("moment", ["not_worse_than_a_gaussian", "taking the Gaussian"])
def test_better_weights_stay_when_the_last_comparison_is_interrupted(moment, monkeypatch):
    """After an interrupted comparison with a Gaussian, the flow has its trained weights, not the Gaussian."""
    flow, trained = hr.MAF(2, transforms=2, hidden=(16,)), []
    compare = "headrace._fit.fit:", "not_worse_than_a_gaussian"

    def note(one, *_):
        trained.append(state(one))
        return True

    if moment == compare[1]:
        calls = ctrl_c(monkeypatch, *compare, note)
    else:
        monkeypatch.setattr("headrace._fit.start._is_kept", lambda *given: not note(flow))
        calls = ctrl_c(
            monkeypatch, "headrace._flow.flow:Flow", "_take_parameters", lambda one, *_: one is flow and bool(trained)
        )
    history = flow.fit(rows(), patience=2, gaussianize=False, **QUIET)
    assert calls
    assert history.stopped == "interrupted"
    assert history.best_epoch > 0
    assert not history.gaussian
    assert state(flow) == trained[0]


# --- ensembles, estimators, other fits --------------------------------------------------------------------------------


def test_an_ensemble_whose_first_member_has_nothing_to_keep(monkeypatch, set_threads):
    set_threads(1)  # with one thread members are fitted in turn
    ensemble = hr.Ensemble([hr.MAF(2, transforms=1, hidden=(8,), seed=i) for i in range(2)])
    before = [state(flow) for flow in ensemble]
    calls = at(monkeypatch, "in the first epoch", ensemble[0])
    with pytest.raises(KeyboardInterrupt):
        ensemble.fit(rows(600), epochs=3, **QUIET)
    assert calls
    assert [state(flow) for flow in ensemble] == before


def test_an_ensemble_keeps_the_members_that_were_fitted(monkeypatch, set_threads):
    set_threads(1)  # with one thread members are fitted in turn
    ensemble = hr.Ensemble([hr.MAF(2, transforms=1, hidden=(8,), seed=i) for i in range(3)])
    before = [state(flow) for flow in ensemble]
    calls = at(monkeypatch, "in the first epoch", ensemble[1])
    with pytest.warns(RuntimeWarning, match=r"^fit: interrupted with 2 of 3 members not fitted; ensemble\[:1\]"):
        histories = ensemble.fit(rows(600), epochs=3, **QUIET)
    assert calls
    assert [history.stopped for history in histories] == ["epochs"]
    assert [state(flow) == was for flow, was in zip(ensemble, before, strict=True)] == [False, True, True]


def test_flow_density(monkeypatch):
    """An estimator whose new fit is interrupted keeps its earlier fit, its names and its table."""
    pytest.importorskip("sklearn")
    from sklearn_cases import estimator

    fresh = estimator("maf", transforms=1, hidden=(8,), epochs=3, random_state=0)
    calls = ctrl_c(monkeypatch, RUN, "go")
    with pytest.raises(KeyboardInterrupt):
        fresh.fit(rows(600))
    assert calls
    assert not [name for name in vars(fresh) if name.endswith("_")]
    monkeypatch.undo()
    fitted = fresh.fit(rows(600))
    before, scores = dict(vars(fitted)), fitted.score_samples(rows(50))
    for owner, name in ((RUN, "go"), ("headrace._tables.density:TableDensity", "scores")):
        calls = ctrl_c(monkeypatch, owner, name)
        with pytest.raises(KeyboardInterrupt):
            fitted.fit(rows(600, features=3))
        assert calls
        monkeypatch.undo()
        assert vars(fitted) == before
        cases.assert_same_bits(fitted.score_samples(rows(50)), scores)


def joint(x, context):
    """Return the log density of a normal around the context, and its gradient."""
    away = x - context
    return -0.5 * (away**2).sum(axis=1), -away


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("headrace.variational.descent:", "judge_of"),  # a fit standardises the context before this call
        ("headrace.variational.descent:Descent", "_judge"),
        ("headrace.variational.descent:PathStep", "__call__"),
    ],
)
def test_fit_to_density(owner, name, monkeypatch):
    flow = hr.IAF(2, context=1, transforms=1, hidden=(8,))
    contexts = 3.0 + cases.rng("contexts").standard_normal((50, 1)).astype("float32")
    calls = ctrl_c(monkeypatch, owner, name)
    fit = {"steps": 40, "samples": 32, "evaluated": 0, **QUIET}
    assert_untouched(flow, lambda: hr.fit_to_density(flow, joint, contexts, **fit), calls)


@pytest.mark.parametrize(
    "where", [(ConditionalStep, "__call__"), (Descent, "_judge"), (Descent, "go"), (hr.Flow, "_take_parameters")]
)
def test_distill(where, monkeypatch):
    teacher = hr.MAF(2, transforms=2, hidden=(8,))
    teacher.fit(rows(600), epochs=3, **QUIET)
    student = hr.IAF(2, transforms=2, hidden=(8,))
    kind, name = where
    of_student = (lambda one, *_: one is student) if kind is hr.Flow else (lambda *given: True)
    calls = ctrl_c(monkeypatch, f"{kind.__module__}:{kind.__name__}", name, of_student)
    fit = {"steps": 20, "samples": 32, "evaluated": 0, **QUIET}
    assert_untouched(student, lambda: hr.distill(teacher, student, **fit), calls)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("headrace.ascent.standardised_rows:StandardisedRows", "of"),
        ("headrace.ascent.splines:SplineAscent", "taken"),
        ("headrace.ascent.ascent:", "Standardize"),
    ],
)
def test_an_ascent(owner, name, monkeypatch):
    """A model whose ascent is interrupted keeps the history of its last fit."""
    x = rows(300)
    model = hr.DualAscentFlow(steps=2, refine=False)
    model.fit(x, **QUIET)
    history = model.history
    calls = ctrl_c(monkeypatch, owner, name)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, **QUIET)
    assert calls
    assert model.history is history


@pytest.mark.costly
def test_an_interrupted_search_keeps_earlier_flows(monkeypatch):
    """A candidate that is interrupted at the beginning of its second round keeps the flow of its first round."""
    trials, whole = [], Trial.go

    def go(self, *given):
        if self.rounds == 1:
            trials.append((self, self.flow, state(self.flow)))
            ctrl_c(monkeypatch, RUN, "go")
        return whole(self, *given)

    monkeypatch.setattr(Trial, "go", go)
    # The time budget is enough for a second round on a busy machine; the first round takes a third of the budget.
    choice = hr.auto(rows(3000), time_budget=15.0, families=("maf", "realnvp"), progress=False)
    ((trial, flow, before),) = trials
    assert choice.interrupted
    assert trial.stopped == "interrupted"
    assert trial.flow is flow
    assert state(flow) == before
    (entry,) = (one for one in choice.table if one.name == trial.candidate.name)
    assert entry.state == "interrupted"
    assert entry.flow is flow


def in_a_later_epoch(monkeypatch):
    """Send Ctrl-C in the sixth pass of a fit, which has better weights by then than at its beginning."""
    passes = []
    monkeypatch.setattr(ArrayRun, "batches", lambda run, of=ArrayRun.batches: passes.append(1) or of(run))
    return ctrl_c(monkeypatch, ArrayRun, "one_pass", lambda run: len(passes) > 4)


def test_an_interrupted_recalibration_is_not_used(monkeypatch):
    flow, x = (
        hr.Flow([hr.transforms.Standardize([0.0, 0.0], [2.0, 1.5])]),
        np.exp(cases.rng("skewed").standard_normal((2000, 2))),
    )
    assert_untouched(flow, lambda: hr.recalibrate(flow, x), in_a_later_epoch(monkeypatch))


def test_an_interrupted_linear_gaussian_is_no_candidate(monkeypatch):
    x = cases.rng("choice").standard_normal((600, 2))
    calls = in_a_later_epoch(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        hr.auto(x, 5.0, context=x[:, 0], **QUIET)
    assert calls
