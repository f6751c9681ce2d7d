"""A dual ascent with a time budget ends in about that time, with what it has."""

import time

import numpy as np

import headrace as hr


def banana(n):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 2))
    x[:, 1] = 0.3 * x[:, 1] + np.square(x[:, 0])
    return x


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
