"""Fits with a time budget, by a clock that moves only with steps and with judgements of held-out rows."""

import math

import numpy as np
import pytest

import cases
import headrace as hr
from device_cases import data
from devices import Library
from fitting import QUIET, gaussian, small
from headrace._fit import clock as _clock
from headrace._fit import few_rows
from headrace._fit import plan as _plan
from headrace._fit import run as _run


class Time:
    """Seconds that pass when rows are trained on or judged, and never otherwise."""

    def __init__(self, monkeypatch, step=1.0, judge=0.0):
        self.seconds, self.steps, self.rates, self.losses = 100.0, 0, [], []
        find, loss, log_probs, losses, rate = (
            _run.ArrayRun._find_gradient, _run.HeldOut.loss, _run.HeldOut.log_probs, _run.HeldOut.losses,
            _run.Run._rate,
        )  # fmt: skip

        def stepped(run, *given):
            self.seconds += step(self.steps) if callable(step) else step
            self.steps += 1
            return find(run, *given)

        def judged(held_out, *given):
            self.seconds += judge
            self.losses.append(loss(held_out, *given))
            return self.losses[-1]

        def judged_all(held_out, *given):
            self.seconds += judge
            return log_probs(held_out, *given)

        def judged_by_row(held_out, *flows):
            self.seconds += len(flows) * judge
            return losses(held_out, *flows)

        def rated(run):
            self.rates.append(rate(run))
            return self.rates[-1]

        monkeypatch.setattr(_run.ArrayRun, "_find_gradient", stepped)
        monkeypatch.setattr(_run.HeldOut, "loss", judged)
        monkeypatch.setattr(_run.HeldOut, "log_probs", judged_all)
        monkeypatch.setattr(_run.HeldOut, "losses", judged_by_row)
        monkeypatch.setattr(_run.Run, "_rate", rated)
        monkeypatch.setattr(_clock, "now", lambda: self.seconds)

    @property
    def spent(self):
        return self.seconds - 100.0


def bent(rows):
    """Rows whose density is no Gaussian."""
    x = gaussian(rows)
    x[:, 1] += np.square(x[:, 0])
    return x


def fitted(budget, x=None, rows=1000, **settings):
    flow = small()
    x = gaussian(rows) if x is None else x
    return flow, flow.fit(x, time_budget=budget, **{"batch_size": 90, **QUIET, **settings})


@pytest.mark.parametrize("judge", [0.0, 3.0, 7.5])
@pytest.mark.parametrize(
    "settings", [{"epochs": 100}, {}, {"schedule": "cosine"}, {"weight_decay": 0.1}, {"patience": None}]
)
def test_a_fit_ends_in_time_and_uses_most_of_it(judge, settings, monkeypatch):
    """Epochs of ten steps end in time, although a Gaussian and the flow are by default judged after the last epoch."""
    time = Time(monkeypatch, judge=judge)
    _, history = fitted(95.0, **settings)
    assert history.stopped == "time_budget"
    assert 95.0 - 3.0 - 4 * judge <= time.spent < 95.0
    assert len(history.train_loss) >= 3
    assert history.judged_by == "held-out rows"


def test_a_fit_ends_in_time_where_steps_become_slower(monkeypatch):
    time = Time(monkeypatch, step=lambda step: 1.0 + 0.02 * step)
    _, history = fitted(200.0, epochs=100)
    assert history.stopped == "time_budget"
    assert 190.0 < time.spent < 200.0


def test_an_incomplete_epoch_counts_and_has_no_losses(monkeypatch):
    Time(monkeypatch)
    _, history = fitted(25.0, epochs=100, learning_rate=1e-3)
    assert len(history.train_loss) == len(history.validation_loss) == len(history.seconds) == 2
    assert history.best_epoch == 3  # the budget cut the third epoch short
    assert history.best_loss < min(history.validation_loss)


def test_the_best_weights_on_held_out_rows_are_kept(monkeypatch):
    time = Time(monkeypatch)
    x, x_val = gaussian(900), gaussian(100, "other")
    flow = small()
    history = flow.fit(x, validation=x_val, epochs=100, learning_rate=0.5, clip=None, time_budget=66.0, **QUIET)
    assert history.stopped == "time_budget"
    assert history.best_loss == min(time.losses) < time.losses[-1]
    assert -flow.log_prob(x_val).mean(dtype="f8") == pytest.approx(history.best_loss, abs=1e-5)


def test_a_budget_does_not_change_steps(monkeypatch):
    """A fit whose epochs all have time within the budget has the bits of a fit without a budget."""
    Time(monkeypatch)
    flow, history = fitted(1000.0, epochs=3)
    other, _ = fitted(None, epochs=3)
    assert history.stopped == "epochs"
    cases.assert_same_bits(flow.parameters, other.parameters)


def test_without_held_out_rows_the_last_weights_are_kept(monkeypatch):
    time = Time(monkeypatch)
    flow, history = fitted(25.0, validation=None, epochs=100, batch_size=100)
    assert (history.stopped, history.best_epoch, time.steps) == ("time_budget", 3, 23)
    assert (flow.parameters != small().parameters).any()


def test_the_cosine_ends_with_the_time(monkeypatch):
    time = Time(monkeypatch, judge=2.0)
    fitted(100.0, epochs=1000, schedule="cosine", learning_rate=1.0)
    assert time.rates[0] > 0.99
    assert time.rates == sorted(time.rates, reverse=True)
    assert time.rates[-1] < 0.01


def test_stages_of_weight_decay_end_in_time(monkeypatch):
    """The budget ends in a later stage; the fit has the weights and the decay of the best stage."""
    time = Time(monkeypatch)
    _, history = fitted(400.0, bent(1000), patience=6, epochs=300, learning_rate=0.03)
    assert history.stopped == "time_budget"
    assert len(history.weight_decays) > 1
    assert history.best_loss == min(time.losses)
    assert history.weight_decay == min(history.weight_decays, key=history.weight_decays.get)
    assert 390.0 < time.spent < 400.0


def test_cross_validation_leaves_time_for_the_fit_that_follows(monkeypatch):
    """With fewer than 50 rows held out, the five fits of cross-validation and the last fit end in time."""
    time = Time(monkeypatch, judge=0.5)
    monkeypatch.setattr(few_rows, "can_mix", lambda flow, source: False)  # fits begin from the Gaussian
    flow, history = fitted(600.0, bent(200), batch_size=50, learning_rate=0.02, gaussianize=False)
    assert history.judged_by == "cross-validation"
    assert history.stopped == "time_budget"
    assert 400.0 < time.spent < 600.0
    assert len(history.train_loss) == len(history.validation_loss) > 5  # cross-validation chose this number of epochs
    assert (flow.parameters != small().parameters).any()


@pytest.mark.usefixtures("one_mixture")
def test_cross_validation_that_begins_nothing_is_the_gaussian(monkeypatch):
    time = Time(monkeypatch, step=50.0)
    flow, history = fitted(30.0, rows=200, batch_size=50)
    assert (history.stopped, history.gaussian, history.train_loss) == ("time_budget", True, [])
    assert time.steps <= 1
    assert np.isfinite(flow.log_prob(gaussian(20))).all()


@pytest.mark.parametrize("budget", [1e-9, 0.5])
@pytest.mark.parametrize("rows", [200, 1000])
def test_a_budget_that_is_too_small_leaves_a_flow_in_the_data_s_units(budget, rows, monkeypatch):
    time = Time(monkeypatch, judge=0.3)
    flow, history = fitted(budget, rows=rows)
    assert history.stopped == "time_budget"
    assert time.steps == 0
    assert time.spent <= (0.3 if rows == 1000 else 5 * 0.3)  # held-out rows are judged once, or once a fold
    assert flow.log_prob(gaussian(rows)).mean() > -8.0


def test_an_ensemble_shares_its_time(monkeypatch, set_threads):
    set_threads(1)  # with one thread members are fitted in turn
    time = Time(monkeypatch)
    ensemble = hr.Ensemble([small(seed=s) for s in range(3)])
    ends = []
    for flow in ensemble:
        fit = flow.fit
        flow.fit = lambda *given, fit=fit, **more: (fit(*given, **more), ends.append(time.spent))[0]
    histories = ensemble.fit(gaussian(1000), epochs=100, batch_size=90, time_budget=150.0, **QUIET)
    assert [history.stopped for history in histories] == ["time_budget"] * 3
    assert all(abs(end - 50.0 * (i + 1)) < 8.0 for i, end in enumerate(ends))
    assert ends[-1] < 150.0


def test_time_that_one_member_leaves_goes_to_the_others(monkeypatch, set_threads):
    set_threads(1)  # with one thread members are fitted in turn
    time = Time(monkeypatch)
    ensemble = hr.Ensemble([small(seed=s) for s in range(2)])
    fit = ensemble[0].fit
    ensemble[0].fit = lambda *given, **more: fit(*given, **{**more, "epochs": 1})
    first, second = ensemble.fit(gaussian(1000), epochs=100, batch_size=90, time_budget=100.0, **QUIET)
    assert (first.stopped, second.stopped) == ("epochs", "time_budget")
    assert 92.0 < time.spent < 100.0


def test_a_device_waits_now_and_then(machine, monkeypatch):
    """A fit ends in time even if a device only queues steps, which take their time when the host waits for a result."""
    time, queued = Time(monkeypatch, step=0.0), []
    cupy = Library("cupy", machine)
    find, read = _run.ArrayRun._find_gradient, cupy.machine.cupy.ndarray.get

    def waited(array):
        time.seconds += len(queued)
        queued.clear()
        return read(array)

    monkeypatch.setattr(_run.ArrayRun, "_find_gradient", lambda *given: queued.append(1) or find(*given))
    monkeypatch.setattr(cupy.machine.cupy.ndarray, "get", waited)
    x, context, weights = data(1000)
    flow = hr.MAF(x.shape[1], context.shape[1], 1, (8,)).to("cuda")
    given = (cupy.make(x), cupy.make(context))
    history = flow.fit(*given, weights=cupy.make(weights), epochs=100, batch_size=10, time_budget=250.0, **QUIET)
    assert history.stopped == "time_budget"
    assert 250.0 - 3 * _run.DeviceRun.STEPS < time.spent < 250.0


@pytest.mark.parametrize("budget", [0, -1.0, math.inf, math.nan, "long", True])
def test_refused_time_budgets(budget):
    flow = small()
    before = hr.to_bytes(flow)
    for call in (flow.fit, hr.Ensemble([flow]).fit):
        with pytest.raises((ValueError, TypeError), match=r"^time_budget: expected a number"):
            call(gaussian(100), time_budget=budget, **QUIET)
    assert hr.to_bytes(flow) == before


def test_short_fits_that_choose_take_half_of_the_time_and_the_cosine_ends_with_it(monkeypatch):
    monkeypatch.setattr(_plan, "MANY_FOR_COSINE", 400)
    monkeypatch.setattr("headrace._fit.fit.STEPS", 34)
    time = Time(monkeypatch)
    flow = hr.NSF(3, transforms=1, hidden=(8,))
    history = flow.fit(gaussian(600), time_budget=100.0, **QUIET)
    assert 90 < time.spent <= 100
    assert (history.stopped, history.schedule) == ("time_budget", "cosine")
    assert history.epochs > 2
    assert time.rates[33] < 0.1 * time.rates[0]  # the rate has decayed: the first trial was not cut short
    ends = [i for i in range(1, len(time.rates)) if time.rates[i] > 2 * time.rates[i - 1]]
    assert [i for i in ends if 45 < i < 52]  # the second trial was cut short
    assert time.rates[-1] < 0.1 * max(time.rates[ends[-1] :])
