"""The grid of rates and decays chooses by short fits and reports long ones."""

from __future__ import annotations

import re

import numpy as np

from bench.quality import optimizers


def test_a_grid_reports_the_long_fit_of_the_best_short_one(monkeypatch, capsys):
    monkeypatch.setattr(optimizers, "RUNGS", [(4.0, 4.0), *optimizers.PAIRS["NSF"]])
    monkeypatch.setattr(optimizers, "SHORT", 1)
    monkeypatch.setattr(optimizers, "LONG", 2)
    x, new = (optimizers.saw(rows, np.random.default_rng(rows)) for rows in (600, 200))
    optimizers.grid("saw", "NSF", x, new, 0)
    *fits, every, pairs, best = capsys.readouterr().out.splitlines()
    form = r"rate (\S+), decay (\S+): held out +(\S+) and +\S+, new +(\S+),"
    found = [tuple(map(float, re.search(form, line).groups())) for line in fits]
    for line, tried in ((every, found), (pairs, found[1:])):
        rate, decay, _, judged = max(tried, key=lambda one: one[2])
        assert line.endswith(f"({rate}, {decay}), new rows {judged:.3f}")
    assert best.endswith(f"{max(one[3] for one in found):.3f}")
