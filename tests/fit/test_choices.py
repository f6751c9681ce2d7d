"""What ends a fit's stages, and when a flow is better than another beyond chance."""

from types import SimpleNamespace

import numpy as np

import headrace as hr
from headrace._fit.arguments import Arguments
from headrace._fit.cross_validation import clearly_better
from headrace._fit.history import History
from headrace._fit.plan import Plan
from headrace._fit.weight_decay import Decays


def test_a_stage_that_gained_nothing_is_the_last():
    plan = SimpleNamespace(weight_decay=None, constant_decay=1.0, staged=True, patience=4)
    decays, history = Decays(plan, True), History()
    decays.tried(0, 2.0, history)  # the state before the first step
    decays.tried(1, 1.0, history)
    assert decays.next_stage(1)
    decays.tried(2, 1.5, history)
    assert not decays.next_stage(2)


def test_decays_that_follow_one_another_have_twice_the_epochs():
    """Where nothing can choose, or there is no choice, a fit has as many as before."""

    def epochs(rows=5000, judged=True, **more):
        plan = {"epochs": None, "batch_size": None, "learning_rate": None, "schedule": "constant", "clip": 5.0}
        plan |= {"weight_decay": "auto", "average": 0.999, "patience": 50}
        return Plan.of(hr.MAF(2), rows, Arguments(**plan | more), judged=judged).epochs

    assert epochs() == 2 * epochs(judged=False) == 2 * epochs(weight_decay=None) == 2 * epochs(weight_decay=0.1) == 600
    assert epochs(schedule="cosine") == epochs(patience=None) == 300
    assert epochs(rows=60_000) == epochs(rows=60_000, judged=False)  # so many hardly need a decay
    assert epochs(epochs=7) == 7


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
