"""Stages of a fit end without a gain, and comparisons of flows allow for chance."""

from types import SimpleNamespace

import numpy as np

import headrace as hr
from headrace._fit.few_rows import clearly_better
from headrace._fit.history import History
from headrace._fit.plan import Plan, Stages
from headrace._flow.fit_arguments import Arguments


def stages_of(tries_cosine=False, **settings):
    defaults = {"weight_decay": None, "constant_decay": 1.0, "staged": True, "patience": 4, "epochs": 60, "begun": 0}
    plan = SimpleNamespace(schedule="constant", tries_cosine=tries_cosine, **defaults | settings)
    return Stages(plan, True)


def test_a_stage_without_a_gain_is_the_last():
    stages, history = stages_of(), History()
    stages.tried(0, 2.0, history)  # the loss is 2.0 before the first step
    stages.tried(1, 1.0, history)
    assert stages.next_stage(1)
    stages.tried(2, 1.5, history)
    assert not stages.next_stage(2)


def paused_stages(halfway=1.5, paused=1.0):
    """Stages of a fit after its tenth epoch: the loss was `halfway` after five epochs, and `paused` after ten."""
    stages, history = stages_of(tries_cosine=True, patience=40), History()
    for epoch, loss in ((0, 2.0), (5, halfway), (10, paused)):
        stages.tried(epoch, loss, history)
    return stages, history


def test_a_cosine_comes_early_and_ends_the_fit_where_it_is_clearly_better():
    stages, history = paused_stages()
    assert (stages.end, stages.most) == (10, 75)
    assert stages.next_stage(10)
    assert (stages.now.decay, stages.now.schedule, stages.begin, stages.end) == (4.0, "cosine", 10, 25)
    assert not stages.waited(24)  # the best epoch is the tenth
    assert (stages.done(100, 10), stages.done(250, 10)) == (0.0, 1.0)
    assert (history.weight_decay, history.schedule) == (1.0, "constant")
    stages.tried(25, 0.49, history)  # the cosine gained 0.51, and epochs 5 to 10 gained 0.5
    assert (history.weight_decay, history.schedule, history.weight_decays[4.0]) == (4.0, "cosine", 0.49)
    assert not stages.next_stage(25)
    assert (stages.now.decay, stages.of_the_last_schedule([*range(25)])) == (4.0, [*range(10, 25)])


def test_decays_go_on_where_the_cosine_was_not_clearly_better():
    stages, history = paused_stages()
    assert stages.next_stage(10)
    stages.tried(25, 0.51, history)
    assert stages.next_stage(25)
    assert (stages.now.decay, stages.now.schedule, stages.end) == (1.0, "constant", 75)
    assert stages.of_the_last_schedule([*range(75)]) == [*range(10), *range(25, 75)]
    stages.tried(26, 0.5, history)
    assert stages.waited(46)
    assert stages.next_stage(46)  # the first decay has gained
    assert (stages.now.decay, stages.now.schedule) == (0.2, "constant")
    assert not stages.next_stage(66)  # the second decay has not gained, and the cosine is not tried again


def test_a_cosine_after_early_ends_has_their_epochs_and_is_last():
    stages, history = stages_of(tries_cosine=True), History()
    stages.tried(0, 2.0, history)
    stages.tried(1, 1.0, history)
    assert stages.next_stage(3)
    assert (stages.now.decay, stages.now.schedule) == (0.2, "constant")
    assert stages.next_stage(6)
    assert (stages.now.schedule, stages.begin, stages.end) == ("cosine", 6, 12)
    assert not stages.next_stage(12)


def test_without_time_for_a_cosine_the_decays_go_on():
    stages, _ = paused_stages()
    assert stages.next_stage(10, has_time=False)
    assert (stages.now.schedule, stages.end) == ("constant", 60)
    assert not stages.next_stage(60, has_time=False)


def test_decays_that_follow_one_another_have_twice_the_epochs():
    """Fits without held-out rows, or with the argument `weight_decay`, have the usual number of epochs."""

    def epochs(rows=5000, judged=True, **given):
        return Plan.of(hr.MAF(2), rows, Arguments(**given), judged=judged).epochs

    assert epochs() == 2 * epochs(judged=False) == 2 * epochs(weight_decay=None) == 2 * epochs(weight_decay=0.1) == 600
    assert epochs(schedule="cosine") == epochs(patience=None) == 300
    assert epochs(rows=60_000) == epochs(rows=60_000, judged=False)  # fits of 60,000 rows begin with the least decay
    assert epochs(epochs=7) == 7


def test_a_cosine_is_tried_by_default_with_many_rows():
    def plan(rows=12_000, judged=True, make=hr.NSF, **given):
        return Plan.of(make(2), rows, Arguments(**given), judged=judged)

    for more in ({}, {"rows": 40_000, "schedule": "auto", "learning_rate": 1e-3, "seed": 3}):
        assert plan(**more).tries
        assert plan(**more, optimizer="adam").tries_cosine
    for make in (hr.MAF, hr.IAF, hr.RealNVP):
        assert plan(make=make).tries
        assert not plan(make=make, optimizer="adam").tries_cosine
    assert not plan(make=hr.PlanarFlow).tries  # planar flows have no networks
    for more in (
        {"rows": 7999},
        {"rows": 60_000},
        {"judged": False},
        {"epochs": 300},
        {"schedule": "constant"},
        {"weight_decay": 0.1},
        {"weight_decay": None},
        {"patience": 20},
        {"patience": None},
    ):
        for optimizer in ("auto", "adam"):
            now = plan(**more, optimizer=optimizer)
            assert not now.tries
            assert not now.tries_cosine


def test_a_fit_by_muon_is_one_cosine(library):
    def plan(flow, **given):
        return Plan.of(flow, 12_000, Arguments(**given), judged=True)

    for now in (plan(hr.NSF(2)), plan(hr.NSF(2), optimizer="muon")):
        assert (now.tries, now.tries_cosine, now.staged) == (True, False, False)
        assert (now.schedule, now.optimizer, now.epochs) == ("cosine", "muon", 100)
    for now in (plan(hr.NSF(2), optimizer="adam"), plan(hr.NSF(2).to("cuda"))):
        assert (now.tries, now.tries_cosine, now.staged) == (False, True, True)
        assert (now.schedule, now.optimizer, now.epochs) == ("constant", "adam", 600)


def test_better_within_the_standard_error_is_not_clearly_better():
    than, weights = np.ones(2), np.ones(2)
    assert clearly_better(np.array([0.0, 0.1]), than, weights)
    assert not clearly_better(np.array([-1.0, 2.9]), than, weights)


def test_the_standard_error_is_that_of_the_mean():
    """The standard error of 100 rows is a tenth of the deviation of one row."""
    than, weights, losses = np.zeros(100), np.ones(100), np.tile([-1.3, 0.7], 50)  # gains of mean 0.3 and deviation 1
    assert clearly_better(losses, than, weights)
    weights[1] = 60.0  # the weighted mean gain, (50 * 1.3 - 109 * 0.7) / 159, is below 0
    assert not clearly_better(losses, than, weights)
