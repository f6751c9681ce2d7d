"""What ends a fit's stages, and when a flow is better than another beyond chance."""

from types import SimpleNamespace

import numpy as np

import headrace as hr
from headrace._fit.cross_validation import clearly_better
from headrace._fit.history import History
from headrace._fit.plan import COSINES, Plan
from headrace._fit.stages import Stages
from headrace._flow.fit_arguments import Arguments


def stages_of(cosine=None, **settings):
    defaults = {"weight_decay": None, "constant_decay": 1.0, "staged": True, "patience": 4, "epochs": 60}
    plan = SimpleNamespace(schedule="constant", optimizer="adam", cosine=cosine, **defaults | settings)
    return Stages(plan, True)


def test_a_stage_that_gained_nothing_is_the_last():
    stages, history = stages_of(), History()
    stages.tried(0, 2.0, history)  # the state before the first step
    stages.tried(1, 1.0, history)
    assert stages.next_stage(1)
    stages.tried(2, 1.5, history)
    assert not stages.next_stage(2)


def paused_stages(halfway=1.5, paused=1.0):
    """Stages of 60 epochs, ten of which have passed, with these losses after five and ten of them."""
    stages, history = stages_of(COSINES["adam"], patience=40), History()
    for epoch, loss in ((0, 2.0), (5, halfway), (10, paused)):
        stages.tried(epoch, loss, history)
    return stages, history


def test_a_cosine_comes_early_and_ends_the_fit_where_it_is_clearly_better():
    stages, history = paused_stages()
    assert (stages.end, stages.most) == (10, 75)
    assert stages.next_stage(10)
    assert (stages.now.decay, stages.now.schedule, stages.begin, stages.end) == (4.0, "cosine", 10, 25)
    assert not stages.waited(24)  # whose best epoch is the tenth
    assert (stages.done(100, 10), stages.done(250, 10)) == (0.0, 1.0)
    assert (history.weight_decay, history.schedule) == (1.0, "constant")
    stages.tried(25, 0.49, history)  # the second half of the epochs before gained 0.5
    assert (history.weight_decay, history.schedule, history.weight_decays[4.0]) == (4.0, "cosine", 0.49)
    assert not stages.next_stage(25)
    assert (stages.now.decay, stages.of_decays([*range(25)])) == (4.0, [*range(10)])


def test_decays_go_on_where_the_cosine_was_not_clearly_better():
    stages, history = paused_stages()
    assert stages.next_stage(10)
    stages.tried(25, 0.51, history)
    assert stages.next_stage(25)
    assert (stages.now.decay, stages.now.schedule, stages.end) == (1.0, "constant", 75)
    assert stages.of_decays([*range(75)]) == [*range(10), *range(25, 75)]
    stages.tried(26, 0.5, history)
    assert stages.waited(46)
    assert stages.next_stage(46)  # the first decay has gained
    assert (stages.now.decay, stages.now.schedule) == (0.2, "constant")
    assert not stages.next_stage(66)  # the second one has not, and the cosine does not come again


def test_a_cosine_after_decays_that_ended_early_is_as_long_as_they_were_and_the_last():
    stages, history = stages_of(COSINES["adam"]), History()
    stages.tried(0, 2.0, history)
    stages.tried(1, 1.0, history)
    assert stages.next_stage(3)
    assert (stages.now.decay, stages.now.schedule) == (0.2, "constant")
    assert stages.next_stage(6)
    assert (stages.now.schedule, stages.begin, stages.end) == ("cosine", 6, 12)
    assert not stages.next_stage(12)


def test_short_runs_choose_the_decay_and_the_rate_of_a_cosine_by_muon():
    """Decays of 4 and 1, then twice the rate; each begins anew."""
    for losses, tried, chosen in (
        ((0.9, 0.8, 0.7), [(1, 4), (1, 1), (2, 1)], (2, 1)),
        ((0.7, 0.8, 0.68), [(1, 4), (1, 1), (2, 4)], (1, 4)),
        ((0.7, 0.8, 0.6), [(1, 4), (1, 1), (2, 4)], (2, 4)),
    ):
        stages, history, epoch, met = stages_of(COSINES["muon"], epochs=600), History(), 25, []
        for at, loss in ((0, 2.0), (12, 1.2), (epoch, 1.0)):
            stages.tried(at, loss, history)
        for loss in losses:
            assert stages.next_stage(epoch)
            now = stages.now
            met.append((now.rate, now.decay))
            assert (now.schedule, now.optimizer, now.is_fresh) == ("cosine", "muon", True)
            assert (stages.begin, stages.end) == (epoch, epoch + 20)
            epoch += 20
            stages.tried(epoch, loss, history)
        assert met == tried
        assert stages.next_stage(epoch)
        assert (stages.now.rate, stages.now.decay) == chosen
        assert (stages.begin, stages.end, stages.most) == (epoch, epoch + 100, 600 + 60 + 100)
        assert stages.of_decays([*range(epoch)]) == [*range(25)]
        stages.tried(epoch + 100, 0.1, history)
        assert not stages.next_stage(epoch + 100)


def test_decays_go_on_after_a_cosine_with_trials_that_lost():
    stages, history = stages_of(COSINES["muon"], epochs=600), History()
    stages.tried(0, 2.0, history)
    stages.tried(25, 1.0, history)
    for epoch in (25, 45, 65, 85):
        assert stages.next_stage(epoch)
        stages.tried(epoch + 20, 1.1, history)
    assert stages.next_stage(185)
    assert (stages.now.decay, stages.now.schedule, stages.now.optimizer, stages.end) == (1.0, "constant", "adam", 760)
    assert stages.of_decays([*range(760)]) == [*range(25), *range(185, 760)]


def test_without_time_for_a_cosine_the_decays_go_on():
    stages, _ = paused_stages()
    assert stages.next_stage(10, has_time=False)
    assert (stages.now.schedule, stages.end) == ("constant", 60)
    assert not stages.next_stage(60, has_time=False)


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
        return Plan.of(make(2), rows, Arguments(**given), judged=judged).cosine is not None

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


def test_a_cosine_is_by_muon_where_a_flow_can_take_its_steps(library):
    def cosine(flow, **given):
        return Plan.of(flow, 12_000, Arguments(**given), judged=True).cosine

    assert cosine(hr.NSF(2)) == cosine(hr.NSF(2), optimizer="muon") == COSINES["muon"]
    assert cosine(hr.NSF(2), optimizer="adam") == cosine(hr.NSF(2).to("cuda")) == COSINES["adam"]


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
