"""A dual ascent with a time budget ends in about that time, with the steps so far."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

import headrace as hr
from headrace._fit import clock as _clock
from headrace.ascent import ascent as _ascent
from headrace.ascent import competing_fits as _contest


def banana(n):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 2))
    x[:, 1] = 0.3 * x[:, 1] + np.square(x[:, 0])
    return x


@pytest.mark.costly
def test_an_ascent_keeps_to_its_time():
    x = banana(20_000)
    begin = time.perf_counter()
    model = hr.DualAscentFlow()
    flow = model.fit(x, time_budget=2.0, progress=False)
    assert time.perf_counter() - begin < 8.0
    stopped = {model.history.stopped, model.history.refinement and model.history.refinement.stopped}
    assert "time_budget" in stopped
    assert flow.log_prob(x).mean() > -3.5
    whole = hr.DualAscentFlow(steps=3, refine=False)
    whole.fit(x[:500], time_budget=60.0, progress=False)
    assert whole.history.stopped == "steps"


@pytest.mark.parametrize("map", ["kink", "spline"])
def test_an_ascent_ends_before_a_step_that_would_exceed_its_time(map, monkeypatch):
    """A step takes a second by a clock that only readings advance; the limit keeps 1.5 s for the next step."""
    ticks = iter(np.arange(0.0, 1e4, 0.5))  # each step reads the clock twice: for the history, and for the time left
    now = [0.0]

    def read():
        now[0] = float(next(ticks))
        return now[0]

    monkeypatch.setattr(_ascent, "time", SimpleNamespace(perf_counter=read))
    monkeypatch.setattr(_clock, "now", lambda: now[0])
    model = hr.DualAscentFlow(steps=100, map=map, refine=False, patience=None)
    flow = model.fit(banana(500), time_budget=10.0 / (1.0 - _clock.UNTIMED), progress=False)
    history = model.history
    assert history.stopped == "time_budget"
    # The n-th reading of the clock is at n seconds: the budget has room for 8 + 1.5 s, and none for 9 + 1.5 s.
    assert len(history.log_likelihood) == 9
    assert history.seconds == [0.5 + i for i in range(9)]
    assert len(flow) > 0


@pytest.mark.parametrize(("rows", "refine", "rivals"), [(1000, None, True), (1000, True, False), (6000, None, False)])
def test_the_time_is_shared_among_the_tried_ascents(rows, refine, rivals, monkeypatch):
    """An ascent before a joint training gets a fifth of the time; before a rival, the training gets 0.6 of the rest."""
    now, ends, joint = [0.0], [], []
    ascended, refined = _contest._Fits.ascent, _contest._Fits._refined

    def ascend(self, rng, refine, steps, clock):
        ends.append((now[0], clock.end))
        now[0] += 10.0
        return ascended(self, rng, refine, steps, _clock.Clock())

    def train(self, flow, rng, clock):
        joint.append((now[0], clock.end))
        now[0] += 20.0
        return refined(self, flow, rng, _clock.Clock())

    monkeypatch.setattr(_contest, "REFINE_STEPS", 20)
    monkeypatch.setattr(_clock, "now", lambda: now[0])
    monkeypatch.setattr(_contest._Fits, "ascent", ascend)
    monkeypatch.setattr(_contest._Fits, "_refined", train)
    hr.DualAscentFlow(steps=2, refine=refine).fit(banana(rows), time_budget=100.0, progress=False)
    end = 100.0 * (1.0 - _clock.UNTIMED)
    assert ends[0] == (0.0, pytest.approx(0.2 * end))
    assert joint == [(10.0, pytest.approx(10.0 + 0.6 * (end - 10.0) if rivals else end))]
    assert ends[1:] == ([(30.0, pytest.approx(end))] if rivals else [])  # a rival gets all of the remaining time
