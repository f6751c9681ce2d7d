"""Fits with a cosine schedule: as a stage of Adam, or by Muon alone after short fits that choose the settings."""

from types import SimpleNamespace

import numpy as np
import pytest

import cases
import headrace as hr
from fitting import QUIET, gaussian, loss_of
from headrace._fit import fit as fit_module
from headrace._fit import plan as _plan
from headrace._fit import run as _run
from headrace._fit import trials as _trials
from headrace._fit.clock import Clock
from headrace._fit.history import History
from headrace._fit.residuals import Residuals
from headrace._fit.run import ArrayRun
from headrace._fit.trials import Choice


@pytest.fixture
def short(monkeypatch):
    """Let fits have few epochs, and try a cosine schedule even with few rows."""
    monkeypatch.setattr(_plan, "MOST_EPOCHS", 20)
    monkeypatch.setattr(_plan, "MANY_FOR_COSINE", 800)
    monkeypatch.setattr("headrace._fit.fit.STEPS", 200)


@pytest.fixture
def weak(short, monkeypatch):
    """Let fits of few rows have the weak weight decay of fits with more rows."""
    monkeypatch.setattr(_plan, "DECAY_BY_ROWS", 25.0)


def small():
    return hr.NSF(3, transforms=1, hidden=(16,))


def bent(rows, *key):
    """Rows that a fit with a large constant learning rate and no running mean learns only roughly."""
    x = gaussian(rows, "bent", *key)
    x[:, 1] += np.square(x[:, 0])
    return x


def thin_ring(rows, *key):
    """Rows that networks with a strong decay cannot learn."""
    generator = cases.rng("thin ring", *key)
    angle, radius = generator.uniform(0.0, 2.0 * np.pi, rows), 2.0 + 0.03 * generator.standard_normal(rows)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


START, OWN = 6, 10  # epochs before and during the cosine, in fits by Adam with the fixture `short`
ROUGH = {"learning_rate": 0.2, "average": None, "batch_size": 32}

optimizers = pytest.mark.parametrize("optimizer", ["adam", "auto"])


def fits_of(rows, make, **settings):
    """Fit with the default schedule and with the constant one, and return each flow with its history."""
    found = []
    for schedule in ("auto", "constant"):
        flow = make()
        found.append((flow, flow.fit(rows, schedule=schedule, **settings, **QUIET)))
    return found


def test_a_cosine_is_taken_where_held_out_rows_gain(weak):
    """A fit ends with its cosine, and the flow is as good as a flow that was fitted for more epochs.

    The cosine gained 0.06 to 0.10 nats in 16 fits, to rows changed by 1e-6, by builds with and without multiply-adds;
    at the learning rate of ROUGH the cosine may lose.
    """
    new, settings = bent(3000, "new"), {**ROUGH, "learning_rate": 0.05}
    (flow, history), (plain, before) = fits_of(bent(1200), small, **settings, optimizer="adam", seed=7)
    assert history.schedule == "cosine"
    assert before.schedule == "constant"
    assert START < history.best_epoch <= len(history.train_loss) == START + OWN < len(before.train_loss)
    assert history.best_loss < min(before.validation_loss[: START + OWN]) - 0.02
    assert loss_of(flow, new) < loss_of(plain, new) + 0.02
    assert history.weight_decay * 1080 / 25 == pytest.approx(4)
    assert history.best_loss == history.weight_decays[history.weight_decay]
    rates = history.learning_rate[START:]
    assert rates == sorted(rates, reverse=True)
    assert 0.045 < rates[0] < 0.05
    assert rates[-1] < 3e-2 * rates[0]


def test_a_cosine_is_dropped_where_held_out_rows_lose(short):
    """The stages go on after a cosine that loses, and end with a loss as good as that of a fit without a cosine."""
    (flow, history), (_, before) = fits_of(
        thin_ring(1000), lambda: hr.NSF(2, transforms=2, hidden=(16,)), optimizer="adam"
    )
    losses, rates = history.validation_loss, history.learning_rate
    assert history.schedule == "constant"
    assert min(losses[START : START + OWN]) > history.best_loss + 0.02
    assert len(set(rates[:START] + rates[START + OWN :])) == 1
    assert len(losses) > START + OWN
    assert history.best_epoch > START + OWN
    assert history.best_loss < before.best_loss + 0.02
    assert loss_of(flow, thin_ring(3000, "new")) == pytest.approx(history.best_loss, abs=0.2)


def test_stages_before_a_cosine_are_those_of_a_fit_without(weak):
    (_, history), (_, before) = fits_of(bent(1200), small, **ROUGH, optimizer="adam")
    for name in ("train_loss", "validation_loss", "learning_rate"):
        assert getattr(history, name)[:START] == getattr(before, name)[:START]


def test_all_steps_are_muons_where_a_fit_is_not_of_adam_alone(weak, monkeypatch):
    steps, step = [], hr.Adam.step
    monkeypatch.setattr(hr.Adam, "step", lambda one, gradient: steps.append(type(one)) or step(one, gradient))
    for optimizer, kind in (("adam", hr.Adam), ("auto", hr.Muon)):
        steps.clear()
        small().fit(bent(1200), optimizer=optimizer, **ROUGH, **QUIET)
        assert set(steps) == {kind}


def test_few_rows_have_the_bits_of_a_fit_without(monkeypatch):
    monkeypatch.setattr(_plan, "MOST_EPOCHS", 5)
    (flow, history), (plain, before) = fits_of(gaussian(1000), small)
    cases.assert_same_bits(flow.parameters, plain.parameters)
    assert history.validation_loss == before.validation_loss


def shifts_and_scales():
    return hr.MAF(3, transforms=1, hidden=(16,))


def test_flows_of_shifts_and_scales_try_no_cosine_by_adam(weak):
    (flow, history), (plain, before) = fits_of(bent(1200), shifts_and_scales, optimizer="adam", **ROUGH)
    assert len(history.train_loss) == len(before.train_loss)
    cases.assert_same_bits(flow.parameters, plain.parameters)
    bending = (hr.NSF(2), hr.NSF(2, coupling=True), hr.NSF(2, periodic=[(0, 1), None]))
    assert [flow._interior.bends for flow in bending] == [True] * 3
    assert not hr.PlanarFlow(2)._interior.bends
    for make in (hr.MAF, hr.IAF, hr.RealNVP):
        assert not make(2)._interior.bends
        assert not make(2, link="linear", bounds=[(0, 1), None])._interior.bends


def test_flows_of_shifts_and_scales_go_on_by_muon_after_their_trials(weak):
    """Fits of flows of shifts and scales by Muon have lower losses than stages of decay after as many epochs."""
    (_, history), (_, before) = fits_of(bent(1200), shifts_and_scales, batch_size=32)
    assert history.schedule == "cosine"
    assert history.epochs < before.epochs
    assert history.best_loss < min(before.validation_loss[: history.epochs]) - 0.01


@pytest.mark.parametrize("gains", [False, True])
def test_fits_of_shifts_and_scales_go_on_with_less_decay_where_it_gains(gains, weak, monkeypatch):
    monkeypatch.setattr(_trials, "LATE", 0.0)  # no trial counts as one that overfits
    monkeypatch.setattr(_trials, "mean_beyond", lambda *given: 1.0 if gains else -1.0)
    group = hr.distributed.local()
    rows = hr.distributed.shards(bent(1200), group, rows=300)
    for x, more in ((bent(1200), {}), (rows, {"group": group})):
        history = shifts_and_scales().fit(x, batch_size=32, gaussianize=False, **more, **QUIET)
        decay = _trials.AFFINE[gains][1] * 25 / 1080
        assert (history.schedule, history.weight_decay) == ("cosine", pytest.approx(decay))


def test_a_cosine_begins_with_the_best_weights_so_far(weak):
    """The loss of the first epoch of the cosine is near that of the epoch before."""
    losses = small().fit(bent(1200), optimizer="adam", **ROUGH, **QUIET).train_loss
    assert abs(losses[START] - losses[START - 1]) < 0.5 * (losses[0] - losses[START - 1])


@optimizers
def test_streams_and_groups_try_a_cosine_too(weak, optimizer):
    x, settings = bent(1200), {**ROUGH, "optimizer": optimizer}
    blocks = hr.rows.blocks([x[i : i + 200] for i in range(0, 1200, 200)], buffer=400)
    group = hr.distributed.local()
    for rows, more in ((x, {}), (blocks, {}), (hr.distributed.shards(x, group, rows=300), {"group": group})):
        history = small().fit(rows, **settings, **QUIET, **more)
        decays = [4, 1] if optimizer == "auto" else [4]
        assert any(one == pytest.approx(decay * 25 / 1080) for one in history.weight_decays for decay in decays)
        assert len(set(history.learning_rate)) >= 5  # the cosine has few epochs where the trial overfits


def test_a_stream_in_memory_has_the_bits_of_an_array(weak):
    x = bent(1200)
    array, stream = small(), small()
    settings = {**ROUGH, **QUIET, "learning_rate": 0.05, "seed": 8}
    array.fit(x, **settings)
    assert stream.fit(hr.rows.blocks([x[:400], x[400:]]), **settings).schedule == "cosine"
    cases.assert_same_bits(array.parameters, stream.parameters)


def test_a_budget_without_enough_time_leaves_a_cosine_out(short, monkeypatch):
    """The remaining time has to be at least the expected time of the cosine."""
    from headrace._fit.clock import Clock

    asked = []
    monkeypatch.setattr(Clock, "left", lambda clock: asked.append(clock) or 0.0)
    history = small().fit(bent(1200), time_budget=1000.0, optimizer="adam", **ROUGH, **QUIET)
    assert asked
    assert history.schedule == "constant"
    assert len(set(history.learning_rate)) == 1


# --- trials ---------------------------------------------------------------------------------------------------------


class Stood:
    """A run whose held-out rows have the loss `loss` at its best epoch; without a finite loss no epoch is the best."""

    def __init__(self, loss, best):
        self.flow, self.plan, self.clock = loss, SimpleNamespace(epochs=10), Clock()
        self.history = History(best_epoch=best, stopped="epochs" if np.isfinite(loss) else "non-finite")

    def go(self, progress):
        assert not self.warns


def searched(losses, *, links=(), shares=None, best=10, bends=True, **settings):
    """Return the choices that the search tries, and the best one, if the trials have the losses `losses` in turn."""
    left, tried = iter(losses), []

    def made(choice):
        tried.append(choice)
        return Stood(next(left), best)

    held_out = SimpleNamespace(
        weights=lambda: np.ones(4), log_probs=lambda loss: 0.01 * len(tried) * np.array([1, -1, 1, -1]) - loss
    )
    plan = SimpleNamespace(
        **{"learning_rate": 0.1, "constant_decay": 0.2, "has_rate": False, "gaussianize": None, "bends": bends}
        | settings
    )
    first, other = Choice(links=links), Choice(Residuals(shares=shares), links) if shares else None
    return tried, *_trials.searched(made, held_out, first, other, plan)


def test_trials_choose_rate_and_decay_first():
    tried, best, run = searched([1.0, 0.9])
    assert [(one.rate, one.decay) for one in tried] == [(0.2, 0.8), (0.1, 0.2)]
    assert (best, run.flow) == (tried[1], 0.9)
    assert searched([0.9, 1.0])[1].rate == 0.2
    assert [one.rate for one in searched([1.0, 0.9], has_rate=True)[0]] == [0.1, 0.1]


def test_less_regular_fits_are_not_tried_where_the_first_one_overfits():
    tried, _, run = searched([1.0], best=9)
    assert len(tried) == 1
    assert _trials.overfits(run)
    assert not _trials.overfits(searched([1.0, 0.9])[2])


def test_trials_of_shifts_and_scales_choose_the_decay_alone():
    links = (hr.transforms.Gaussianize(*cases.curves(2, 9)),)
    for losses, decay in (([1.0, 0.9, 0.8], 0.04), ([0.9, 1.0, 0.8], 0.2)):
        tried, best, run = searched(losses, bends=False, links=links)
        assert [(one.rate, one.decay) for one in tried[:2]] == [(0.2, 0.2), (0.2, pytest.approx(0.04))]
        assert (best, run.flow, len(tried)) == (tried[2], 0.8, 3)
        assert (best.decay, best.links) == (pytest.approx(decay), ())
    assert len(searched([1.0], bends=False, best=9)[0]) == 1


def test_trials_choose_curves_and_residual_columns_by_the_best_rate_and_decay():
    links, shares = (hr.transforms.Gaussianize(*cases.curves(2, 9)),), {1: 0.01}
    tried, best, _ = searched([1.0, 0.9, 0.8, 0.7], links=links, shares=shares)
    assert [(one.rate, one.links, one.residuals.shares) for one in tried[2:]] == [(0.1, (), {}), (0.1, (), shares)]
    assert best == tried[3]
    tried, best, _ = searched(
        [1.0, 0.9, 0.95, 0.86], links=links, shares=shares
    )  # a gain of 0.04 nats is too little for residual columns
    assert (tried[3].links, best) == (links, tried[1])
    assert len(searched([1.0, 0.9], links=links, gaussianize=True)[0]) == 2


def test_a_trial_without_a_finite_loss_does_not_count(monkeypatch):
    assert searched([1.0, np.nan])[1].rate == 0.2
    assert searched([np.nan, 1.0])[1].rate == 0.1
    _, best, run = searched([np.nan, np.nan])
    assert (best.rate, run) == (0.2, None)
    monkeypatch.setattr(Clock, "has", lambda clock, seconds: False)
    assert searched([1.0, 0.9])[2] is None


@pytest.fixture
def trials(weak, monkeypatch):
    """A list to which each fit adds its best trial."""
    seen, searched = [], fit_module.searched

    def noted(*given):
        seen.append(searched(*given)[1])
        return searched(*given)

    monkeypatch.setattr(fit_module, "searched", noted)
    return seen


def test_a_fit_goes_on_from_the_best_trial(trials):
    history = small().fit(bent(1200), batch_size=32, **QUIET)
    (trial,) = trials
    begun = trial.history.best_epoch
    assert 0 < begun < history.epochs
    for name in ("train_loss", "validation_loss", "learning_rate"):
        assert getattr(history, name)[:begun] == getattr(trial.history, name)[:begun]
    assert (history.schedule, history.weight_decay) == ("cosine", trial.plan.weight_decay)
    assert history.learning_rate[begun] > history.learning_rate[begun - 1]
    assert history.best_loss == min(history.validation_loss) == history.validation_loss[history.best_epoch - 1]
    for seconds in (history.seconds, history.cpu_seconds):
        assert len(seconds) == history.epochs
        assert seconds == sorted(seconds)


def test_a_fit_goes_on_for_longer_where_less_regular_trials_win(trials, monkeypatch):
    lengths = []
    for late, share in ((1.0, 0.2), (0.0, None)):
        monkeypatch.setattr(_trials, "LATE", late)
        history = small().fit(bent(1200), batch_size=32, **QUIET)
        rates = {1.0: 1.0, 2.0: 0.8}
        want = share or rates[trials[-1].plan.learning_rate / 5e-3]
        lengths.append((history.epochs - trials[-1].history.best_epoch, max(2, round(want * 6))))
    assert all(length == want for length, want in lengths)


def test_a_fit_whose_trial_is_best_keeps_its_weights(trials, monkeypatch):
    monkeypatch.setattr(ArrayRun, "_rate", lambda run: 10.0 if run.plan.begun else run.rate)
    flow = small()
    history = flow.fit(bent(1200), batch_size=32, **QUIET)
    assert history.best_epoch == trials[0].history.best_epoch < history.epochs
    cases.assert_same_bits(flow.parameters, trials[0].best)


# --- fits whose loss still falls at the end ---------------------------------------------------------------------------


def test_an_end_before_the_fall_is_over_is_noted():
    x = bent(1200)
    short_fit = small().fit(x, epochs=4, learning_rate=1e-3, **QUIET)
    assert short_fit.still_falls
    assert "still_falls=True" in repr(short_fit)
    whole = small().fit(x, epochs=300, patience=4, learning_rate=2e-2, **QUIET)
    assert whole.stopped == "patience"
    assert not whole.still_falls
    assert "still_falls" not in repr(whole)
    assert small().fit(x, epochs=4, learning_rate=1e-3, schedule="cosine", **QUIET).still_falls
    assert not small().fit(x, epochs=40, learning_rate=2e-2, schedule="cosine", **QUIET).still_falls


def test_a_fit_that_gained_much_after_its_trial_still_falls(weak, monkeypatch):
    falls = []
    for gained in (-np.inf, np.inf):
        monkeypatch.setattr(_run, "GAINED", gained)
        monkeypatch.setattr(_run, "FALLING", np.inf)
        falls.append(small().fit(bent(1200), batch_size=32, learning_rate=1e-3, **QUIET).still_falls)
    assert falls == [True, False]
