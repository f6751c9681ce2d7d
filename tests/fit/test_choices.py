"""What ends a fit's stages, and when a flow is better than another beyond chance."""

from types import SimpleNamespace

import numpy as np

import headrace as hr
from headrace._fit.arguments import Arguments
from headrace._fit.cross_validation import clearly_better
from headrace._fit.history import History
from headrace._fit.plan import Plan
from headrace._fit.stages import Stages


def stages_of(**settings):
    own = {"weight_decay": None, "constant_decay": 1.0, "staged": True, "patience": 4, "epochs": 60}
    return Stages(SimpleNamespace(schedule="constant", **own | settings), True)


def test_a_stage_that_gained_nothing_is_the_last():
    stages, history = stages_of(tries_cosine=False), History()
    stages.tried(0, 2.0, history)  # the state before the first step
    stages.tried(1, 1.0, history)
    assert stages.next_stage(1)
    stages.tried(2, 1.5, history)
    assert not stages.next_stage(2)


def test_the_cosine_comes_last_anew_and_is_as_long_as_what_came_before():
    epoch = 20
    stages, history = stages_of(tries_cosine=True), History()
    assert stages.most == 120
    stages.tried(0, 2.0, history)
    stages.tried(1, 1.0, history)
    assert stages.next_stage(5)
    assert (stages.now.decay, stages.now.begins_anew, stages.end) == (0.2, False, 60)
    assert stages.waited(epoch)
    assert stages.next_stage(epoch)  # the second stage gained nothing
    assert (stages.now.decay, stages.now.schedule, stages.now.begins_anew) == (4.0, "cosine", True)
    assert (stages.begin, stages.end, stages.most) == (epoch, 2 * epoch, 2 * epoch)
    assert not stages.waited(2 * epoch - 1)
    assert stages.done(10 * epoch, 10) == 0.0
    assert stages.done(20 * epoch, 10) == 1.0
    assert (history.weight_decay, history.schedule) == (1.0, "constant")
    stages.tried(2 * epoch, 0.9, history)
    assert (history.weight_decay, history.schedule, history.weight_decays[4.0]) == (4.0, "cosine", 0.9)
    assert stages.now.decay == 4.0
    assert not stages.next_stage(2 * epoch)


def test_the_cosine_comes_where_the_epochs_are_over_and_there_is_time():
    assert not stages_of(tries_cosine=True).next_stage(60, has_time=False)
    stages, history = stages_of(tries_cosine=True), History()
    stages.tried(0, 2.0, history)
    stages.tried(60, 1.0, history)  # the first stage still gained
    assert stages.next_stage(60)
    assert stages.now.begins_anew


def test_decays_that_follow_one_another_have_twice_the_epochs():
    """Where nothing can choose, or there is no choice, a fit has as many as before."""

    def epochs(rows=5000, judged=True, **given):
        return Plan.of(hr.MAF(2), rows, Arguments(**given), judged=judged).epochs

    assert epochs() == 2 * epochs(judged=False) == 2 * epochs(weight_decay=None) == 2 * epochs(weight_decay=0.1) == 600
    assert epochs(schedule="cosine") == epochs(patience=None) == 300
    assert epochs(rows=60_000) == epochs(rows=60_000, judged=False)  # so many hardly need a decay
    assert epochs(epochs=7) == 7


def test_a_cosine_is_tried_with_many_rows_and_nothing_given():
    def tried(rows=12_000, judged=True, make=hr.NSF, **given):
        return Plan.of(make(2), rows, Arguments(**given), judged=judged).tries_cosine

    assert tried()
    assert tried(rows=40_000, schedule="auto", learning_rate=1e-3, seed=3)
    assert not any(
        [
            tried(make=hr.MAF),
            tried(rows=7999),
            tried(rows=60_000),
            tried(judged=False),
            tried(epochs=300),
            tried(schedule="constant"),
            tried(weight_decay=0.1),
            tried(weight_decay=None),
            tried(patience=20),
            tried(patience=None),
        ]
    )


def test_better_within_the_standard_error_is_not_clearly_better():
    than, weights = np.ones(2), np.ones(2)
    assert clearly_better(np.array([0.0, 0.1]), than, weights)
    assert not clearly_better(np.array([-1.0, 2.9]), than, weights)


def test_the_standard_error_is_that_of_the_mean():
    """Of 100 rows it is a tenth of the deviation of one."""
    than, weights, losses = np.zeros(100), np.ones(100), np.tile([-1.3, 0.7], 50)  # a mean gain of 0.3, deviation 1
    assert clearly_better(losses, than, weights)
    weights[1] = 60.0  # (50 * 1.3 - 109 * 0.7) / 159 is below 0
    assert not clearly_better(losses, than, weights)
