"""Short fits beside zuko, and the grid of rates and decays."""

from __future__ import annotations

import importlib.util
import json
import re

import numpy as np
import pytest

from bench.quality import __main__ as quality
from bench.quality import optimizers
from bench.quality.fits import fit_zuko


@pytest.fixture
def folder(tmp_path):
    """A folder with a random table of 300 rows in the file of MAGIC."""
    rows = np.random.default_rng(0).normal(size=(300, 11))
    np.savetxt(tmp_path / "magic_gamma_telescope.csv", rows, delimiter=",")
    return tmp_path


def fits(folder, what, library):
    """The exit status of a quick run, and the result of each fit."""
    where = ["--data", str(folder), "--output", str(folder), "--threads", "1"]
    status = quality.main(["--quick", "--what", what, "--libraries", library, *where])
    (path,) = folder.glob(f"quality_quick_{what}_*.json")
    return status, [fit["result"] for fit in json.loads(path.read_text())["fits"]]


@pytest.fixture(scope="module")
def first_fit():
    """A dict in which the test stores the result of the process of zuko's first fit."""
    return {}


@pytest.fixture
def one_process(first_fit, monkeypatch):
    """Run all fits except zuko's first one in this process, because each process would load PyTorch."""
    right = quality.run

    def run(job, options):
        if job.library != "zuko":
            return right(job, options)
        if not first_fit:
            first_fit.update(right(job, options))
            return dict(first_fit)
        return {**first_fit, **fit_zuko(job)}

    monkeypatch.setattr(quality, "run", run)


@pytest.mark.parametrize("library", ["headrace", "zuko"])
@pytest.mark.parametrize("what", ["magic_equal", "magic_defaults"])
def test_every_fit_gives_a_density(what, library, folder, capsys, one_process):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    status, found = fits(folder, what, library)
    assert status == 0, capsys.readouterr().err
    assert found
    assert all(np.isfinite(result["log_likelihood"]) and result["seconds"] > 0 for result in found)


def test_a_fit_that_fails_fails_the_benchmark(folder, monkeypatch, capsys):
    monkeypatch.setattr(quality, "run", lambda job, options: {"error": "it failed"})
    status, found = fits(folder, "magic_equal", "headrace")
    assert status == 1
    assert found
    assert "it failed" in capsys.readouterr().err


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
